from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from segment_anything import SamPredictor, sam_model_registry  # noqa: E402

from risbench.core.errors import EnvironmentLacks, InputError  # noqa: E402
from risbench.ingest import ingest  # noqa: E402
from risbench.refine import refine_masks  # noqa: E402
from risbench.sam.predictor import BoxPredictor  # noqa: E402
from risbench.sam.weights import build_sam, load_sam  # noqa: E402
from tests.conftest import eval_row, picture, records  # noqa: E402
from tests.refine.sam_files import tiny_sam, write_sam  # noqa: E402

BOXES = np.array([[10.0, 12, 60, 70], [30, 5, 90, 40], [0, 0, 100, 80]])


@pytest.mark.parametrize("shape", [(96, 96), (80, 130), (150, 70)])
def test_a_batch_equals_one_call_a_box(tmp_path: Path, shape: tuple[int, int]) -> None:
    model, _ = load_sam(write_sam(tmp_path / "sam.pth"))
    image = picture(1, *shape)
    ours = BoxPredictor(model)
    ours.load(image)
    batch = ours.predict(BOXES, [None] * 3)
    peer = SamPredictor(tiny_sam())
    peer.set_image(image)
    for index, box in enumerate(BOXES):
        logits, iou, _ = peer.predict(box=box, multimask_output=False, return_logits=True)
        assert np.allclose(batch.logits[index], logits[0], atol=1e-4)
        assert batch.predicted_iou[index] == pytest.approx(iou[0], abs=1e-5)


def test_a_mask_prompt_equals_the_peers(tmp_path: Path) -> None:
    model, _ = load_sam(write_sam(tmp_path / "sam.pth"))
    image = picture(1, 128, 128)
    mask = np.zeros((128, 128), bool)
    mask[32:96, 16:64] = True
    ours = BoxPredictor(model)
    ours.load(image)
    with_mask = ours.predict(BOXES, [mask, None, mask])
    peer = SamPredictor(tiny_sam())
    peer.set_image(image)
    small = torch.nn.functional.interpolate(
        torch.as_tensor(mask, dtype=torch.float32)[None, None], (32, 32), mode="bilinear", antialias=True
    )
    prompt = ((2 * small - 1) * 6.0)[0].numpy()
    logits, _, _ = peer.predict(box=BOXES[0], mask_input=prompt, multimask_output=False, return_logits=True)
    assert np.allclose(with_mask.logits[0], logits[0], atol=1e-4)
    plain = ours.predict(BOXES, [None] * 3)
    assert np.allclose(with_mask.logits[1], plain.logits[1], atol=1e-5)
    assert not np.allclose(with_mask.logits[2], plain.logits[2], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_official_sizes_are_recognised_by_their_keys(name: str) -> None:
    with torch.device("meta"):
        official = sam_model_registry[name]()
        built = build_sam(official.state_dict(), name)
    assert {key: value.shape for key, value in built.state_dict().items()} == {
        key: value.shape for key, value in official.state_dict().items()
    }
    assert [block.window_size for block in built.image_encoder.blocks] == [block.window_size for block in official.image_encoder.blocks]
    assert built.image_encoder.img_size == 1024


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


def test_a_checkpoint_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"image_encoder.pos_embed": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    (tmp_path / "evil2.pth").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(InputError, match="not a plain PyTorch state dict"):
            load_sam(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    state = tiny_sam().state_dict()
    state.pop("mask_decoder.iou_token.weight")
    torch.save(state, tmp_path / "short.pth")
    for name, message in (("text.pth", "not a plain"), ("other.pth", "pos_embed"), ("list.pth", "state dict of tensors"),
                          ("short.pth", "iou_token"), ("gone.pth", "no such file")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            load_sam(tmp_path / name)


@pytest.fixture
def workspace(make_source: Callable[..., Path], tmp_path: Path) -> Path:
    rows = [eval_row(f"S000{key % 2}_0000.png", key, f"{{<{10 + key}><20><{50 + key}><55>}}") for key in range(6)]
    corner = [0.3, 0.2, 0.7, 0.3, 0.65, 0.5, 0.25, 0.4]
    ingest(make_source([*rows, eval_row("S0000_0000.png", 9, obj_corner=corner)]), workspace=tmp_path / "w", fit="keep")
    return tmp_path / "w"


def test_sam_makes_masks_with_scores_and_its_weights_hash(workspace: Path, tmp_path: Path) -> None:
    path = write_sam(tmp_path / "sam.pth")
    result = refine_masks(workspace=workspace, engine="sam", checkpoint=path)
    assert result["counts"]["out"] == 7
    made = records(workspace / "2-refine" / "round-1")
    with_mask = [record for record in made if record["mask"]]
    assert with_mask
    for record in with_mask:
        assert set(record["mask"]["scores"]) == {"predicted_iou", "stability", "jitter_agreement", "mask_box_agreement"}
        assert record["mask"]["weights_sha256"] == load_sam(path)[1]
        assert record["mask"]["engine"] == "sam"
    assert all(record["mask"] or record["problems"][0]["code"] == "mask_empty" for record in made)


def test_masks_that_are_not_finite_become_problems_and_are_never_stored(workspace: Path, tmp_path: Path) -> None:
    path = write_sam(tmp_path / "nan.pth", mask_decoder__mask_tokens__weight=torch.full((4, 256), float("nan")))
    result = refine_masks(workspace=workspace, engine="sam", checkpoint=path)
    assert result["problems_by_code"] == {"mask_not_finite": 7}
    assert all(record["mask"] is None for record in records(workspace / "2-refine" / "round-1"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpu_without_cuda_is_one_clear_line(workspace: Path) -> None:
    with pytest.raises(EnvironmentLacks, match=r"^--gpu: PyTorch .* finds no CUDA device") as caught:
        refine_masks(workspace=workspace, gpu=True)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_masks_agree_with_cpu_masks(workspace: Path, tmp_path: Path) -> None:
    path = write_sam(tmp_path / "sam.pth")
    refine_masks(workspace=workspace, engine="sam", checkpoint=path)
    refine_masks(workspace=workspace, engine="sam", checkpoint=path, gpu=True)
    first, second = (records(workspace / "2-refine" / f"round-{number}") for number in (1, 2))
    same = sum((a["mask"] or {}).get("counts") == (b["mask"] or {}).get("counts") for a, b in zip(first, second, strict=True))
    assert same >= 6
