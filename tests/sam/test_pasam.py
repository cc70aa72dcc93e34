"""The PA decoder against the numbers of the official one (tests/data/pasam_fixture.npz; recipe in the fixture's notes below).

Weights and inputs are re-created from their names: every tensor is drawn from a generator seeded by the crc32 of its name.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer  # noqa: E402
from torch import Tensor  # noqa: E402

from risbench.adapt.pasam_losses import PaLosses, boundary_band, pa_losses  # noqa: E402
from risbench.core.errors import InputError, OptionError  # noqa: E402
from risbench.core.metrics import mask_iou  # noqa: E402
from risbench.sam.pasam.adapter import edge_map, guiding_input, sampled  # noqa: E402
from risbench.sam.pasam.decoder import TRAINED, PaDecoder, PaOutput, point_codes_of  # noqa: E402
from risbench.sam.pasam.predictor import PasamPredictor, load_pasam  # noqa: E402
from risbench.sam.predictor import BoxPredictor, SamPrompt  # noqa: E402
from tests.conftest import picture  # noqa: E402
from tests.sam.sam_files import tiny_sam  # noqa: E402

FIXTURE = Path(__file__).parents[1] / "data" / "pasam_fixture.npz"
NORMS = ("norm", "output_upscaling.1", "guiding_conv.1", "guiding_conv.4", "mask_downscaling.1", "mask_downscaling.4")
MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
MAPS = {"uncertain_maps": "uncertain", "final_masks": "final", "coarse_masks": "coarse", "refined_masks": "refined"}


def rnd(name: str, shape: tuple[int, ...], spread: float) -> np.ndarray:
    return np.float32(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape) * spread)


def named(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    made = {}
    for key, value in state.items():
        shape, name = tuple(value.shape), prefix + key
        if key.endswith(".weight") and any(part in key for part in NORMS):
            made[key] = 1 + rnd(name, shape, 0.1)
        elif "gaussian_matrix" in key:
            made[key] = rnd(name, shape, 1.0)
        else:
            made[key] = rnd(name, shape, 1 / np.sqrt(np.prod(shape) / shape[0]) if len(shape) >= 2 else 0.05)
    return {key: torch.from_numpy(np.asarray(value, np.float32)) for key, value in made.items()}


@cache
def numbers() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as stored:
        return {name: stored[name] for name in stored.files}


def decoder() -> PaDecoder:
    model = PaDecoder()
    model.load_state_dict(named("pa.", model.state_dict()), strict=True)
    return model


@cache
def prompts() -> PromptEncoder:
    encoder = PromptEncoder(256, (64, 64), (1024, 1024), 16)
    encoder.load_state_dict(named("pe.", encoder.state_dict()), strict=True)
    return encoder.eval().requires_grad_(False)


def nearest(values: np.ndarray, times: int) -> np.ndarray:
    return values.repeat(times, axis=2).repeat(times, axis=3)


@cache
def images() -> Tensor:
    pixels = np.clip(128 + 60 * nearest(rnd("img", (2, 3, 32, 32), 1), 32), 0, 255).astype(np.uint8)
    return torch.from_numpy((pixels.astype(np.float32) - MEAN[:, None, None]) / STD[:, None, None])


@cache
def embeddings() -> Tensor:
    return torch.from_numpy(rnd("emb", (2, 256, 64, 64), 0.5))


BOXES = torch.tensor([[200.0, 260, 700, 640], [96, 480, 512, 1000]])
POINTS = torch.tensor([[[300.0, 400], [320, 420], [512, 500]], [[200, 700], [300, 800], [400, 900]]])


def prompt(kind: str) -> tuple[Tensor, Tensor]:
    if kind == "box":
        return prompts()(points=None, boxes=BOXES, masks=None)
    if kind == "point":
        return prompts()(points=(POINTS, torch.ones(2, 3)), boxes=None, masks=None)
    mask = 255 * (nearest(rnd("mask", (2, 1, 32, 32), 1), 8) > 0).astype(np.float32)
    return prompts()(points=None, boxes=None, masks=torch.from_numpy(mask))


def run(model: PaDecoder, kind: str, gumbel: Tensor | None = None, order: list[int] | None = None) -> PaOutput:
    sparse, dense = prompt(kind)
    index = torch.tensor(order if order is not None else [0, 1])
    if kind == "mask":  # no sparse prompt at all: SAM's encoder then makes a batch of its own choosing
        sparse = torch.zeros(2, 0, 256)
    guide = model.guide(images(), (64, 64))
    position = prompts().get_dense_pe()
    return model.decode(embeddings(), position, sparse[index], dense[index], index, guide, point_codes_of(prompts()), gumbel=gumbel)


def close(found: Tensor, wanted: np.ndarray) -> None:
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=2e-5)


def test_the_tensors_have_the_published_names_shapes_and_counts() -> None:
    state = PaDecoder().state_dict()
    assert len(state) == 152
    assert sum(value.numel() for value in state.values()) == 4_431_140
    trained = {name: value for name, value in state.items() if name.startswith(TRAINED)}
    assert len(trained) == 63
    assert sum(value.numel() for value in trained.values()) == 1_007_008
    assert tuple(state["prompt_adapter.uncertain_mlp.layers.0.weight"].shape) == (64, 512)
    assert tuple(state["guiding_conv.3.weight"].shape) == (256, 64, 2, 2)
    assert tuple(state["prompt_adapter.cross_attn_token_to_image.q_proj.weight"].shape) == (128, 256)


def test_edges_are_the_official_ones() -> None:
    edges = guiding_input(images(), (64, 64))[:, 3]
    wanted = np.unpackbits(numbers()["edges_packed"]).reshape(2, 256, 256)
    assert wanted.any()
    assert (edges.numpy() == wanted).all()


@pytest.mark.parametrize("kind", ["box", "point", "mask"])
def test_evaluation_gives_the_official_numbers(kind: str) -> None:
    with torch.no_grad():
        found = run(decoder().eval(), kind)
    masks, _ = found.single()
    close(masks[..., ::4, ::4], numbers()[f"eval_{kind}/masks_sam"])
    close(found.iou, numbers()[f"eval_{kind}/iou_preds"])
    if kind == "box":
        assert found.maps is not None
        for name, field in MAPS.items():
            close(getattr(found.maps, field), numbers()[f"eval_box/{name}"])


def test_the_official_multi_mask_mode_gives_the_official_numbers() -> None:
    with torch.no_grad():
        found = run(decoder().eval(), "box")
    masks, iou = found.best(official=True)
    close(masks[..., ::4, ::4], numbers()["eval_box_multi/masks_sam"])
    close(iou, numbers()["eval_box_multi/iou_preds"])
    assert found.maps is not None
    for name, field in MAPS.items():
        close(getattr(found.maps, field), numbers()[f"eval_box_multi/{name}"])
    ours, better = found.best()
    assert (better >= iou).all()
    assert ours.shape == masks.shape


def trained() -> tuple[PaDecoder, PaOutput, PaLosses]:
    model = decoder().train()
    for name, value in model.named_parameters():
        value.requires_grad_(name.startswith(TRAINED))
    u = np.clip(np.random.RandomState(zlib.crc32(b"gumbel")).random_sample((2, 2, 4096)), 1e-6, 1 - 1e-6)
    found = run(model, "box", gumbel=torch.from_numpy(np.float32(-np.log(-np.log(u)))))
    assert found.maps is not None
    label = (nearest(rnd("gt", (2, 1, 16, 16), 1), 64) > 0).astype(np.float32)
    losses = pa_losses(found.single()[0], found.maps, torch.from_numpy(label))
    return model, found, losses


def test_training_gives_the_official_masks_losses_and_gradients() -> None:
    model, found, losses = trained()
    close(found.single()[0][..., ::4, ::4], numbers()["train_box/masks_sam"])
    parts = losses.parts()
    order = ("mask", "dice", "mask_final", "dice_final", "uncertain", "total")
    np.testing.assert_allclose([parts[name] for name in order], numbers()["train_box/losses"], rtol=1e-5, atol=1e-5)
    losses.total.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    names, wanted = [str(name) for name in numbers()["train_box/grad_names"]], numbers()["train_box/grad_norms"]
    assert len(names) == 63
    assert sorted(names) == sorted(name for name in gradients if name.startswith(TRAINED))
    for name, norm in zip(names, wanted, strict=True):
        gradient = gradients[name]
        mine = 0.0 if gradient is None else float(gradient.norm())
        if name == "prompt_adapter.cross_attn_token_to_image.k_proj.bias":
            assert abs(mine - norm) < 1e-5, name  # softmax does not see a shift of all keys: its gradient is rounding alone
        else:
            assert mine == pytest.approx(float(norm), rel=1e-3, abs=1e-7), name


def test_with_the_adapter_off_the_masks_are_sams() -> None:
    model = decoder().eval()
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    plain = MaskDecoder(transformer_dim=256, transformer=transformer, iou_head_depth=3, iou_head_hidden_dim=256).eval()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith(("guiding", "prompt_adapter"))})
    sparse, dense = prompt("box")
    position = prompts().get_dense_pe()
    with torch.no_grad():
        ours = model.decode(embeddings(), position, sparse, dense, torch.tensor([0, 1]))
        for index in range(2):
            theirs, iou = plain.predict_masks(
                embeddings()[index : index + 1], position, sparse[index : index + 1], dense[index : index + 1]
            )
            torch.testing.assert_close(ours.masks[index], theirs[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.iou[index], iou[0], rtol=1e-4, atol=1e-5)


def test_many_prompts_of_an_image_are_what_each_is_alone_whatever_their_order() -> None:
    model = decoder().eval()
    with torch.no_grad():
        together = run(model, "box", order=[1, 0, 1])
        straight = run(model, "box")
    torch.testing.assert_close(together.masks[0], together.masks[2])
    torch.testing.assert_close(together.masks[:2], straight.masks[[1, 0]], rtol=1e-4, atol=1e-4)


def test_any_grid_will_do() -> None:
    model = decoder().eval()
    encoder = PromptEncoder(256, (20, 12), (320, 192), 16)
    encoder.load_state_dict(named("pe.", encoder.state_dict()))
    image = torch.randn(1, 3, 320, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sparse, dense = encoder(points=None, boxes=torch.tensor([[10.0, 20, 100, 200], [0, 0, 50, 50]]), masks=None)
        guide = model.guide(image, (20, 12))
        embedding = torch.randn(1, 256, 20, 12, generator=torch.Generator().manual_seed(1))
        index = torch.zeros(2, dtype=torch.int64)
        found = model.decode(embedding, encoder.get_dense_pe(), sparse, dense, index, guide, point_codes_of(encoder))
    assert found.masks.shape == (2, 4, 80, 48)
    assert found.maps is not None
    assert found.maps.final.shape == (2, 1, 20, 12)
    assert torch.isfinite(found.masks).all()


def test_a_guide_without_point_codes_is_refused() -> None:
    model = decoder().eval()
    sparse, dense = prompt("box")
    with pytest.raises(ValueError, match="negative and a positive point"):
        model.decode(embeddings(), prompts().get_dense_pe(), sparse, dense, torch.tensor([0, 1]), model.guide(images(), (64, 64)))


def test_points_are_taken_in_raster_order_and_of_equals_the_first() -> None:
    score = torch.tensor([[0.0, 5, 1, 5, 5, 2], [0, 0, 0, 0, 0, 0]])
    where, weight = sampled(score, 2)
    assert where.tolist() == [[1, 3], [0, 1]]
    assert weight.tolist() == [[1, 1], [1, 1]]


def test_drawn_points_weigh_one_and_pass_a_gradient_to_their_score() -> None:
    score = torch.zeros(1, 64, requires_grad=True)
    gumbel = -torch.log(-torch.log(torch.rand(1, 64, generator=torch.Generator().manual_seed(3))))
    where, weight = sampled(score, 4, gumbel)
    assert where.tolist()[0] == sorted(where.tolist()[0])
    assert torch.equal(weight, torch.ones_like(weight))
    (weight * torch.arange(4.0)).sum().backward()
    assert score.grad is not None
    assert float(score.grad.abs().sum()) > 0


def test_edges_of_pixels_are_cannys_of_the_picture() -> None:
    picture = torch.zeros(1, 3, 40, 40)
    picture[..., 20:] = 200
    edges = edge_map(picture, "pixels")
    assert edges.shape == (1, 1, 40, 40)
    assert edges[0, 0, 5:35, 18:22].any(dim=1).all()
    assert not edges[0, 0, :, :15].any()


def test_the_band_follows_the_outline_and_the_border_is_one_of_objects_only() -> None:
    label = torch.zeros(1, 1, 200, 200)
    label[..., 50:100, 50:100] = 1
    band = boundary_band(label)[0, 0]
    assert band[50, 75] == 1
    assert band[49, 75] == 1
    assert band[75, 75] == 0
    assert band[0, 0] == 0
    assert boundary_band(torch.ones(1, 1, 200, 200))[0, 0, 0, 0] == 1


# -- files and the predictor, on a tiny ViT of 128 px


def pa_state(seed: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = PaDecoder().state_dict()
    return {key: value + 0.05 * torch.randn_like(value) for key, value in state.items()}


def write(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


def test_all_four_kinds_of_files_load_and_others_are_refused(tmp_path: Path) -> None:
    sam = tiny_sam().state_dict()
    decoder = pa_state()
    only = {key: value for key, value in sam.items() if not key.startswith("mask_decoder.")}
    merged = {**only, **{f"mask_decoder.{key}": value for key, value in decoder.items()}}
    merged |= {key.replace("mask_decoder.", "mask_decoder_ori."): value for key, value in sam.items() if key.startswith("mask_decoder.")}
    base = write(tmp_path / "sam.pth", sam)
    from_merged, _ = load_pasam(write(tmp_path / "merged.pth", merged))
    from_two, _ = load_pasam(base, write(tmp_path / "epoch_20.pth", decoder))
    for name, value in from_merged.state_dict().items():
        assert torch.equal(value, from_two.state_dict()[name]), name
    for model in (from_merged, from_two):
        assert model.plain_decoder is not None
        for name, value in model.plain_decoder.state_dict().items():
            assert torch.equal(value, sam[f"mask_decoder.{name}"]), name
    with pytest.raises(InputError, match="iou_token.weight"):
        load_pasam(write(tmp_path / "cut.pth", {k: v for k, v in merged.items() if k != "mask_decoder_ori.iou_token.weight"}))
    alone = {key.removeprefix("mask_decoder."): value for key, value in sam.items() if key.startswith("mask_decoder.")}
    fresh, _ = load_pasam(base, write(tmp_path / "decoder.pth", alone), fresh=True)
    assert torch.equal(fresh.mask_decoder.mask_tokens.weight, sam["mask_decoder.mask_tokens.weight"])
    with pytest.raises(InputError, match="holds no prompt adapter, so it is plain SAM"):
        load_pasam(base)
    with pytest.raises(InputError, match="prompt_adapter.refined_mlp.layers.0.weight"):
        load_pasam(base, write(tmp_path / "x.pth", {k: v for k, v in decoder.items() if k != "prompt_adapter.refined_mlp.layers.0.weight"}))
    with pytest.raises(InputError, match="not a SAM decoder"):
        load_pasam(base, write(tmp_path / "y.pth", {"a": torch.zeros(1)}))


def test_the_predictor_answers_any_mixture_as_one_by_one_and_without_adapter_as_sam(tmp_path: Path) -> None:
    sam = tiny_sam()
    state = {
        **sam.state_dict(),
        **{f"mask_decoder.{k}": v for k, v in pa_state().items() if k.startswith(("guiding", "prompt_a"))},
    }
    model, _ = load_pasam(write(tmp_path / "m.pth", state))
    pixels = picture(3, 90, 120)
    asked = [
        SamPrompt((10.0, 10.0, 60.0, 50.0)),
        SamPrompt(points=((30.0, 20.0, 1), (80.0, 70.0, 0))),
        SamPrompt(polygon=((10.0, 20.0), (50.0, 10.0), (70.0, 60.0), (20.0, 70.0))),
    ]
    for resize in ("squash", "pad"):
        ours = PasamPredictor(model, resize)  # type: ignore[arg-type]
        ours.load(pixels)
        together = ours.predict(asked)
        assert together.logits.shape == (3, 90, 120)
        assert together.uncertainty is not None
        assert ((together.uncertainty >= 0) & (together.uncertainty <= 1)).all()
        for index, prompt in enumerate(asked):
            np.testing.assert_allclose(ours.predict([prompt]).logits[0], together.logits[index], rtol=1e-3, atol=1e-3)
    plain, theirs = PasamPredictor(model, "pad", adapter=False), BoxPredictor(sam)
    plain.load(pixels)
    theirs.load(pixels)
    first, second = plain.predict(asked[:1]).logits[0], theirs.predict(asked[:1]).logits[0]
    # SAM's own resizing is Pillow's, on bytes and with anti-aliasing: the logits differ in the second digit, the masks do not
    assert mask_iou(first > 0, second > 0) > 0.97
    with pytest.raises(OptionError, match="prompt 0: must hold a box"):
        plain.predict([SamPrompt()])


def test_what_the_adapter_is_compared_with_is_sams_own_decoder_on_the_same_embedding(tmp_path: Path) -> None:
    sam = tiny_sam().state_dict()
    other = tiny_sam(seed=5).state_dict()
    state = {key: value for key, value in sam.items() if not key.startswith("mask_decoder.")}
    state |= {f"mask_decoder.{key}": value for key, value in pa_state().items()}
    state |= {key.replace("mask_decoder.", "mask_decoder_ori."): value for key, value in other.items() if key.startswith("mask_decoder.")}
    model, _ = load_pasam(write(tmp_path / "merged.pth", state))
    encoded = []
    model.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    adapted = PasamPredictor(model, "pad")
    plain = PasamPredictor(model, "pad", adapter=False, beside=adapted)
    asked, pixels = [SamPrompt((10.0, 10.0, 60.0, 50.0))], picture(3, 90, 120)
    for predictor in (adapted, plain):
        predictor.load(pixels)
    assert len(encoded) == 1
    original = {key: value for key, value in sam.items() if not key.startswith("mask_decoder.")}
    original |= {key: value for key, value in other.items() if key.startswith("mask_decoder.")}
    own, _ = load_pasam(write(tmp_path / "original.pth", original), fresh=True)
    expected = PasamPredictor(own, "pad", adapter=False)
    expected.load(pixels)
    assert np.allclose(plain.predict(asked).logits, expected.predict(asked).logits, atol=1e-4)
    assert not np.allclose(plain.predict(asked).logits, adapted.predict(asked).logits, atol=1e-2)
