from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from risbench.adapt import builtin_data  # noqa: E402
from risbench.adapt.builtin_data import CropExamples, loosened  # noqa: E402
from risbench.adapt.train_builtin import Recipe, train_builtin  # noqa: E402
from risbench.core.errors import BusyError, InputError, MissingRequirementError, OptionError  # noqa: E402
from risbench.core.geometry import box_iou  # noqa: E402
from risbench.core.storage import locked  # noqa: E402
from risbench.learn.schedule import learning_rate_at  # noqa: E402
from risbench.sam.compact.model import CompactSettings  # noqa: E402
from risbench.sam.compact.weights import load_compact  # noqa: E402
from risbench.scenes.world import Scene, draw_scene  # noqa: E402

TINY = CompactSettings(side_px=64, stem=(8, 8, 16), stem_depth=(1, 1, 1), width=32, depth=1, heads=2, prompt_width=32)
SHORT = Recipe(steps=6, batch=6, warm_up=2)


def test_a_batch_is_a_function_of_the_seed_and_its_number_alone() -> None:
    first, again, other = (CropExamples(seed, start, 9, 12, 64).make(3) for seed, start in ((0, 0), (0, 3), (1, 0)))
    for a, b in zip(vars(first).values(), vars(again).values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.crops, other.crops)


def test_a_batch_is_full_even_where_its_only_scene_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, index: int) -> Scene:
        return replace(draw_scene(seed, index), objects=()) if index == 3 else draw_scene(seed, index)

    monkeypatch.setattr(builtin_data, "draw_scene", drawn)
    assert CropExamples(0, 0, 9, 2, 64).make(3).crops.shape == (2, 3, 64, 64)


def test_examples_hold_their_object_and_every_eighth_batch_its_points() -> None:
    examples = CropExamples(0, 0, 9, 24, 64)
    batch, pointed = examples.make(1), examples.make(8)
    assert batch.crops.shape == (24, 3, 64, 64)
    assert batch.crops.dtype == torch.uint8
    assert batch.cover.shape == (24, 32, 32)
    assert (batch.labels == -1).all()
    assert ((batch.cover > 0.5).sum(dim=(1, 2)) > 5).all()
    # most of what is to be found lies in the box, and the box in the crop
    inside = batch.prompts[:, 0] > 0
    assert float(((batch.cover > 0.5) & inside).sum() / (batch.cover > 0.5).sum()) > 0.7
    assert (pointed.labels == 1).any()
    for row in range(24):
        for place, label in zip(pointed.points[row], pointed.labels[row], strict=True):
            if label >= 0:
                x, y = (min(31, max(0, int(value / 2))) for value in place)
                assert (float(pointed.cover[row, y, x]) > 0.5) == (int(label) == 1)


def test_boxes_are_loosened_as_the_tiers_are() -> None:
    random = np.random.default_rng(0)
    true = (100.0, 100.0, 160.0, 130.0)
    found = [box_iou(loosened(random, true), true) for _ in range(1000)]
    assert min(found) >= 0.4
    assert sum(value == 1 for value in found) > 60
    assert 0.6 < float(np.mean(found)) < 0.85


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    recipe = Recipe(steps=1000, warm_up=100, learning_rate=1.0)
    rates = [learning_rate_at(step, recipe) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)


def test_training_learns(tmp_path: Path) -> None:
    result = train_builtin(tmp_path, Recipe(steps=40, batch=12, warm_up=5, learning_rate=3e-3), settings=TINY, quiet=True)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["mask"] < 0.75 * log[0]["mask"]
    assert load_compact(result["weights"])[1] == result["sha256"]


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = train_builtin(tmp_path / "whole", SHORT, settings=TINY, quiet=True, keep_every=2)
    code = (
        "from tests.adapt.test_train_builtin import *\n"
        f"train_builtin({str(tmp_path / 'killed')!r}, SHORT, settings=TINY, quiet=True, keep_every=2)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    while not (tmp_path / "killed" / "last.pt").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    again = train_builtin(tmp_path / "killed", SHORT, settings=TINY, quiet=True, keep_every=2, workers=2)
    assert again["sha256"] == whole["sha256"]
    lines = [
        [json.loads(line)["step"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("whole", "killed")
    ]
    assert lines[0] == lines[1]


def test_other_recipes_other_sizes_and_broken_checkpoints_are_refused(tmp_path: Path) -> None:
    train_builtin(tmp_path, Recipe(steps=1, batch=6), settings=TINY, quiet=True)
    with pytest.raises(InputError, match="holds a run of another recipe"):
        train_builtin(tmp_path, Recipe(steps=2, batch=6), settings=TINY, quiet=True)
    wider = CompactSettings(**{**TINY.as_metadata(), "width": 64})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="holds a model of other sizes"):
        train_builtin(tmp_path, Recipe(steps=1, batch=6), settings=wider, quiet=True)
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:1000])
    with pytest.raises(InputError, match="not a whole checkpoint"):
        train_builtin(tmp_path, Recipe(steps=1, batch=6), settings=TINY, quiet=True)
    with pytest.raises(OptionError, match="--steps 0: must be at least 1"):
        train_builtin(tmp_path, Recipe(steps=0))


def test_two_runs_never_write_into_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path, "train-builtin"), pytest.raises(BusyError, match=r"in use by pid \d+ on .* \(risbench train-builtin\)"):
        train_builtin(tmp_path, SHORT, settings=TINY, quiet=True)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingRequirementError, match="file/run: cannot be written"):
        train_builtin(tmp_path / "file" / "run", SHORT, settings=TINY, quiet=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpu_without_cuda_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirementError, match="--gpu: PyTorch"):
        train_builtin(tmp_path, SHORT, settings=TINY, gpu=True)
