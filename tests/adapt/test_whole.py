"""Adapters on SAMs of whole images: a tiny one of segment-anything's own classes, with random weights."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from safetensors.torch import save  # noqa: E402

from risbench.adapt import train_adapter as loop  # noqa: E402
from risbench.adapt.adapter_data import Boxes, Known, TrueExamples, from_truth  # noqa: E402
from risbench.adapt.objectives import WholeObjective  # noqa: E402
from risbench.adapt.run import train_adapter  # noqa: E402
from risbench.adapt.train_adapter import AdapterRecipe, Training  # noqa: E402
from risbench.adapt.whole_data import Embeddings, WholeBatch, WholeExamples, noisy_mask  # noqa: E402
from risbench.core.errors import InputError, MissingRequirementError, OptionError  # noqa: E402
from risbench.core.imagery import encode_png, read_raster  # noqa: E402
from risbench.core.masks import encode_rle, mask_of  # noqa: E402
from risbench.core.metrics import mask_iou  # noqa: E402
from risbench.core.storage import sha256_of_file  # noqa: E402
from risbench.core.workspace import Workspace, read_records  # noqa: E402
from risbench.formats.truth import Truth  # noqa: E402
from risbench.ingest import ingest  # noqa: E402
from risbench.refine import refine_masks  # noqa: E402
from risbench.refine.clean import CleanRules  # noqa: E402
from risbench.refine.engines.base import Engine, Prompt  # noqa: E402
from risbench.refine.sam_engine import pasam_engine  # noqa: E402
from risbench.sam.adapter_file import load_whole_adapted, read_adapter  # noqa: E402
from risbench.sam.pasam.predictor import PasamPredictor, load_pasam, normalised  # noqa: E402
from risbench.sam.predictor import SamPrompt  # noqa: E402
from risbench.scenes.source import write_source  # noqa: E402
from tests.conftest import picture  # noqa: E402
from tests.sam.sam_files import write_sam  # noqa: E402

SIDE = 128
SHORT = AdapterRecipe(steps=4, batch=4, warm_up=2, prompts="official")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, seed=5, scenes=6)
    return folder


@pytest.fixture
def world(source: Path, tmp_path: Path) -> Path:
    ingest(source, workspace=tmp_path / "w", name="world")
    return tmp_path / "w"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_sam(tmp_path / "sam.pth")


def known_of(source: Path, world: Path) -> Known:
    return from_truth(list(read_records(Workspace.open(world).latest())), Truth(source / "truth.json"))


def digests_of(world: Path) -> dict[str, str]:
    return {record.image.path: record.image.sha256 for record in read_records(Workspace.open(world).latest())}


def filled(world: Path, base: Path, images: list[str]) -> Embeddings:
    embeddings = Embeddings(world / "embeddings", digests_of(world))
    embeddings.fill(load_pasam(base, fresh=True)[0], images, world, device="cpu", mine=slice(None), quiet=True)
    return embeddings


def examples(source: Path, world: Path, base: Path, prompts: str, batch: int = 4, steps: int = 9) -> WholeExamples:
    objects = known_of(source, world).objects
    embeddings = filled(world, base, [item.image for item in objects])
    return WholeExamples(TrueExamples(world, objects, Boxes(None, 0.2), 0, 0, steps, batch, SIDE), embeddings, SIDE, prompts)


def test_every_image_is_encoded_once_and_again_only_where_its_file_is_gone(source: Path, world: Path, base: Path) -> None:
    images = sorted({item.image for item in known_of(source, world).objects})
    model, _ = load_pasam(base, fresh=True)
    seen: list[int] = []
    model.image_encoder.register_forward_hook(lambda *_: seen.append(1))
    embeddings = Embeddings(world / "embeddings", digests_of(world))
    for part in (slice(0, None, 2), slice(1, None, 2), slice(None)):
        embeddings.fill(model, images * 3, world, device="cpu", mine=part, quiet=True)
    assert len(seen) == len(images)
    embeddings.path(images[0]).unlink()
    embeddings.fill(model, images, world, device="cpu", mine=slice(None), quiet=True)
    assert len(seen) == len(images) + 1
    with open(world / images[0], "rb") as file:
        expected = model.image_encoder(normalised(read_raster(file, images[0]).pixels, SIDE, "cpu")[0])[0]
    assert torch.allclose(embeddings[images[0]]["embedding"].float(), expected, atol=2e-3, rtol=2e-3)


def test_a_damaged_embedding_is_encoded_anew_and_one_damaged_later_is_named(source: Path, world: Path, base: Path) -> None:
    images = sorted({item.image for item in known_of(source, world).objects})[:3]
    model, _ = load_pasam(base, fresh=True)
    embeddings = filled(world, base, images)
    whole = {image: embeddings.path(image).read_bytes() for image in images}
    damages = (whole[images[0]][:-7], b"", save({"embedding": torch.zeros(256, 2, 2).half()}))
    for image, damaged in zip(images, damages, strict=True):
        embeddings.path(image).write_bytes(damaged)
    with pytest.raises(InputError, match=r"safetensors: is damaged .*encodes its image anew"):
        embeddings[images[0]]
    embeddings.fill(model, images, world, device="cpu", mine=slice(None), quiet=True)
    assert {image: embeddings.path(image).read_bytes() for image in images} == whole
    embeddings.path(images[0]).unlink()
    with pytest.raises(InputError, match=r"safetensors: is gone"):
        embeddings[images[0]]


def test_other_pixels_under_the_same_name_are_encoded_anew(source: Path, world: Path, base: Path) -> None:
    image = known_of(source, world).objects[0].image
    before = filled(world, base, [image])[image]["embedding"]
    (world / image).write_bytes(encode_png(picture(7, 200, 200)))
    changed = {**digests_of(world), image: sha256_of_file(world / image)}
    other = Embeddings(world / "embeddings", changed)
    other.fill(load_pasam(base, fresh=True)[0], [image], world, device="cpu", mine=slice(None), quiet=True)
    assert not torch.allclose(other[image]["embedding"], before)


def test_a_disk_too_small_for_the_embeddings_is_said_before_any_is_made(
    source: Path, world: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted({item.image for item in known_of(source, world).objects})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(MissingRequirementError, match=f"{len(images)} embeddings need .* GB, 0.0 GB are free; make room"):
        filled(world, base, images)
    assert not list((world / "embeddings").iterdir())


def test_the_official_mix_draws_boxes_points_and_masks_as_often_as_published(source: Path, world: Path, base: Path) -> None:
    made = examples(source, world, base, "official")
    cells = (SIDE // 4) ** 2
    objects = [item for item in made.drawn.objects if item.mask.mean() * cells >= 4][:4]
    kinds = Counter(made._kind(np.random.default_rng(seed), objects) for seed in range(2100))
    for kind, expected in (("box", 4 / 7), ("points", 2 / 7), ("mask", 1 / 7)):
        assert kinds[kind] / 2100 == pytest.approx(expected, abs=0.04)
    # an object smaller than four cells of a mask prompt would be no prompt at all: its batch gets boxes instead
    tiny = [replace(objects[0], counts=encode_rle(np.pad(np.ones((3, 4), bool), ((0, 508), (0, 508))))[1], size=(511, 512))]
    kinds = Counter(made._kind(np.random.default_rng(seed), tiny) for seed in range(500))
    assert set(kinds) == {"box", "points"}


def test_every_kind_of_prompt_is_what_it_says_and_can_be_learnt_from(source: Path, world: Path, base: Path) -> None:
    made, found = examples(source, world, base, "official", steps=40), {}
    cells = (SIDE // 4) ** 2
    made.drawn.objects = tuple(item for item in made.drawn.objects if item.mask.mean() * cells >= 4)
    for index in range(40):
        batch = made.make(index)
        kind = "box" if batch.boxes.shape[1] else "points" if batch.points.shape[1] else "mask"
        found.setdefault(kind, batch)
    assert found.keys() == {"box", "points", "mask"}
    rows, columns = (found["points"].points[..., axis].long().clamp(0, SIDE - 1) for axis in (1, 0))
    on_object = torch.stack([found["points"].cover[k][rows[k], columns[k]] for k in range(4)])
    assert (on_object > 0).float().mean() > 0.9
    assert set(found["mask"].masks.unique().tolist()) == {0.0, 255.0}
    assert (found["mask"].masks.flatten(1).amax(dim=1) == 255).all()
    run = Training(load_pasam(base, fresh=True)[0], SHORT, "cpu")
    for batch in found.values():
        assert np.isfinite(run.step(0, batch).parts()["total"])


def test_the_noisy_mask_is_the_true_one_but_for_its_outline() -> None:
    mask = np.zeros((200, 200), bool)
    mask[40:160, 50:150] = True
    noisy = noisy_mask(np.random.default_rng(0), mask, 64) > 0
    assert noisy[20:44, 24:40].all()
    assert not noisy[:2].any()
    assert 0.02 < np.mean(noisy != noisy_mask(np.random.default_rng(1), mask, 64).astype(bool)) < 0.3


def test_a_training_starts_at_its_base_and_learns(source: Path, world: Path, base: Path) -> None:
    made = examples(source, world, base, "box")
    run = Training(load_pasam(base, fresh=True)[0], AdapterRecipe(steps=60, batch=4, warm_up=2, learning_rate=2e-3), "cpu")
    assert len(run.names) == 63
    assert not any(name.startswith("image_encoder") for name in run.names)
    batch = made.make(0)
    with torch.inference_mode():
        start, plain = run.objective._run(batch, None, points_active=False).masks, run.objective._run(batch, None, adapter=False).masks
    assert torch.allclose(start, plain, atol=1e-5)
    totals = [float(run.step(step, batch).total) for step in range(40)]
    assert totals[-1] < 0.8 * totals[0]
    frozen = load_pasam(base, fresh=True)[0].mask_decoder.transformer.state_dict()
    for name, value in run.model.mask_decoder.transformer.state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_points_of_its_own_come_from_the_epoch_asked_for(source: Path, world: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = examples(source, world, base, "box")
    run = Training(load_pasam(base, fresh=True)[0], AdapterRecipe(steps=9, batch=4, points_from=2), "cpu", objects=8)
    inner, said = run.objective.forward, []

    def listens(batch: WholeBatch, gumbel: Any, points: bool) -> Any:
        said.append(points)
        return inner(batch, gumbel, points)

    monkeypatch.setattr(run.objective, "forward", listens)
    for number in range(6):
        run.step(number, made.make(0))
    assert said == [False, False, False, False, True, True]


def logits_of(engine: Engine, pixels: Any, prompt: Prompt) -> Any:
    """Return an engine's logits (height, width) for one prompt on an image."""
    engine.load(pixels)
    return engine.segment([prompt])[0].values


