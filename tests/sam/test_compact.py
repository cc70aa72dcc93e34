from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from segment_anything.modeling import MaskDecoder  # noqa: E402

from risbench.core.errors import InputError, OptionError  # noqa: E402
from risbench.sam import builtin  # noqa: E402
from risbench.sam.builtin import BUILTIN_SHA256, builtin_weights, load_builtin  # noqa: E402
from risbench.sam.compact.model import CompactSam, CompactSettings  # noqa: E402
from risbench.sam.compact.predictor import CompactPredictor  # noqa: E402
from risbench.sam.compact.weights import load_compact, save_compact  # noqa: E402
from risbench.sam.magnify import Frame, frame_of, prompt_mask  # noqa: E402
from risbench.sam.predictor import SamPrompt  # noqa: E402
from tests.conftest import picture  # noqa: E402

TINY = CompactSettings(side_px=64, stem=(8, 8, 16), stem_depth=(1, 1, 1), width=32, depth=1, heads=2, prompt_width=32)
BOX = (20.0, 10.0, 70.0, 60.0)


def tiny(seed: int = 0) -> CompactSam:
    torch.manual_seed(seed)
    model = CompactSam(TINY)
    for value in model.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=0.15)
    return model.eval()


def test_prompts_together_equal_prompts_alone() -> None:
    ours = CompactPredictor(tiny())
    ours.load(picture(1, 90, 120))
    quad = ((20.0, 10.0), (80.0, 30.0), (70.0, 60.0), (10.0, 40.0))
    mask = np.zeros((90, 120), bool)
    mask[20:50, 30:60] = True
    prompts = [SamPrompt(BOX), SamPrompt(polygon=quad), SamPrompt(BOX, points=((30.0, 30.0, 1),)), SamPrompt(BOX, mask=mask), SamPrompt((0.0, 0.0, 119.0, 89.0))]  # fmt: skip
    together = ours.predict(prompts)
    assert together.logits.shape == (5, 90, 120)
    for index, prompt in enumerate(prompts):
        alone = ours.predict([prompt])
        assert np.allclose(together.logits[index], alone.logits[0], atol=1e-4)
        assert together.predicted_iou[index] == pytest.approx(float(alone.predicted_iou[0]), abs=1e-5)
    differ = [float(np.abs(together.logits[0] - together.logits[index]).max()) for index in (1, 2, 3)]
    assert min(differ) > 1e-3
    with pytest.raises(OptionError, match="prompt 1: the built-in model needs a box or a polygon"):
        ours.predict([prompts[0], SamPrompt(points=((1.0, 1.0, 1),))])


def test_a_mask_of_another_size_is_refused() -> None:
    ours = CompactPredictor(tiny())
    ours.load(picture(1, 90, 120))
    with pytest.raises(OptionError, match=r"prompt 1: its mask is \(90, 119\), the image \(90, 120\)"):
        ours.predict([SamPrompt(BOX), SamPrompt(BOX, mask=np.zeros((90, 119), bool))])


def test_all_eight_views_make_the_mask_turn_with_the_image() -> None:
    ours = CompactPredictor(tiny(), views=8)
    image = picture(1, 96, 96)
    ours.load(image)
    plain = ours.predict([SamPrompt((30.0, 20.0, 60.0, 76.0))]).logits[0]
    ours.load(np.ascontiguousarray(np.rot90(image)))
    turned = ours.predict([SamPrompt((20.0, 36.0, 76.0, 66.0))]).logits[0]
    assert np.allclose(np.rot90(plain), turned, atol=0.02 * float(np.abs(plain[plain > -19]).max()))


def test_the_decoder_without_its_short_cuts_is_sams() -> None:
    model = tiny()
    decoder = model.mask_decoder
    for name in ("skip_middle", "skip_fine"):
        for value in getattr(decoder, name).parameters():
            torch.nn.init.zeros_(value)
    decoder.mix_middle = decoder.mix_fine = torch.nn.Identity()
    peer = MaskDecoder(
        num_multimask_outputs=3, transformer=decoder.transformer, transformer_dim=32, iou_head_depth=3, iou_head_hidden_dim=256
    )
    peer.load_state_dict({key: value for key, value in decoder.state_dict().items() if key in peer.state_dict()}, strict=True)
    embedding, fine, middle = torch.randn(1, 32, 8, 8), torch.randn(1, 8, 32, 32), torch.randn(1, 8, 16, 16)
    sparse, dense = torch.randn(1, 2, 32), torch.randn(1, 32, 8, 8)
    place = model.prompt_encoder.get_dense_pe()
    with torch.inference_mode():
        found = decoder.decode(embedding, (fine, middle), place, sparse, dense)
        ours = found.masks, found.iou
        theirs = peer.predict_masks(embedding, place, sparse, dense)
    assert torch.allclose(ours[0], theirs[0], atol=1e-5)
    assert torch.allclose(ours[1], theirs[1], atol=1e-6)


