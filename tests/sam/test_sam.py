from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from segment_anything import SamPredictor, sam_model_registry  # noqa: E402

from risbench.core.errors import InputError, MissingRequirementError, OptionError  # noqa: E402
from risbench.core.geometry import polygon_mask  # noqa: E402
from risbench.core.masks import decode_rle  # noqa: E402
from risbench.core.metrics import mask_iou  # noqa: E402
from risbench.ingest import ingest  # noqa: E402
from risbench.refine import refine_masks  # noqa: E402
from risbench.sam.compact.tiny_vit import WindowBlock  # noqa: E402
from risbench.sam.predictor import BoxPredictor, SamPrompt  # noqa: E402
from risbench.sam.weights import build_sam, load_sam, resized  # noqa: E402
from tests.conftest import eval_row, picture, records  # noqa: E402
from tests.sam.sam_files import tiny_mobile_sam, tiny_sam, write_sam  # noqa: E402

BOXES = [(10.0, 12.0, 60.0, 70.0), (30.0, 5.0, 90.0, 40.0), (0.0, 0.0, 100.0, 80.0)]


def asked(*masks: np.ndarray | None) -> list[SamPrompt]:
    """Return one prompt a box, with its mask."""
    return [SamPrompt(box, mask=mask) for box, mask in zip(BOXES, masks, strict=True)]


@pytest.mark.parametrize("shape", [(96, 96), (80, 130), (150, 70)])
def test_a_batch_equals_one_call_a_box(tmp_path: Path, shape: tuple[int, int]) -> None:
    model, _ = load_sam(write_sam(tmp_path / "sam.pth"))
    image = picture(1, *shape)
    ours = BoxPredictor(model)
    ours.load(image)
    batch = ours.predict(asked(None, None, None))
    peer = SamPredictor(tiny_sam())
    peer.set_image(image)
    for index, box in enumerate(BOXES):
        logits, iou, _ = peer.predict(box=np.array(box), multimask_output=False, return_logits=True)
        assert np.allclose(batch.logits[index], logits[0], atol=1e-4)
        assert batch.predicted_iou[index] == pytest.approx(iou[0], abs=1e-5)


def test_a_mask_prompt_equals_the_peers(tmp_path: Path) -> None:
    model, _ = load_sam(write_sam(tmp_path / "sam.pth"))
    image = picture(1, 128, 128)
    mask = np.zeros((128, 128), bool)
    mask[32:96, 16:64] = True
    ours = BoxPredictor(model)
    ours.load(image)
    with_mask = ours.predict(asked(mask, None, mask))
    peer = SamPredictor(tiny_sam())
    peer.set_image(image)
    small = torch.nn.functional.interpolate(
        torch.as_tensor(mask, dtype=torch.float32)[None, None], (32, 32), mode="bilinear", antialias=True
    )
    prompt = ((2 * small - 1) * 6.0)[0].numpy()
    logits, _, _ = peer.predict(box=np.array(BOXES[0]), mask_input=prompt, multimask_output=False, return_logits=True)
    assert np.allclose(with_mask.logits[0], logits[0], atol=1e-4)
    plain = ours.predict(asked(None, None, None))
    assert np.allclose(with_mask.logits[1], plain.logits[1], atol=1e-5)
    assert not np.allclose(with_mask.logits[2], plain.logits[2], atol=1e-3)


def test_boxes_polygons_points_and_masks_go_together_and_each_equals_the_peers(tmp_path: Path) -> None:
    model, _ = load_sam(write_sam(tmp_path / "sam.pth"))
    image = picture(1, 90, 120)
    ours, peer = BoxPredictor(model), SamPredictor(tiny_sam())
    ours.load(image)
    peer.set_image(image)
    quad = ((20.0, 10.0), (80.0, 30.0), (70.0, 60.0), (10.0, 40.0))
    points = ((30.0, 30.0, 1), (90.0, 60.0, 0))
    found = ours.predict(
        [
            SamPrompt(BOXES[0]),
            SamPrompt(points=points),
            SamPrompt(polygon=quad),
            SamPrompt(BOXES[1], points=points[:1]),
            SamPrompt(BOXES[1]),
        ]
    )
    for index, words in (
        (0, {"box": np.array(BOXES[0])}),
        (1, {"point_coords": np.array([(30.0, 30.0), (90.0, 60.0)]), "point_labels": np.array([1, 0])}),
        (3, {"box": np.array(BOXES[1]), "point_coords": np.array([(30.0, 30.0)]), "point_labels": np.array([1])}),
        (4, {"box": np.array(BOXES[1])}),
    ):
        logits, iou, _ = peer.predict(**words, multimask_output=False, return_logits=True)
        assert np.allclose(found.logits[index], logits[0], atol=1e-4)
        assert found.predicted_iou[index] == pytest.approx(iou[0], abs=1e-5)
    extent = SamPrompt((10.0, 10.0, 80.0, 60.0), mask=polygon_mask(quad, 90, 120))
    assert np.allclose(found.logits[2], ours.predict([extent]).logits[0], atol=1e-5)


