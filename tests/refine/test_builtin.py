"""The shipped weights as an engine, and what `auto` chooses."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from risbench.core.errors import MissingRequirementError  # noqa: E402
from risbench.core.masks import decode_rle  # noqa: E402
from risbench.core.metrics import mask_iou  # noqa: E402
from risbench.ingest import ingest  # noqa: E402
from risbench.inspect.audit import audit  # noqa: E402
from risbench.refine import refine_masks  # noqa: E402
from risbench.refine.engines.base import Prompt  # noqa: E402
from risbench.refine.sam_engine import builtin_engine  # noqa: E402
from risbench.sam.builtin import BUILTIN_SHA256  # noqa: E402
from risbench.sam.compact.model import CompactSam  # noqa: E402
from risbench.scenes.source import write_source  # noqa: E402
from tests.conftest import eval_row, records  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_source(folder / "source", seed=99, scenes=5)
    ingest(folder / "source", workspace=folder / "w", name="world")
    return folder


def score(world: Path) -> float:
    return float(audit(truth=world / "source" / "truth.json", links=world / "source" / "links.json", workspace=world / "w")["mean_iou"])


def test_auto_is_the_built_in_model_and_beats_the_box_by_far(world: Path) -> None:
    refine_masks(workspace=world / "w", engine="box")
    box = score(world)
    result = refine_masks(workspace=world / "w")
    assert result["options"]["engine"] == "builtin"
    assert "said" not in result
    assert score(world) > box + 0.15
    made = [record for record in records(sorted((world / "w" / "2-refine").glob("round-*"))[-1]) if record["mask"]]
    for record in made:
        assert record["mask"]["weights_sha256"] == BUILTIN_SHA256
        assert set(record["mask"]["scores"]) == {"predicted_iou", "stability", "jitter_agreement", "mask_box_agreement"}
    again = refine_masks(workspace=world / "w", engine="builtin")
    assert again["state"] == "up to date"


def test_its_own_score_tells_good_masks_from_bad_ones(world: Path) -> None:
    refine_masks(workspace=world / "w")
    folder = sorted((world / "w" / "2-refine").glob("round-*"))[-1]
    made = {record["id"]: record["mask"] for record in records(folder) if record["mask"]}
    scores = [mask["scores"]["predicted_iou"] for mask in made.values()]
    assert np.std(scores) > 0.02
    assert all(decode_rle(tuple(mask["size"]), mask["counts"]).any() for mask in made.values())


def test_without_the_extra_auto_is_grabcut_and_says_so(
    make_source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(make_source([eval_row("S0000_0000.png", 0)]), workspace=tmp_path / "w", fit="keep")
    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "torch" else real(name))
    result = refine_masks(workspace=tmp_path / "w", workers=1)
    assert result["options"]["engine"] == "grabcut"
    assert (
        result["said"]
        == "engine auto: grabcut, as torch is not installed; pip install 'risbench[sam]' for the built-in model, which is better"
    )


def test_objects_that_differ_only_by_their_box_get_their_own_masks() -> None:
    image = np.full((200, 200, 3), 90, np.uint8)
    image[40:60, 30:90] = 220
    image[120:180, 100:140] = 30
    engine = builtin_engine("cpu")
    engine.load(image)
    first, second = engine.segment(
        [Prompt((28.0, 37.0, 93.0, 62.0), None, "vehicle"), Prompt((97.0, 116.0, 143.0, 183.0), None, "vehicle")]
    )
    true = np.zeros((2, 200, 200), bool)
    true[0, 40:60, 30:90] = True
    true[1, 120:180, 100:140] = True
    assert mask_iou(first.values > 0, true[0]) > 0.85
    assert mask_iou(second.values > 0, true[1]) > 0.85


def test_a_box_beyond_the_image_or_of_a_pixel_gives_finite_logits() -> None:
    engine = builtin_engine("cpu")
    engine.load(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    for box in ((-30.0, -30.0, 20.0, 20.0), (70.0, 50.0, 200.0, 160.0), (10.0, 10.0, 11.0, 11.0), (0.0, 0.0, 80.0, 60.0)):
        found = engine.segment([Prompt(box, None, "ship")])[0]
        assert found.values.shape == (60, 80)
        assert np.isfinite(found.values).all()


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_device_out_of_memory_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    """PyTorch's own errors, raised where CUDA raises them: in the midst of a model."""
    engine = builtin_engine("cpu")
    engine.load(np.zeros((64, 64, 3), np.uint8))

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(CompactSam, "run", full)
    with pytest.raises(MissingRequirementError, match=r"^CUDA.*; take a smaller model or fewer --workers, free the device"):
        engine.segment([Prompt((10.0, 10.0, 30.0, 30.0), None, "vehicle")])


def test_other_errors_of_a_model_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = builtin_engine("cpu")
    engine.load(np.zeros((64, 64, 3), np.uint8))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(CompactSam, "run", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        engine.segment([Prompt((10.0, 10.0, 30.0, 30.0), None, "vehicle")])
