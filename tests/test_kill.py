"""kill -9 at 40 random moments a stage, at 60 images, then the same command: the result must be byte-identical."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from risbench.core.imagery import encode_png
from tests.conftest import cli, eval_row, picture, tree_bytes
from tests.forked import Forked

KILLS = 40
pytestmark = pytest.mark.slow
STAGES = {
    "ingest": (["ingest", "source"], "1-ingest"),
    # The engine that costs least: its kills hit reading, handing over and committing. GrabCut is killed in the benchmark.
    "refine-masks": (["refine-masks", "--engine", "box", "--workers", "2"], "2-refine"),
    "export": (["export", "--split", "--include-unreviewed", "--format", "risbench,coco,refer"], "4-export"),
}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 60 images and 360 rows after three uninterrupted stages."""
    folder = tmp_path_factory.mktemp("calm")
    source = folder / "source"
    (source / "Images").mkdir(parents=True)
    rows = []
    for index in range(60):
        name = f"S{index:04d}_0000.png"
        (source / "Images" / name).write_bytes(encode_png(picture(index)))
        rows += [eval_row(name, 6 * index + place, f"{{<{18 + 3 * place}><24><{47 + 2 * place}><49>}}") for place in range(6)]
    rows += [eval_row("gone.png", 1000), {"type": "vqa"}]
    (source / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))
    for words, _ in STAGES.values():
        run = cli(*words, "-w", "w", cwd=folder)
        assert run.returncode == 0, run.stderr
    return folder


def before_stage(calm: Path, stage: str, target: Path) -> None:
    """Copy the calm workspace as it was before a stage."""
    shutil.copytree(calm / "source", target / "source")
    shutil.copytree(calm / "w", target / "w")
    for name in ("4-export", "2-refine", "1-ingest"):
        shutil.rmtree(target / "w" / name)
        if name == STAGES[stage][1]:
            break
    if stage == "ingest":
        shutil.rmtree(target / "w")


@pytest.mark.parametrize("stage", list(STAGES))
def test_killed_forty_times_and_run_again_the_result_is_the_same(calm: Path, tmp_path: Path, stage: str) -> None:
    words, folder = STAGES[stage]
    before_stage(calm, stage, tmp_path)
    pristine = tmp_path / "pristine"
    if (tmp_path / "w").exists():
        shutil.copytree(tmp_path / "w", pristine)
    draw = random.Random(stage)
    kills = resumed = 0
    # About as long as an undisturbed run works after it took the lock.
    longest = {"ingest": 1.2, "refine-masks": 2.5, "export": 1.2}[stage]
    for enough in range(KILLS // 4, KILLS + 1, KILLS // 4):  # each process that forks has its own order of sets
        with Forked(tmp_path) as forked:
            while kills < enough:
                pid = forked.start([*words, "-w", "w"])
                # The clock starts when this very process holds the workspace, so that no kill is wasted on its start.
                deadline = time.monotonic() + 60
                while not _holds(tmp_path / "w", pid) and forked.runs(pid) and time.monotonic() < deadline:
                    time.sleep(0.002)
                time.sleep(draw.uniform(0, longest))
                forked.kill(pid)
                code, error = forked.ended()
                if code == -signal.SIGKILL:
                    kills += 1
                    resumed += any((tmp_path / "w" / folder).rglob("part-*.jsonl"))
                    continue
                assert code == 0, error
                assert _same(calm, tmp_path), f"after {kills} kills"
                shutil.rmtree(tmp_path / "w")
                if pristine.exists():
                    shutil.copytree(pristine, tmp_path / "w")
    run = cli(*words, "-w", "w", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert _same(calm, tmp_path)
    assert stage == "export" or resumed > 0, "no kill left a part to go on from"


def _holds(workspace: Path, pid: int) -> bool:
    lock = workspace / ".lock"
    return lock.exists() and f"pid {pid} " in lock.read_text()


def _same(calm: Path, stormy: Path) -> bool:
    ours, theirs = tree_bytes(stormy / "w"), tree_bytes(calm / "w")
    return (
        all(theirs[name] == data for name, data in ours.items())
        and {name.split("/")[0] for name in ours} <= {name.split("/")[0] for name in theirs}
        and all(name in ours for name in theirs if name.split("/")[0] in {other.split("/")[0] for other in ours})
    )


def test_a_kill_between_the_two_renames_of_a_replacement_loses_no_release(calm: Path, tmp_path: Path) -> None:
    shutil.copytree(calm / "w", tmp_path / "w")
    exports = tmp_path / "w" / "4-export"
    (exports / "release").rename(exports / ".old-release")
    run = cli("export", "--split", "--include-unreviewed", "--format", "risbench,coco,refer", "-w", "w", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert tree_bytes(exports) == tree_bytes(calm / "w" / "4-export")


def test_the_comparison_sees_one_changed_byte(calm: Path, tmp_path: Path) -> None:
    shutil.copytree(calm / "w", tmp_path / "w")
    assert _same(calm, tmp_path)
    part = next((tmp_path / "w" / "1-ingest").glob("part-*.jsonl"))
    part.write_bytes(part.read_bytes().replace(b"1", b"2", 1))
    assert not _same(calm, tmp_path)