def test_a_prompt_that_asks_for_nothing_and_a_mask_of_another_size_are_refused(tmp_path: Path) -> None:
    ours = BoxPredictor(load_sam(write_sam(tmp_path / "sam.pth"))[0])
    ours.load(picture(1, 90, 120))
    with pytest.raises(OptionError, match="prompt 1: must hold a box"):
        ours.predict([SamPrompt(BOXES[0]), SamPrompt()])
    with pytest.raises(OptionError, match=r"prompt 0: its mask is \(5, 5\), the image \(90, 120\)"):
        ours.predict([SamPrompt(BOXES[0], mask=np.ones((5, 5), bool))])


@pytest.mark.slow
def test_vit_b_with_random_weights_equals_the_peer_on_three_image_shapes(tmp_path: Path) -> None:
    torch.manual_seed(3)
    peer_model = sam_model_registry["vit_b"]().eval()
    for name, value in peer_model.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(value, std=0.1)
    torch.save(peer_model.state_dict(), tmp_path / "sam_vit_b.pth")
    ours, peer = BoxPredictor(load_sam(tmp_path / "sam_vit_b.pth")[0]), SamPredictor(peer_model)
    for shape in ((512, 512), (300, 480), (700, 420)):
        image = picture(2, *shape)
        ours.load(image)
        peer.set_image(image)
        found = ours.predict([SamPrompt(box) for box in BOXES])
        for index, box in enumerate(BOXES):
            logits, iou, _ = peer.predict(box=np.array(box), multimask_output=False, return_logits=True)
            assert np.allclose(found.logits[index], logits[0], rtol=1e-4, atol=1e-4)
            assert found.predicted_iou[index] == pytest.approx(iou[0], abs=1e-5)


def test_another_input_side_interpolates_positions_and_the_same_side_changes_nothing(tmp_path: Path) -> None:
    path = write_sam(tmp_path / "sam.pth")
    state = tiny_sam().state_dict()
    same = resized(state, 128, "x")
    assert all(torch.allclose(same[key], value, atol=1e-6) for key, value in state.items())
    model, _ = load_sam(path, image_side=256)
    assert model.image_encoder.pos_embed.shape == (1, 16, 16, 32)
    assert [len(block.attn.rel_pos_h) for block in model.image_encoder.blocks] == [7, 31]
    assert model.prompt_encoder.image_embedding_size == (16, 16)
    ours = BoxPredictor(model)
    ours.load(picture(1, 90, 120))
    assert np.isfinite(ours.predict([SamPrompt(BOXES[0])]).logits).all()
    with pytest.raises(InputError, match="an image side of 100 px: must be a multiple of the patch of 16 px"):
        load_sam(path, image_side=100)


def test_mobile_sams_encoder_has_the_size_of_its_file_and_is_told_apart_by_its_keys(tmp_path: Path) -> None:
    model = tiny_mobile_sam()
    state = model.state_dict()
    # mobile_sam.pt has 40,728,226 bytes; what is not tensors in it is PyTorch's table of contents
    size = sum(value.numel() * value.element_size() for value in state.values())
    assert 0 < 40_728_226 - size < 300_000
    for key, shape in (
        ("image_encoder.patch_embed.seq.0.c.weight", (32, 3, 3, 3)),
        ("image_encoder.patch_embed.seq.2.bn.running_mean", (64,)),
        ("image_encoder.layers.0.blocks.1.conv2.c.weight", (256, 1, 3, 3)),
        ("image_encoder.layers.0.downsample.conv1.c.weight", (128, 64, 1, 1)),
        ("image_encoder.layers.1.blocks.0.attn.attention_biases", (4, 49)),
        ("image_encoder.layers.2.blocks.5.attn.attention_biases", (5, 196)),
        ("image_encoder.layers.2.blocks.5.mlp.fc1.weight", (640, 160)),
        ("image_encoder.layers.3.blocks.1.local_conv.c.weight", (320, 1, 3, 3)),
        ("image_encoder.head.weight", (1000, 320)),
        ("image_encoder.neck.0.weight", (256, 320, 1, 1)),
    ):
        assert tuple(state[key].shape) == shape
    torch.save(state, tmp_path / "mine.pt")
    loaded, _ = load_sam(tmp_path / "mine.pt", image_side=256)
    ours = BoxPredictor(loaded)
    ours.load(picture(1, 90, 120))
    found = ours.predict([SamPrompt(BOXES[0]), SamPrompt(BOXES[1])])
    assert found.logits.shape == (2, 90, 120)
    assert np.isfinite(found.logits).all()
    state.pop("image_encoder.norm_head.weight")
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(InputError, match="norm_head"):
        load_sam(tmp_path / "short.pt")