def test_an_adapter_on_a_sam_is_trained_used_and_resumed_and_refuses_another_base(
    source: Path, world: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 2)
    looks = iter(range(100))
    # four steps of a random model may do harm; what happens when they help is asked here
    monkeypatch.setattr(loop, "validated", lambda *_: {"mean_iou": 0.5 + 0.01 * next(looks), "boundary_iou": 0.5})
    options: dict[str, Any] = {"workspace": world, "truth": source / "truth.json", "base": base, "recipe": SHORT, "quiet": True}
    inner = Training.step

    def dies(self: Training, number: int, batch: Any) -> Any:
        if number == 3:
            raise KeyboardInterrupt
        return inner(self, number, batch)

    monkeypatch.setattr(Training, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(**options)
    monkeypatch.setattr(Training, "step", inner)
    made = train_adapter(**options)
    folder = world / "adapters" / made["adapter"]
    names = {"adapter.safetensors", "base.pth", "settings.json", "card.md", "before_after.png", "tensorboard"}
    assert {path.name for path in folder.iterdir()} == names
    assert len(list((world / "adapters" / "embeddings").glob("*/*.safetensors"))) == made["known"]["images"]
    assert not (world / "adapters" / "training").exists()
    header, tensors = read_adapter(folder / "adapter.safetensors")
    assert header.whole
    assert len(tensors) == 63
    assert train_adapter(**options)["state"] == "up to date"
    whole = tmp_path / "again"
    ingest(source, workspace=whole, name="world")
    looks = iter(range(100))
    assert train_adapter(**{**options, "workspace": whole})["adapter"] == made["adapter"]
    found = {}
    # untidied: whether a fragment just above or below the share that is dropped stays would hang on the processor
    raw = CleanRules(min_fragment=0, max_hole=0, max_outside=-1)
    for number, precision in enumerate(("fp32", "bf16"), 1):
        result = refine_masks(workspace=world, precision=precision, max_reprompts=0, rules=raw, quiet=True)
        assert (result["options"]["engine"], result["options"]["precision"]) == ("pasam", precision)
        found[precision] = {
            record.id: mask_of(record.mask) for record in read_records(world / "2-refine" / f"round-{number}") if record.mask
        }
    masks = [record.mask for record in read_records(world / "2-refine" / "round-1") if record.mask]
    assert {"uncertainty", "plain_agreement", "prompted_again"} <= set(masks[0].scores)
    assert len(found["fp32"]) == len(found["bf16"]) >= 5
    pairs = [(mask, found["bf16"][key]) for key, mask in found["fp32"].items()]
    common, either = (sum(int(np.count_nonzero(join(*pair))) for pair in pairs) for join in (np.logical_and, np.logical_or))
    assert common >= 0.99 * either, "all masks together, the smallest too"
    alike = [mask_iou(mask, found["bf16"][key]) for key, mask in found["fp32"].items() if np.count_nonzero(mask) >= 20]
    assert len(alike) >= 5
    assert np.mean(alike) >= 0.99
    # one mask of a random model, whose logits may lie near 0 for long stretches, may differ by more; its logits do not
    first = next(iter(read_records(world / "1-ingest")))
    with open(world / first.image.path, "rb") as file:
        pixels = read_raster(file, first.image.path).pixels
    prompt = Prompt(first.targets[0].box, first.targets[0].oriented_box, first.category.name)
    exact, rounded = (logits_of(pasam_engine(folder / "adapter.safetensors", "cpu", 0, precision), pixels, prompt) for precision in found)
    assert np.abs(exact - rounded).max() <= 0.05 * exact.std()
    noted = json.loads((folder / "settings.json").read_text())
    assert noted["recipe"]["encoder"] is False
    with pytest.raises(InputError, match="belongs to the base"):
        load_whole_adapted(folder / "adapter.safetensors", write_sam(tmp_path / "other.pth", seed=4))


def test_the_plain_side_of_an_adapter_is_its_base(base: Path) -> None:
    model, _ = load_pasam(base, fresh=True)
    WholeObjective(model)
    with torch.no_grad():
        model.mask_decoder.mask_tokens.weight.add_(0.5)
    own, _ = load_pasam(base, fresh=True)
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    asked, found = [SamPrompt((10.0, 10.0, 60.0, 50.0))], []
    for each in (model, own):
        predictor = PasamPredictor(each, adapter=False)
        predictor.load(pixels)
        found.append(predictor.predict(asked).logits)
    assert np.allclose(found[0], found[1], atol=1e-4)


def test_options_that_do_not_go_together_are_refused(source: Path, world: Path, base: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"workspace": world, "truth": source / "truth.json", "quiet": True}
    with pytest.raises(OptionError, match="--encoder: the encoder of a SAM of whole images stays"):
        train_adapter(**options, base=base, recipe=AdapterRecipe(steps=2, batch=2, encoder=True))
    with pytest.raises(OptionError, match="--prompts official: a compact SAM is always prompted with a box"):
        train_adapter(**options, recipe=SHORT)
    with pytest.raises(OptionError, match="--prompts points: must be one of box, official"):
        train_adapter(**options, recipe=AdapterRecipe(prompts="points"))
    with pytest.raises(InputError, match=r"^--base .*gone.pth: there is no such file"):
        train_adapter(**options, base=tmp_path / "gone.pth", recipe=AdapterRecipe(steps=2, batch=2))


def test_a_run_of_other_options_is_refused_before_anything_is_encoded(
    source: Path, world: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = world / "adapters" / "training"
    training.mkdir(parents=True)
    torch.save({"plan": "another"}, training / "last.pt")
    monkeypatch.setattr(Embeddings, "fill", lambda *_, **__: pytest.fail("it was encoded"))
    with pytest.raises(InputError, match="holds a run with other options"):
        train_adapter(workspace=world, truth=source / "truth.json", base=base, recipe=SHORT, quiet=True)


def test_the_look_before_is_at_the_base_itself_and_a_merged_file_goes_on_from_what_it_has_learnt(
    source: Path, world: Path, base: Path, tmp_path: Path
) -> None:
    made = examples(source, world, base, "box")
    model, _ = load_pasam(base, fresh=True)
    objective, batch = WholeObjective(model), made.make(0)
    with torch.inference_mode():
        off, on = (objective.logits(batch, adapter) for adapter in (False, True))
        plain = model.mask_decoder
        sparse, dense = model.prompt_encoder(points=None, boxes=batch.boxes[:, 0], masks=None)
        position = model.prompt_encoder.get_dense_pe()
        expected = plain.decode(batch.embeddings.float(), position, sparse, dense, torch.arange(len(batch))).masks[:, :1]
    expected = torch.nn.functional.interpolate(expected, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(off, expected, atol=1e-5)
    assert not torch.allclose(on, off, atol=1e-5)  # points are appended from the start on
    learnt = load_pasam(base, fresh=True)[0].state_dict()
    merged = {key: value for key, value in learnt.items() if not key.startswith("plain_decoder.")}
    torch.save(merged, tmp_path / "merged.pth")
    again, _ = load_pasam(tmp_path / "merged.pth", fresh=True)
    assert not again.is_new
    assert again.mask_decoder.edge_source == "official"
    tensors = WholeObjective(again).model.state_dict()
    for name in ("guiding_conv.6.weight", "prompt_adapter.refined_mlp.layers.2.weight"):
        assert torch.equal(tensors[f"mask_decoder.{name}"], learnt[f"mask_decoder.{name}"]), name


def test_two_processes_under_torchrun_store_one_adapter(source: Path, world: Path, base: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["train-adapter", "-w", world, "--truth", source / "truth.json", "--base", base, "--steps", "3", "--batch", "4"]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "risbench", *map(str, words)],
            env={**os.environ, **together, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [member.communicate(timeout=240) for member in members]
    assert [member.returncode for member in members] == [0, 0], said
    stored = [path for path in (world / "adapters").iterdir() if len(path.name) == 12]
    assert len(stored) == 1
    assert stored[0].name in said[0][0]
    assert said[1][0] == ""
    assert not (world / "adapters" / "training").exists()
