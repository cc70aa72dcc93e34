"""A release is checked as a stranger gets it: a folder, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from risbench.core.errors import InputError
from risbench.core.record import Review
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.export.release import write_checksums
from risbench.export.verify import verify
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.scenes.source import write_source
from tests.conftest import cli
from tests.export.test_export import rewrite


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    write_source(folder / "source", seed=1, scenes=10)
    ingest(folder / "source", workspace=folder / "w", name="world")
    refine_masks(workspace=folder / "w", engine="oriented-box")
    return Path(export(workspace=folder / "w", formats=["all"], include_unreviewed=True)["path"])


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "elsewhere"))


def test_a_release_is_whole_wherever_it_was_copied_to(release: Path) -> None:
    found = verify(release)
    assert found["faults"] == []
    assert found["triplets"] == json.loads((release / "release.json").read_text())["triplets"]
    done = cli("verify", release)
    assert done.returncode == 0
    assert "all as released" in done.stdout


def test_scenes_of_which_nothing_is_released_are_not_in_the_list(made: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(made.parents[1], tmp_path / "w"))
    stage = Workspace.open(workspace).latest()
    records = list(read_records(stage))
    scenes = sorted({record.image.scene for record in records})
    seen = Review(status="accepted", votes={"accept": 1}, reviewers=("a-1",))
    statuses = {scene: seen if index % 2 else Review(status="triaged", reviewers=("a-1",)) for index, scene in enumerate(scenes)}
    rewrite(stage, [record.model_copy(update={"review": statuses[record.image.scene]}).to_line() for record in records])
    frozen = tmp_path / "frozen.csv"
    frozen.write_text("scene,split\n" + "".join(f"{scene},{'train' if index < 4 else 'test'}\n" for index, scene in enumerate(scenes)))
    done = export(workspace=workspace, split=str(frozen), name="reviewed")
    assert done["left_out"]["triaged_outside_train"] > 0
    assert done["split_rule"] == "frozen.csv"
    assert verify(done["path"])["faults"] == []


def test_any_flipped_byte_is_found(release: Path) -> None:
    random = np.random.default_rng(0)
    files = sorted(path for path in release.rglob("*") if path.is_file())
    chosen = {path.suffix: path for path in files}.values()  # one of each kind
    assert {path.name for path in chosen} > {"SHA256SUMS", "dataset.yaml"}
    for path in chosen:
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *random.integers(0, len(whole), 2).tolist()}:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(random.integers(0, 8))
            path.write_bytes(flipped)
            assert verify(release)["faults"], f"{path.name}, byte {place}"
        path.write_bytes(whole)
    assert verify(release)["faults"] == []


def test_what_is_missing_added_or_a_link_is_named(release: Path) -> None:
    victim = sorted((release / "masks").iterdir())[0]
    victim.unlink()
    (release / "note.txt").write_text("mine")
    other = sorted((release / "images").iterdir())[0]
    other.rename(release / "kept.png")
    other.symlink_to(release / "kept.png")
    faults = verify(release)["faults"]
    assert f"masks/{victim.name}: is missing" in faults
    assert "note.txt: is not of this release; SHA256SUMS does not list it" in faults
    assert f"images/{other.name}: is a link or a device; a release holds plain files only" in faults
    done = cli("verify", release)
    assert done.returncode == 1
    assert "4 faults" in done.stdout  # kept.png is not of it either
    with pytest.raises(InputError, match="is no release"):
        verify(release / "masks")


def _rows(change: Callable[[list[dict]], list[dict]]) -> Callable[[Path], None]:
    def damage(release: Path) -> None:
        path = release / "annotations_train.parquet"
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), path)

    return damage


def _emptied(rows: list[dict]) -> list[dict]:
    record = json.loads(rows[0]["record"])
    record["mask"]["counts"] = "PPP8"
    rows[0]["record"] = json.dumps(record)
    return rows


def _split_moved(release: Path) -> None:
    text = (release / "split.csv").read_text()
    (release / "split.csv").write_text(text.replace(",test", ",train", 1))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_rows(lambda rows: rows[1:]), r"risbench: train holds [\d,]+ triplets; release.json counts"),
        (_rows(lambda rows: [*rows[:-1], rows[0]]), "stands here twice"),
        (_rows(_emptied), "mask: is empty"),
        (_rows(lambda rows: [{**rows[0], "record": "{"}, *rows[1:]]), "risbench: cannot be read"),
        (_split_moved, "split_sha256 differs"),
        (lambda release: (release / "release.json").write_text("{}"), "release.json: is not of this version"),
        (lambda release: (release / "release.json").write_text("[" * 200_000), r"release.json: .*nests too deeply"),
        (lambda release: (release / "coco" / "instances_val.json").write_text("[" * 200_000), r"coco: cannot be read .*nests too deeply"),
        (lambda release: next((release / "yolo" / "labels" / "train").iterdir()).write_text(""), "yolo: holds"),
        (lambda release: (release / "coco" / "instances_val.json").write_text('{"annotations": []}'), "coco: val holds 0 triplets"),
        (lambda release: next((release / "webdataset").glob("test-*.tar")).write_bytes(b"x" * 2048), "webdataset: cannot be read"),
    ],
)  # fmt: skip
def test_content_that_is_not_what_it_says_is_found_though_the_sums_fit(release: Path, damage: Callable[[Path], None], said: str) -> None:
    import re

    damage(release)
    write_checksums(release)
    faults = verify(release)["faults"]
    assert any(re.search(said, fault) for fault in faults), faults