def test_a_window_attends_to_itself_alone_and_padding_leaves_no_trace() -> None:
    torch.manual_seed(0)
    block = WindowBlock(16, 2, 7).eval()
    torch.nn.init.normal_(block.attn.attention_biases)
    x = torch.randn(1, 16, 14, 21)
    whole = block.attn(x.view(1, 16, 2, 7, 3, 7).permute(0, 2, 4, 3, 5, 1).reshape(6, 49, 16))
    one = block.attn(x[:, :, 7:14, 7:14].permute(0, 2, 3, 1).reshape(1, 49, 16))
    assert torch.allclose(whole[4], one[0], atol=1e-6)
    # attention by hand: softmax(q k / sqrt(d) + bias of the absolute offset) v, head by head
    attention, tokens = block.attn, x[:, :, :7, :7].permute(0, 2, 3, 1).reshape(49, 16)
    q, k, v = attention.qkv(attention.norm(tokens)).view(49, 2, 3, 8).permute(2, 1, 0, 3)
    offsets = [[abs(a // 7 - b // 7) * 7 + abs(a % 7 - b % 7) for b in range(49)] for a in range(49)]
    weights = (q @ k.transpose(1, 2) / 8**0.5 + attention.attention_biases[:, torch.tensor(offsets)]).softmax(-1)
    by_hand = attention.proj((weights @ v).transpose(0, 1).reshape(49, 16))
    assert torch.allclose(whole[0], by_hand, atol=1e-5)


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


def test_a_published_name_on_other_bytes_is_refused(tmp_path: Path) -> None:
    path = write_sam(tmp_path / "sam_vit_b_01ec64.pth")
    with pytest.raises(InputError, match="not ec2df62732614e57.* as published; it is damaged, or weights of your own"):
        load_sam(path)


def test_damage_is_found_before_any_mask_is_made(tmp_path: Path) -> None:
    path = write_sam(tmp_path / "sam.pth")
    whole = path.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><html>Please sign in</html>")
    write_sam(tmp_path / "nan.pth", mask_decoder__mask_tokens__weight=torch.full((4, 256), float("nan")))
    for name, message in (
        ("cut.pth", "not a plain"),
        ("page.pth", "web page"),
        ("nan.pth", "mask_tokens.weight holds values that are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            load_sam(tmp_path / name)


def test_other_files_are_refused_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    state = tiny_sam().state_dict()
    state.pop("mask_decoder.iou_token.weight")
    torch.save(state, tmp_path / "short.pth")
    for name, message in (("text.pth", "not a plain"), ("other.pth", "not a SAM state dict"), ("list.pth", "state dict of tensors"),
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
    # finite weights whose products are not
    path = write_sam(tmp_path / "huge.pth", mask_decoder__mask_tokens__weight=torch.full((4, 256), 3e38))
    result = refine_masks(workspace=workspace, engine="sam", checkpoint=path)
    assert result["problems_by_code"] == {"mask_not_finite": 7}
    assert all(record["mask"] is None for record in records(workspace / "2-refine" / "round-1"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpu_without_cuda_is_one_clear_line(workspace: Path) -> None:
    with pytest.raises(MissingRequirementError, match=r"^--gpu: PyTorch .* finds no CUDA device") as caught:
        refine_masks(workspace=workspace, gpu=True)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_masks_agree_with_cpu_masks(workspace: Path, tmp_path: Path) -> None:
    path = write_sam(tmp_path / "sam.pth")
    refine_masks(workspace=workspace, engine="sam", checkpoint=path, precision="fp32")
    refine_masks(workspace=workspace, engine="sam", checkpoint=path, gpu=True)
    first, second = ([record["mask"] for record in records(workspace / "2-refine" / f"round-{number}")] for number in (1, 2))
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a or b]
    assert len(pairs) >= 5
    assert all(a and b for a, b in pairs)
    assert np.mean([mask_iou(*(decode_rle(tuple(mask["size"]), mask["counts"]) for mask in pair)) for pair in pairs]) >= 0.99