def test_a_frame_brings_points_there_and_logits_back() -> None:
    box = (30.0, 40.0, 80.0, 60.0)
    frame = frame_of(box, 128)
    assert np.allclose(frame.to_crop(np.array([(55.0, 50.0)])), 64)
    inside = np.zeros((100, 120), bool)
    inside[40:60, 30:80] = True
    cover = frame.cut_mask(inside, 64, 128)
    corners = frame.to_crop(np.array([(30.0, 40.0), (80.0, 40.0), (80.0, 60.0), (30.0, 60.0)]))
    drawn = (prompt_mask(corners, 64, 128) + 1) / 2
    assert float(np.abs(cover - drawn).mean()) < 0.01
    back = frame.paste(cover - 0.5, 128, 100, 120, outside=-1) > 0
    assert (back == inside).mean() > 0.995


def test_a_crop_beyond_the_image_is_the_mean_colour_there() -> None:
    crop = Frame(-50.0, -50.0, 1.0).cut(np.full((40, 40, 3), 250, np.uint8), 64)
    assert tuple(crop[0, 0]) == (124, 116, 104)
    assert tuple(crop[60, 60]) == (250, 250, 250)


def test_weights_come_back_as_they_were_written(tmp_path: Path) -> None:
    model = tiny()
    save_compact(model, tmp_path / "w.safetensors", {"steps": 1})
    again, digest = load_compact(tmp_path / "w.safetensors")
    assert again.settings == TINY
    assert len(digest) == 64
    for name, value in model.state_dict().items():
        assert torch.allclose(again.state_dict()[name].float(), value.float(), rtol=1e-3, atol=1e-6)
    save_compact(again, tmp_path / "w2.safetensors", {"steps": 1})
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "w2.safetensors").read_bytes()


def test_damaged_weights_are_refused_by_what_is_wrong(tmp_path: Path) -> None:
    save_compact(tiny(), tmp_path / "w.safetensors", {})
    whole = (tmp_path / "w.safetensors").read_bytes()
    with safe_open(tmp_path / "w.safetensors", "pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        state["mask_decoder.iou_token.weight"] = torch.full_like(state["mask_decoder.iou_token.weight"], float("nan"))
        save_file(state, tmp_path / "nan.safetensors", metadata=opened.metadata())
    large = tiny()
    torch.nn.init.constant_(large.mask_decoder.iou_token.weight, 1e6)
    with pytest.raises(ValueError, match="iou_token.weight holds values that are no numbers in half precision"):
        save_compact(large, tmp_path / "large.safetensors", {})
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    (tmp_path / "page.safetensors").write_bytes(b"<!doctype html><html></html>")
    torch.save({"a": 1}, tmp_path / "pickle.safetensors")
    (tmp_path / "format.safetensors").write_bytes(whole.replace(b"compact SAM 1", b"compact SAM 9"))
    (tmp_path / "size.safetensors").write_bytes(whole.replace(b'\\"depth\\": 1', b'\\"depth\\": 2'))
    for name, message in (
        ("cut", "not a whole safetensors file"),
        ("page", "not a whole safetensors file"),
        ("pickle", "not a whole safetensors file"),
        ("format", "format is 'risbench compact SAM 9'"),
        ("size", r"Missing key\(s\)"),
        ("nan", "iou_token.weight holds values that are not finite numbers"),
        ("gone", "there is no such file"),
    ):
        with pytest.raises(InputError, match=message):
            load_compact(tmp_path / f"{name}.safetensors")


def test_the_shipped_weights_are_small_whole_and_know_their_recipe() -> None:
    model, _ = load_builtin()
    assert 5e6 <= sum(value.numel() for value in model.parameters()) <= 10e6
    assert builtin_weights().stat().st_size < 20_000_000
    card = builtin_weights().with_suffix(".md").read_text()
    assert BUILTIN_SHA256 in card


def test_a_flipped_byte_in_the_shipped_weights_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(builtin_weights().read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(data)
    monkeypatch.setattr(builtin, "builtin_weights", lambda: tmp_path / "flipped.safetensors")
    with pytest.raises(InputError, match="the file is damaged: install risbench again"):
        builtin.load_builtin.__wrapped__()
