"""CroBIM's parts against its equations, and the whole against samples it can learn by heart."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from torch.nn import functional
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from risbench.benchmark.data.batches import Batches, normalised
from risbench.benchmark.data.cache import Cache
from risbench.benchmark.data.words import words_for
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.models.crobim import deform
from risbench.benchmark.models.crobim.capm import ContextPrompts
from risbench.benchmark.models.crobim.crobim import CroBim
from risbench.benchmark.models.crobim.deform import DeformableAttention, reference_points
from risbench.benchmark.models.crobim.lgfa import DeficitCompensation, LanguageGuidedAggregation, _joined, _regions, attention_deficit
from risbench.benchmark.models.registry import build, parameters_of
from risbench.benchmark.settings import CapmSettings, LgfaSettings, Settings
from risbench.benchmark.train.losses import mask_loss
from risbench.benchmark.train.run import optimizer_of

CHANNELS = (16, 32, 64, 128)


def maps(batch: int = 2, side: int = 24) -> list[Any]:
    torch.manual_seed(1)
    return [torch.randn(batch, count, side >> level, side >> level) for level, count in enumerate(CHANNELS)]


def asked(batch: int = 2, length: int = 20, real: int = 7) -> tuple[Any, Any]:
    torch.manual_seed(2)
    valid = torch.zeros(batch, length, dtype=torch.bool)
    valid[:, :real] = True
    return torch.randint(5, 300, (batch, length)) * valid, valid


def tiny(*changes: str, model: str = "crobim") -> tuple[Any, Settings]:
    settings = load_settings("tiny", model, changes)
    return build(model, settings, 400).eval(), settings


# -- the whole


@pytest.mark.parametrize("model", ["crobim", "caris", "lavt"])
@pytest.mark.parametrize("side", [96, 100])
def test_a_mask_has_a_quarter_of_the_image_s_side_whatever_that_is(model: str, side: int) -> None:
    net, _ = tiny(model=model)
    tokens, valid = asked()
    with torch.no_grad():
        assert net(torch.randn(2, 3, side, side), tokens, valid).shape == (2, 1, side // 4, side // 4)


@pytest.mark.parametrize("model", ["crobim", "lavt"])
def test_sentences_that_share_an_image_get_what_each_would_alone(model: str) -> None:
    net, _ = tiny(model=model)
    images, image_of = torch.randn(2, 3, 96, 96), torch.tensor([1, 0, 1])
    tokens, valid = asked(3)
    with torch.no_grad():
        assert torch.allclose(net(images, tokens, valid, image_of), net(images[image_of], tokens, valid), atol=1e-5)


@pytest.mark.parametrize("change", [
    "capm.scales=[1,2,3]", "capm.scales=[2,3,4]", "capm.pool=max", "capm.pool=avg", "capm.grid=2", "capm.residual=true", "capm.scale_logits=false",
    "capm.context=false", "capm.injection=post_embedding", "lgfa.deficit_stages=[]", "lgfa.deficit_stages=[4]", "lgfa.deficit_stages=[2,3,4]",
    "lgfa.deficit=score", "lgfa.resample=bilinear", "lgfa.write_back=replace", "lgfa.region_tokens=pooled", "lgfa.norm=instance", "lgfa.residual=true",
    "lgfa.enabled=false", "mid.attention=pwam", "mid.attention=wpa", "mid.pyramid=true", "mid.checkpoint=true",
    "mid.scale_logits=false", "backbone.kind=convnext",
])  # fmt: skip
def test_every_switch_makes_another_model_that_learns(change: str) -> None:
    extra = ("mid.levels=[3,4]",) if change == "mid.pyramid=true" else ()
    net, settings = tiny(change, *extra)
    plain, _ = tiny()
    tokens, valid = asked()
    image = torch.randn(2, 3, 96, 96)
    logits = net(image, tokens, valid)
    same_weights = dict(net.state_dict()).keys() == dict(plain.state_dict()).keys()
    if same_weights and change not in ("mid.checkpoint=true",):
        plain.load_state_dict(net.state_dict())
        if change not in ("lgfa.deficit=score", "lgfa.resample=bilinear", "lgfa.region_tokens=pooled"):  # these wait for a first step
            assert not torch.equal(plain(image, tokens, valid), logits)
    mask_loss(logits, torch.ones(2, 96, 96), settings.recipe)["loss"].backward()
    without = {name for name, value in net.named_parameters() if value.grad is None}
    assert {
        name for name in without if not name.startswith(("text.norm.", "backbone.net.swin.layernorm.", "backbone.net.layernorm."))
    } == set()


def test_the_published_sizes_are_met() -> None:
    settings = load_settings("base", changes=["backbone.weights=''", "text.weights=''"])
    with torch.device("meta"):
        net = CroBim(settings, 30522)
    counts = parameters_of(net)
    assert counts["backbone"] / 1e6 == pytest.approx(86.9, abs=0.1)
    assert counts["text"] / 1e6 == pytest.approx(108.9, abs=0.1)
    assert counts["prompts"] / 1e6 == pytest.approx(3.55, abs=0.02)
    assert counts["aggregation"] / 1e6 == pytest.approx(8.39, abs=0.02)
    assert counts["decoder"] / 1e6 == pytest.approx(9.05, abs=0.02)
    convnext = load_settings(
        "base", changes=["backbone.weights=''", "text.weights=''", "backbone.kind=convnext", "backbone.depths=[3,3,27,3]"]
    )
    with torch.device("meta"):
        assert parameters_of(CroBim(convnext, 30522))["backbone"] / 1e6 == pytest.approx(87.6, abs=0.1)


def test_padding_says_nothing() -> None:
    net, _ = tiny()
    tokens, valid = asked()
    other = torch.where(valid, tokens, torch.randint(5, 300, tokens.shape))
    image = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(net(image, tokens, valid), net(image, other, valid))
        changed = tokens.clone()
        changed[:, 3] += 1
        assert not torch.equal(net(image, tokens, valid), net(image, changed, valid))


@pytest.mark.parametrize("model", ["crobim", "caris", "lavt"])
def test_four_samples_are_learnt_by_heart(model: str, cache: Cache) -> None:
    settings = load_settings("tiny", model, ["recipe.clip=1.0"])
    areas = [int(cache.mask(np.array([number])).sum()) for number in range(len(cache.samples))]
    numbers = np.argsort(areas)[::-1][:4].copy()
    sentences = [cache.samples[number].sentence for number in numbers]
    words = words_for(settings.text, sentences)
    tokens, valid, _ = words.encode(sentences)
    batch = Batches(cache, numbers, tokens, valid, batch=4, seed=0).read(0)
    net = build(model, settings, words.vocabulary).train()
    optimizer = optimizer_of(net, settings.recipe)
    for step in range(120):
        for group in optimizer.param_groups:
            group["lr"] = settings.recipe.learning_rate * min(1.0, (step + 1) / 20)
        logits = net(normalised(batch.images), batch.tokens, batch.valid)
        mask_loss(logits, batch.masks, settings.recipe)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        logits = net(normalised(batch.images), batch.tokens, batch.valid)
    found = functional.interpolate(logits, batch.masks.shape[-2:], mode="bilinear")[:, 0] > 0
    truth = batch.masks.bool()
    ious = (found & truth).flatten(1).sum(1) / (found | truth).flatten(1).sum(1)
    assert (ious > 0.9).all(), ious


# -- CAPM


def test_prompts_learn_and_differ_where_a_literal_concatenation_would_make_them_alike() -> None:
    torch.manual_seed(0)
    module = ContextPrompts(CapmSettings(), CHANNELS, 64)
    found = module(maps())
    found.square().sum().backward()
    assert module.prompts.grad is not None
    assert module.prompts.grad.abs().max() > 1e-6
    assert (found[0, 0] - found[0, 1]).abs().max() > 1e-5
    # equation 1 read literally: one key, whose softmax is 1 whatever is asked
    key = torch.randn(1, 1, 64)
    prompts = torch.randn(4, 64, requires_grad=True)
    literal = (prompts @ key.transpose(1, 2)).softmax(dim=-1) @ key
    literal.square().sum().backward()
    assert prompts.grad is not None
    assert prompts.grad.abs().max() == 0


def test_every_scale_is_asked_as_the_slices_of_equation_1_are() -> None:
    torch.manual_seed(0)
    module = ContextPrompts(CapmSettings(), CHANNELS, 64)
    given = maps()
    pooled = [features.mean(dim=(2, 3)) for features in given]
    stacked = torch.zeros(2, 4, sum(CHANNELS))
    first = 0
    for scale, vectors in enumerate(pooled):
        stacked[:, scale, first : first + CHANNELS[scale]] = vectors
        first += CHANNELS[scale]
    keys = torch.cat([layer.weight for layer in module.keys], dim=1)
    values = torch.cat([layer.weight for layer in module.values], dim=1)
    logits = (module.prompts @ module.query.weight.T) @ (stacked @ keys.T).transpose(1, 2) * 64**-0.5
    expected = logits.softmax(dim=-1) @ (stacked @ values.T)
    assert torch.allclose(module(given), expected, atol=1e-6)


def test_one_call_with_masked_prompts_gives_the_plain_words() -> None:
    net, _ = tiny()
    tokens, valid = asked()
    prompts = torch.randn(2, 4, 64)
    with torch.no_grad():
        words, prompted = net.text.with_prompts(tokens, valid, prompts, "embeds")
        alone = net.text(tokens, valid)
    assert prompted.shape == (2, 24, 64)
    assert torch.allclose(words[valid], alone[valid], atol=1e-6)


# -- LGFA


def test_compensation_begins_as_identity() -> None:
    settings = LgfaSettings(width=32, heads=4, regions=4)
    torch.manual_seed(0)
    on = LanguageGuidedAggregation(settings, CHANNELS, 64)
    off = LanguageGuidedAggregation(settings.model_copy(update={"deficit_stages": ()}), CHANNELS, 64)
    off.load_state_dict({name: value for name, value in on.state_dict().items() if not name.startswith("compensation.")})
    words, (_, valid) = torch.randn(2, 20, 64), asked()
    for one, other in zip(on(maps(), words, valid)[0], off(maps(), words, valid)[0], strict=True):
        assert torch.equal(one, other)


def test_only_the_chosen_cells_are_written_to() -> None:
    torch.manual_seed(0)
    module = DeficitCompensation(LgfaSettings(width=32, heads=4, regions=1, deficit_stages=(1, 3)), CHANNELS)
    for layer in module.back:
        torch.nn.init.normal_(layer.weight)
    deficit = torch.zeros(2, 3, 3)
    deficit[0, 1, 2] = deficit[1, 0, 0] = 1.0
    given = maps()
    found = module(given, deficit)
    for stage, side in ((0, 8), (2, 2)):
        differs = (found[stage] != given[stage]).any(dim=1)
        wanted = torch.zeros_like(differs)
        wanted[0, side : 2 * side, 2 * side : 3 * side] = True
        wanted[1, :side, :side] = True
        assert torch.equal(differs, wanted)
    assert torch.equal(found[1], given[1])
    assert torch.equal(found[3], given[3])


def test_regions_are_cut_and_joined_without_loss() -> None:
    features = maps()[1]
    assert torch.equal(_joined(_regions(features, 3, 3), 3, 3), features)


def test_scales_that_agree_have_no_deficit_and_padding_none_either() -> None:
    _, valid = asked()
    coarse = torch.rand(2, 20, 3, 3)
    alike = [coarse.repeat_interleave(2**level, dim=2).repeat_interleave(2**level, dim=3) for level in (3, 2, 1, 0)]
    assert attention_deficit(alike, valid).abs().max() < 1e-5
    alike[0] = torch.where(valid[:, :, None, None], alike[0], torch.rand_like(alike[0]))
    assert attention_deficit(alike, valid).abs().max() < 1e-5
    alike[1] = alike[1].clone()
    alike[1][0, 2, :2, :2] += 0.5
    deficit = attention_deficit(alike, valid)
    assert deficit[0].argmax() == 0
    assert deficit[0, 0, 0] == pytest.approx(2 * 0.5 * 4 / 16, rel=1e-4)  # a quarter of the cell, against both neighbours


# -- MID


def test_deformable_attention_is_what_transformers_has(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    heads, levels, points, width = 4, 3, 4, 32
    sizes = [(12, 10), (6, 5), (3, 3)]
    count = sum(height * width_ for height, width_ in sizes)
    monkeypatch.setattr(deform, "_CACHE_BYTES", 1)  # a few rows at a time, as large maps are
    module = DeformableAttention(width, heads, levels, points)
    torch.nn.init.normal_(module.offsets.weight, std=0.3)
    torch.nn.init.normal_(module.weights.weight)
    query, value = torch.randn(2, count, width, requires_grad=True), torch.randn(2, count, width, requires_grad=True)
    references = reference_points(sizes, torch.device("cpu"))
    offsets = module.offsets(query).view(2, count, heads, levels, points, 2)
    cells = torch.tensor([[width_, height] for height, width_ in sizes])
    places = references[None, :, None, None, None, :] + offsets / cells[None, None, None, :, None, :]
    weights = module.weights(query).view(2, count, heads, -1).softmax(-1).view(2, count, heads, levels, points)
    core = MultiScaleDeformableAttention()
    starts = torch.tensor([0, 120, 150])
    expected = module.out(core(module.value(value).view(2, count, heads, -1), torch.tensor(sizes), sizes, starts, places, weights, 64))
    found = module(query, references, value, sizes)
    assert torch.allclose(found, expected, atol=1e-5)
    direction = torch.randn_like(found)
    learnt = [query, value, *module.parameters()]
    ours, theirs = (torch.autograd.grad((result * direction).sum(), learnt, retain_graph=True) for result in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def test_offsets_begin_as_a_ring() -> None:
    module = DeformableAttention(32, 8, 4, 4)
    ring = module.offsets.bias.view(8, 4, 4, 2)
    assert torch.allclose(ring[0, 0, 0], torch.tensor([1.0, 0.0]))
    assert torch.allclose(ring[2, 3, 3], torch.tensor([0.0, 4.0]), atol=1e-6)
    assert torch.allclose(ring[1, 0, 1], torch.tensor([2.0, 2.0]), atol=1e-6)


# -- losses


def test_the_losses_are_the_formulas() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(3, 1, 8, 8), (torch.rand(3, 8, 8) > 0.7).float()
    recipe = load_settings("tiny").recipe
    found = mask_loss(logits, masks, recipe)
    share = logits[:, 0].sigmoid()
    entropy = -(masks * share.log() + (1 - masks) * (1 - share).log()).mean()
    dice = torch.stack([1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1) for p, y in zip(share, masks, strict=True)]).mean()
    assert found["entropy"] == pytest.approx(float(entropy), rel=1e-5)
    assert found["dice"] == pytest.approx(float(dice), rel=1e-5)
    two = torch.stack([torch.zeros_like(logits[:, 0]), logits[:, 0]], dim=1)
    weighted = functional.cross_entropy(two, masks.long(), weight=torch.tensor([0.9, 1.1]))
    peers = mask_loss(logits, masks, recipe.model_copy(update={"loss": "weighted"}))["loss"]
    assert peers == pytest.approx(float(weighted), rel=1e-5)


def test_the_same_seed_makes_the_same_model_in_every_process() -> None:
    code = (
        "import hashlib\nfrom risbench.benchmark.models.registry import build\nfrom risbench.benchmark.load_settings import load_settings\n"
        "m = build('crobim', load_settings('tiny'), 400, 7)\n"
        "print(hashlib.sha256(b''.join(v.numpy().tobytes() for v in m.state_dict().values())).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
