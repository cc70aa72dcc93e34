from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from safetensors.torch import load_file, save_file  # noqa: E402

from risbench.core.errors import InputError, MissingRequirementError, OptionError  # noqa: E402
from risbench.core.storage import sha256_of_file  # noqa: E402
from risbench.ingest import ingest  # noqa: E402
from risbench.refine import refine_masks  # noqa: E402
from risbench.sam.hf import HfPredictor, load_hf  # noqa: E402
from risbench.sam.predictor import SamPrompt  # noqa: E402
from tests.conftest import eval_row, picture, records  # noqa: E402
from tests.sam.hf_files import write_hf  # noqa: E402

FAMILIES = ("sam", "sam_hq", "sam2", "sam3_tracker")
BOXES = [(10.0, 12.0, 60.0, 70.0), (30.0, 5.0, 90.0, 40.0), (0.0, 0.0, 100.0, 80.0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_encoding_once_equals_one_whole_pass_a_box(tmp_path: Path, family: str) -> None:
    model, processor, digest = load_hf(str(write_hf(tmp_path / family, family)))
    assert digest == sha256_of_file(tmp_path / family / "model.safetensors")
    image = picture(1, 90, 140)
    ours = HfPredictor(model, processor)
    ours.load(image)
    found = ours.predict([SamPrompt(box) for box in BOXES])
    assert found.logits.shape == (3, 90, 140)
    for index, box in enumerate(BOXES):
        with torch.inference_mode():
            inputs = processor(images=image, input_boxes=[[list(box)]], return_tensors="pt")
            out = model(pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float(), multimask_output=False)
            sizes = [inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
            whole = processor.post_process_masks(out.pred_masks, *sizes, binarize=False)[0]
        assert np.allclose(found.logits[index], whole[0, 0].numpy(), rtol=1e-4, atol=1e-3)
        assert found.predicted_iou[index] == pytest.approx(float(out.iou_scores[0, 0, 0]), abs=1e-4)
    assert not np.allclose(found.logits[0], found.logits[1], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_makes_masks_as_an_engine(tmp_path: Path, make_source: Callable[..., Path], family: str) -> None:
    rows = [eval_row("S0000_0000.png", key, f"{{<{10 + key}><20><{50 + key}><55>}}") for key in range(3)]
    ingest(make_source(rows), workspace=tmp_path / "w", fit="keep")
    folder = write_hf(tmp_path / family, family)
    result = refine_masks(workspace=tmp_path / "w", engine="hf", checkpoint=folder)
    made = records(tmp_path / "w" / "2-refine" / "round-1")
    assert result["counts"]["out"] == len(made) == 3
    for record in made:
        assert record["mask"] or record["problems"][0]["code"] == "mask_empty"
        if record["mask"]:
            assert record["mask"]["engine"] == "hf"
            assert record["mask"]["weights_sha256"] == sha256_of_file(folder / "model.safetensors")
    assert refine_masks(workspace=tmp_path / "w", engine="hf", checkpoint=folder)["state"] == "up to date"
    assert refine_masks(workspace=tmp_path / "w", engine="hf", checkpoint=write_hf(tmp_path / "other", family, seed=1))["round"] == 2


def test_a_polygon_is_asked_by_its_extent_and_nothing_is_refused(tmp_path: Path) -> None:
    model, processor, _ = load_hf(str(write_hf(tmp_path / "sam", "sam")))
    ours = HfPredictor(model, processor)
    ours.load(picture(1, 90, 140))
    quad = ((20.0, 10.0), (80.0, 30.0), (70.0, 60.0), (10.0, 40.0))
    found = ours.predict([SamPrompt(polygon=quad), SamPrompt((10.0, 10.0, 80.0, 60.0))])
    assert np.allclose(found.logits[0], found.logits[1])
    with pytest.raises(OptionError, match="prompt 0: models of transformers are asked with a box or a polygon"):
        ours.predict([SamPrompt()])
    with pytest.raises(OptionError, match="prompt 1: .* not with points or masks"):
        ours.predict([SamPrompt(BOXES[0]), SamPrompt(BOXES[0], points=((1.0, 1.0, 1),))])


def test_half_precision_and_a_video_checkpoints_configuration_load(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "sam2", "sam2")
    state = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**processor, "processor_class": "Sam2VideoProcessor"}))
    model, used, _ = load_hf(str(folder))
    assert type(used).__name__ == "Sam2Processor"
    ours = HfPredictor(model, used)
    ours.load(picture(1, 90, 140))
    assert np.isfinite(ours.predict([SamPrompt(BOXES[0])]).logits).all()


def test_folders_that_are_no_mask_models_are_refused_by_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_hf(tmp_path / "sam", "sam")
    state = load_file(folder / "model.safetensors")
    key = next(iter(state))
    save_file({name: value for name, value in state.items() if name != key}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"1 tensors are missing from its file, {key} first; they would be random"):
        load_hf(str(folder))
    save_file({**state, key: torch.full_like(state[key], float("nan"))}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not finite numbers"):
        load_hf(str(folder))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="transformers cannot load it as a mask model"):
        load_hf(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="--checkpoint"):
        load_hf(str(tmp_path / "empty"))
    page = tmp_path / "page.html"
    page.write_text("<html>")
    with pytest.raises(InputError, match=r"page.html: is a file; --engine hf takes a folder"):
        load_hf(str(page))
    # a closed port is a hub that cannot be reached: said at once, without trying for a minute
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(MissingRequirementError, match=r"no-such/model: there is no such folder, and http://127.* cannot be reached"):
            load_hf("no-such/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no-such/model"):
        load_hf("no-such/model")


def test_code_that_a_folder_brings_is_refused_and_not_run(tmp_path: Path) -> None:
    folder, mark = tmp_path / "hf", tmp_path / "ran"
    folder.mkdir()
    auto_map = {"AutoConfig": "evil.C", "AutoModelForMaskGeneration": "evil.M"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'a')\n")
    (folder / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(InputError, match=rf"--checkpoint {folder}: brings Python code of its own, which is never run here"):
        load_hf(str(folder))
    assert not mark.exists()


def test_hf_without_a_name_says_what_to_give(tmp_path: Path, make_source: Callable[..., Path]) -> None:
    ingest(make_source([eval_row("S0000_0000.png", 0)]), workspace=tmp_path / "w", fit="keep")
    with pytest.raises(OptionError, match="--engine hf: needs --checkpoint NAME_OR_FOLDER"):
        refine_masks(workspace=tmp_path / "w", engine="hf")
