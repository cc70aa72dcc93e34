"""Adapters: what they learn from, how they are trained, stored and used. The base is a tiny compact SAM with random weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the sam extra is not installed")

from risbench.adapt import train_adapter as loop  # noqa: E402
from risbench.adapt.adapter_data import Boxes, Images, TrueExamples, digests_of, from_records, from_truth, split_by_scene  # noqa: E402
from risbench.adapt.box_noise import BoxNoise, Pair, distorted  # noqa: E402
from risbench.adapt.builtin_data import Batch  # noqa: E402
from risbench.adapt.run import train_adapter  # noqa: E402
from risbench.adapt.train_adapter import AdapterRecipe, Training  # noqa: E402
from risbench.core.errors import InputError, MissingRequirementError, OptionError  # noqa: E402
from risbench.core.geometry import box_iou  # noqa: E402
from risbench.core.workspace import Workspace, read_records  # noqa: E402
from risbench.formats.truth import Truth  # noqa: E402
from risbench.ingest import ingest  # noqa: E402
from risbench.learn.schedule import learning_rate_at  # noqa: E402
from risbench.refine import refine_masks  # noqa: E402
from risbench.refine.engines.base import Prompt, Segmentation  # noqa: E402
from risbench.refine.sam_engine import contradicted, pasam_engine  # noqa: E402
from risbench.sam.adapter_file import TRAINED, adapted_from, load_adapted, read_adapter, save_adapter  # noqa: E402
from risbench.sam.compact.model import CompactSam, CompactSettings  # noqa: E402
from risbench.sam.compact.weights import load_compact, save_compact  # noqa: E402
from risbench.scenes.source import write_source  # noqa: E402

TINY = CompactSettings(side_px=64, stem=(8, 8, 16), stem_depth=(1, 1, 1), width=32, depth=1, heads=2, prompt_width=32)
SHORT = AdapterRecipe(steps=4, batch=4, warm_up=2)


def tiny() -> CompactSam:
    torch.manual_seed(0)
    return CompactSam(TINY).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny.safetensors"
    torch.manual_seed(0)
    # random logits lie about 0: with this threshold every mask holds something
    save_compact(CompactSam(replace(TINY, threshold=-2.0)), path, {})
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, seed=5, scenes=8)
    return folder


@pytest.fixture
def world(source: Path, tmp_path: Path) -> Path:
    ingest(source, workspace=tmp_path / "w", name="world")
    return tmp_path / "w"


def known(source: Path, world: Path):  # type: ignore[no-untyped-def]
    opened = Workspace.open(world)
    return from_truth(list(read_records(opened.latest())), Truth(source / "truth.json"))


def batch_for(source: Path, world: Path, index: int = 0, **share: int) -> Batch:
    examples = TrueExamples(world, known(source, world).objects, Boxes(None, 0.2), 0, 0, 9, 4, 64)
    for name, value in share.items():
        setattr(examples, name, value)
    return examples.make(index, Images(world, digests_of(examples.objects)))


# -- what there is to learn from


def test_every_object_of_the_truth_is_learnt_from_and_boxes_are_compared_with_their_own(source: Path, world: Path) -> None:
    found = known(source, world)
    annotations = json.loads((source / "truth.json").read_text())["annotations"]
    names = {Path(record.image.source_path).stem for record in read_records(Workspace.open(world).latest())}
    assert len(found.objects) > 20
    assert len(found.objects) + sum(found.left_out[code] for code in ("too_small_or_outside",)) <= len(annotations)
    assert {Path(item.image).stem.split("-")[0] for item in found.objects} <= names
    assert {item.scene for item in found.objects} <= {record.image.scene for record in read_records(Workspace.open(world).latest())}
    assert len(found.pairs) > 20
    assert np.mean([box_iou(pair.used, pair.true) for pair in found.pairs]) > 0.6
    item = found.objects[0]
    assert item.mask.shape == item.size
    assert item.mask.sum() > 0


def test_truth_of_other_images_is_refused_with_what_to_compare(world: Path, tmp_path: Path) -> None:
    coco = {"images": [{"id": 1, "file_name": "other.png"}], "categories": [{"id": 1, "name": "ship"}], "annotations": []}
    coco["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1, 9, 9]]}]
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(InputError, match="none of its 1 annotations lies in an image of the workspace; compare file names"):
        train_adapter(workspace=world, truth=tmp_path / "coco.json", recipe=SHORT, quiet=True)


def test_only_verified_masks_are_true(world: Path, source: Path, base: Path) -> None:
    refine_masks(workspace=world, engine="box", quiet=True)
    made = list(read_records(Workspace.open(world).latest()))
    assert len(from_records(made).objects) == 0
    assert from_records(made).left_out["not_verified"] == len(made)
    accepted = [one.model_copy(update={"review": one.review.model_copy(update={"status": "accepted"})}) for one in made]
    assert len(from_records(accepted).objects) > 10
    with pytest.raises(InputError, match="0 true masks, an adapter needs 8"):
        train_adapter(workspace=world, recipe=SHORT, base=base, quiet=True)


def test_no_scene_is_learnt_from_and_chosen_by(source: Path, world: Path) -> None:
    learn, check = split_by_scene(known(source, world).objects, share=0.4)
    assert learn
    assert check
    assert not {item.scene for item in learn} & {item.scene for item in check}


# -- boxes


def test_drawn_boxes_err_as_the_measured_ones_do_by_size_and_tier() -> None:
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(300):
        side = float(random.choice([20, 200]))
        left = float(random.uniform(0, 100))
        # small objects lose a fifth of their width on the right, large ones nothing
        short = 0.2 * side if side == 20 else 0.0
        pairs.append(Pair((left, 10, left + side - short, 10 + side), (left, 10, left + side, 10 + side), "token"))
    noise = BoxNoise(pairs)
    small, large = (noise.draw(random, (50.0, 50.0, 50.0 + side, 50.0 + side)) for side in (22.0, 190.0))
    assert small[2] == pytest.approx(50 + 0.8 * 22)
    assert large[2] == pytest.approx(240.0)
    assert noise.summary()["token"]["boxes"] == 300


def test_too_few_pairs_are_not_called_a_measurement() -> None:
    with pytest.raises(ValueError, match="29 boxes can be compared"):
        BoxNoise([Pair((0, 0, 1, 1), (0, 0, 1, 1), "token")] * 29)


def test_gross_boxes_are_as_gross_as_they_say() -> None:
    random = np.random.default_rng(0)
    drawn = [distorted(random, (100.0, 100.0, 200.0, 160.0)) for _ in range(400)]
    wide = np.array([box[2] - box[0] for box in drawn]) / 100
    moved = np.array([(box[0] + box[2]) / 2 - 150 for box in drawn]) / 100
    assert 0.5 < np.quantile(wide, 0.02) < 0.66
    assert 1.4 < np.quantile(wide, 0.98) < 1.75
    assert np.abs(moved).max() <= 0.2501


# -- training


def test_an_adapter_starts_from_the_bases_own_masks(source: Path, world: Path) -> None:
    model = tiny()
    adapted = adapted_from(model).eval()
    batch = batch_for(source, world)
    with torch.no_grad():
        plain = model.run(batch.crops.float(), batch.boxes, batch.prompts).masks
        off = adapted.run(batch.crops.float(), batch.boxes, batch.prompts, adapter=False).masks
    torch.testing.assert_close(plain, off)
    guiding = adapted.mask_decoder.guiding_conv
    assert guiding is not None
    assert not guiding[6].weight.any()
    adapter = adapted.mask_decoder.prompt_adapter
    assert adapter is not None
    with torch.no_grad():
        random = torch.randn(2, 5, 32)
        cells, codes, place = torch.randn(2, 64, 32), torch.randn(2, 5, 32), torch.randn(1, 64, 32)
        added = adapter(random, cells, codes, place, torch.zeros(2, 64, 32), torch.randn(2, 32), (8, 8), points_active=False)
    assert not added.tokens.any()
    assert not added.keys.any()


def test_a_batch_is_a_function_of_its_number_and_is_shared_out_whole(source: Path, world: Path) -> None:
    whole, again = batch_for(source, world, 3), batch_for(source, world, 3)
    assert torch.equal(whole.crops, again.crops)
    halves = [batch_for(source, world, 3, rank=rank, ranks=2) for rank in (0, 1)]
    assert torch.equal(whole.crops[0::2], halves[0].crops)
    assert torch.equal(whole.cover[1::2], halves[1].cover)
    assert not torch.equal(whole.crops, batch_for(source, world, 4).crops)


def test_training_lowers_the_loss_and_leaves_frozen_tensors_alone(source: Path, world: Path) -> None:
    model = tiny()
    run = Training(model, AdapterRecipe(steps=40, batch=4, warm_up=2, learning_rate=3e-3, encoder=False), "cpu")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    batch = batch_for(source, world)
    totals = [float(run.step(step, batch).total) for step in range(30)]
    assert np.mean(totals[-5:]) < 0.8 * totals[0]
    after = run.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in run.names if name in changed}
    assert "mask_decoder.prompt_adapter.static_refined_token.weight" in changed
    assert not any(name.startswith("image_encoder.") or "num_batches" in name or "running" in name for name in changed)


def test_a_batch_in_pieces_gives_the_gradients_of_the_whole(source: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, grown = batch_for(source, world), []
    for pieces in (1, 4):
        run = Training(tiny(), SHORT, "cpu")
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.enable_grad())  # full precision: pieces then agree to rounding
        run.pieces = pieces
        run.gradients(0, batch)
        grown.append({name: value.grad.clone() for name, value in run.model.named_parameters() if value.grad is not None})
    for name, gradient in grown[0].items():
        torch.testing.assert_close(gradient, grown[1][name], rtol=1e-3, atol=1e-5)


def test_out_of_memory_halves_the_batch_until_it_fits(source: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, batch = Training(tiny(), SHORT, "cpu"), batch_for(source, world)
    inner, sizes = run.objective.forward, []

    def narrow(piece: Batch, gumbel: object, points: bool) -> object:
        sizes.append(len(piece.crops))
        if len(piece.crops) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return inner(piece, gumbel, points)  # type: ignore[arg-type]

    monkeypatch.setattr(run.objective, "forward", narrow)
    assert np.isfinite(float(run.step(0, batch).total))
    assert sizes == [4, 2, 1, 1, 1, 1]
    monkeypatch.setattr(run.objective, "forward", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("CUDA out of memory. x")))
    with pytest.raises(MissingRequirementError, match="^CUDA out of memory; free the device"):
        run.step(1, batch)


def test_a_loss_that_is_no_number_stops_with_all_its_parts(source: Path, world: Path) -> None:
    run, batch = Training(tiny(), SHORT, "cpu"), batch_for(source, world)
    with torch.no_grad():
        run.model.mask_decoder.mask_tokens.weight.fill_(float("nan"))
    with pytest.raises(
        MissingRequirementError, match=r"step 7: the loss is not finite: \{'mask': nan, .*'total': nan\}; lower --learning-rate"
    ):
        run.step(7, batch)


def test_the_rate_warms_up_and_falls_to_a_hundredth() -> None:
    recipe = AdapterRecipe(steps=100, warm_up=10)
    rates = [learning_rate_at(step, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(recipe.learning_rate / 10)
    assert max(rates) == rates[10] == pytest.approx(recipe.learning_rate)
    assert rates[100] == pytest.approx(0.01 * recipe.learning_rate)


TWO = """
import os, sys, torch
sys.path.insert(0, {root!r})
torch.manual_seed(0); torch.set_num_threads(1)
from torch import distributed
from tests.adapt.test_adapter import SHORT, batch_for, tiny
from risbench.adapt.train_adapter import Training
from pathlib import Path
torch.autocast = lambda *_, **__: torch.enable_grad()
run = Training(tiny(), SHORT, "cpu")
batch = batch_for(Path({source!r}), Path({world!r}), 0, rank=run.rank, ranks=run.ranks)
run.gradients(0, batch)
if run.rank == 0:
    torch.save({{n: v.grad for n, v in run.model.named_parameters() if v.grad is not None}}, {out!r})
if run.ranks > 1:
    distributed.destroy_process_group()
"""


def test_two_processes_give_the_gradients_of_one(source: Path, world: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = {}
    for count in (1, 2):
        out = tmp_path / f"{count}.pt"
        code = TWO.format(root=str(Path(__file__).parents[2]), source=str(source), world=str(world), out=str(out))
        apart = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
        members = [subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **apart, "RANK": str(rank)}) for rank in range(count)]
        assert [member.wait(timeout=240) for member in members] == [0] * count
        found[count] = torch.load(out, weights_only=True)
    assert found[1].keys() == found[2].keys()
    assert len(found[1]) > 60
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, found[2][name], rtol=1e-3, atol=1e-5)


# -- the whole of it


def test_an_adapter_is_trained_stored_named_and_used_and_the_same_call_trains_nothing(
    world: Path, source: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter((0.5, 0.6, 0.7))  # four steps of a random model may do harm; what happens when they help is asked here
    monkeypatch.setattr(loop, "validated", lambda *_: {"mean_iou": next(scores), "boundary_iou": 0.5})
    made = train_adapter(workspace=world, truth=source / "truth.json", recipe=SHORT, base=base, quiet=True)
    folder = world / "adapters" / made["adapter"]
    assert made["state"] == "done"
    assert Workspace.open(world).settings.adapter == made["adapter"]
    assert {path.name for path in folder.iterdir()} == {
        "adapter.safetensors",
        "base.safetensors",
        "settings.json",
        "card.md",
        "before_after.png",
        "tensorboard",
    }
    assert list((folder / "tensorboard").glob("events.*"))
    assert not (world / "adapters" / "training").exists()
    header, tensors = read_adapter(folder / "adapter.safetensors")
    assert header.base_sha256 == load_compact(base)[1]
    assert not any(name.startswith(("mask_decoder.transformer.", "mask_decoder.iou")) for name in tensors)
    again = train_adapter(workspace=world, truth=source / "truth.json", recipe=SHORT, base=base, quiet=True)
    assert again["state"] == "up to date"
    assert again["adapter"] == made["adapter"]
    result = refine_masks(workspace=world, quiet=True)
    assert result["options"]["engine"] == "pasam"
    masks = [record.mask for record in read_records(world / "2-refine" / "round-1") if record.mask]
    assert masks
    assert {mask.engine for mask in masks} == {"pasam"}
    assert {mask.weights_sha256[:12] for mask in masks if mask.weights_sha256} == {made["adapter"]}
    assert {"uncertainty", "plain_agreement", "prompted_again"} <= set(masks[0].scores)


def test_a_killed_training_goes_on_to_the_same_adapter(world: Path, source: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = AdapterRecipe(steps=6, batch=4, warm_up=2)
    options = {"workspace": world, "truth": source / "truth.json", "base": base, "quiet": True}
    inner, calls = Training.step, []

    def dies(self: Training, number: int, batch: Batch) -> object:
        calls.append(number)
        if number == 4:
            raise KeyboardInterrupt
        return inner(self, number, batch)

    monkeypatch.setattr(loop, "LOOK_EVERY", 2)
    monkeypatch.setattr(Training, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(recipe=recipe, **options)  # type: ignore[arg-type]
    assert calls == [0, 1, 2, 3, 4]
    calls.clear()

    def counted(self: Training, number: int, batch: Batch) -> object:
        calls.append(number)
        return inner(self, number, batch)

    monkeypatch.setattr(Training, "step", counted)
    resumed = train_adapter(recipe=recipe, **options)  # type: ignore[arg-type]
    assert calls == [4, 5]
    (world / "adapters" / resumed["adapter"] / "settings.json").unlink()
    whole = train_adapter(recipe=recipe, **options)  # type: ignore[arg-type]
    assert whole["adapter"] == resumed["adapter"]
    assert whole["looks"] == resumed["looks"]


def test_a_run_with_other_options_is_not_gone_on_with(world: Path, source: Path, base: Path) -> None:
    folder = world / "adapters" / "training"
    folder.mkdir(parents=True)
    torch.save({"plan": "of another run", "step": 1, "looks": [], "best": None}, folder / "last.pt")
    with pytest.raises(InputError, match="holds a run with other options or other truth"):
        train_adapter(workspace=world, truth=source / "truth.json", recipe=SHORT, base=base, quiet=True)
    (folder / "last.pt").write_bytes(b"torn")
    with pytest.raises(InputError, match="not a whole checkpoint"):
        train_adapter(workspace=world, truth=source / "truth.json", recipe=SHORT, base=base, quiet=True)


def test_an_adapter_of_another_base_is_refused_by_both_names(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, {}, "f" * 64, {})
    with pytest.raises(InputError, match=r"belongs to the base ffffffffffff, not to the built-in model [0-9a-f]{12}"):
        load_adapted(path)
    save_adapter(path, {}, load_compact(base)[1], {})
    with pytest.raises(InputError, match=r"lacks mask_decoder\.guiding_conv.* and \d+ more tensors"):
        load_adapted(path, base=base)
    save_adapter(path, {"mask_decoder.mask_tokens.weight": torch.zeros(3, 3)}, load_compact(base)[1], {})
    with pytest.raises(InputError, match=r"holds mask_decoder.mask_tokens.weight \(3, 3\)"):
        load_adapted(path, base=base)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_adapted(path, base=base)
    save_compact(tiny(), path, {})
    with pytest.raises(InputError, match="format is 'risbench compact SAM 1', not 'risbench PA adapter 1'"):
        load_adapted(path, base=base)


def test_images_that_are_gone_options_out_of_bounds_and_no_cuda_are_one_clear_line(world: Path, source: Path, base: Path) -> None:
    options = {"workspace": world, "truth": source / "truth.json", "base": base, "quiet": True}
    for changed, said in (({"steps": 0}, "--steps 0"), ({"learning_rate": 2.0}, "--learning-rate 2.0")):
        with pytest.raises(OptionError, match=said):
            train_adapter(recipe=AdapterRecipe(**changed), **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--box-noise some: must be one of measured, none"):
        train_adapter(recipe=SHORT, box_noise="some", **options)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(MissingRequirementError, match="finds no CUDA device"):
            train_adapter(recipe=SHORT, gpu=True, **options)  # type: ignore[arg-type]
    learnt = world / split_by_scene(known(source, world).objects)[0][0].image
    whole = learnt.read_bytes()
    learnt.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="is not the image that was ingested"):
        train_adapter(recipe=SHORT, **options)  # type: ignore[arg-type]
    learnt.unlink()
    with pytest.raises(InputError, match="is gone; run ingest again"):
        train_adapter(recipe=SHORT, **options)  # type: ignore[arg-type]


def test_the_settings_file_keeps_what_people_wrote(world: Path) -> None:
    path = world / "risbench.toml"
    path.write_bytes(b'name = "world"\r\n  adapter = ""  # the current one\r\nseed = 3\r\n')
    Workspace.open(world).set_adapter("a" * 12)
    assert path.read_bytes() == b'name = "world"\r\n  adapter = "aaaaaaaaaaaa"  # the current one\r\nseed = 3\r\n'
    path.write_bytes(b'name = "world"\n')
    Workspace.open(world).set_adapter("b" * 12)
    assert path.read_bytes() == b'name = "world"\nadapter = "bbbbbbbbbbbb"\n'


def test_a_training_that_does_not_help_is_stored_and_not_used(
    world: Path, source: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter((0.7, 0.6, 0.5))
    monkeypatch.setattr(loop, "validated", lambda *_: {"mean_iou": next(scores), "boundary_iou": 0.5})
    made = train_adapter(workspace=world, truth=source / "truth.json", recipe=SHORT, base=base, quiet=True)
    assert (world / "adapters" / made["adapter"]).is_dir()
    assert Workspace.open(world).settings.adapter == ""
    assert any("no better than its base" in line for line in made["said"])
    again = train_adapter(workspace=world, truth=source / "truth.json", recipe=SHORT, base=base, quiet=True)
    assert again["state"] == "up to date"
    assert again["said"] == made["said"]
    assert Workspace.open(world).settings.adapter == ""


def test_annotations_without_an_id_of_their_own_are_refused(tmp_path: Path) -> None:
    for items, said in (([{"bbox": [0, 0, 1, 1]}], "has no id"), ([{"id": 1}, {"id": 1}], "id 1 is used before"), ([3], "has no id")):
        (tmp_path / "t.json").write_text(json.dumps({"images": [], "categories": [], "annotations": items}))
        with pytest.raises(InputError, match=said):
            Truth(tmp_path / "t.json")


def test_torchruns_words_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ({"RANK": "x"}, {"WORLD_SIZE": "0"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "2"}):
        with monkeypatch.context() as patched:
            patched.delenv("MASTER_ADDR", raising=False)
            for name, value in words.items():
                patched.setenv(name, value)
            with pytest.raises(OptionError, match="as torchrun sets them"):
                loop.ranks()


def test_an_adapter_that_the_settings_name_and_is_not_there_is_said(world: Path) -> None:
    Workspace.open(world).set_adapter("0" * 12)
    assert Workspace.open(world).settings.adapter == "0" * 12
    with pytest.raises(InputError, match='adapter = "000000000000": .* is not there; train one'):
        refine_masks(workspace=world, quiet=True)
    Workspace.open(world).set_adapter("")
    with pytest.raises(OptionError, match="the workspace has no adapter"):
        refine_masks(workspace=world, engine="pasam", quiet=True)


# -- prompting again


def test_a_box_that_its_mask_contradicts_is_replaced_by_the_masks_own() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:30, 10:40] = True
    assert contradicted(Prompt((10.0, 10.0, 40.0, 30.0), None, "ship"), Segmentation(mask)) is None
    again = contradicted(Prompt((0.0, 0.0, 20.0, 20.0), None, "ship"), Segmentation(mask))
    assert again is not None
    assert again.box == (10.0, 10.0, 40.0, 30.0)
    assert contradicted(Prompt((0.0, 0.0, 20.0, 20.0), None, "ship"), Segmentation(np.zeros((60, 60), bool))) is None


def test_prompting_again_ends_and_is_counted(tmp_path: Path) -> None:
    """A model whose masks fill the whole crop contradicts every box, for ever."""
    torch.manual_seed(0)
    save_compact(CompactSam(replace(TINY, threshold=-50.0)), tmp_path / "base.safetensors", {})
    plain, digest = load_compact(tmp_path / "base.safetensors")
    tensors = {name: value for name, value in adapted_from(plain).named_parameters() if name.startswith(TRAINED[:2])}
    save_adapter(tmp_path / "adapter.safetensors", tensors, digest, {})
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    found = {}
    for again in (0, 2):
        engine = pasam_engine(tmp_path / "adapter.safetensors", "cpu", again)
        engine.load(pixels)
        found[again] = engine.segment([Prompt((140.0, 140.0, 160.0, 160.0), None, "ship")])[0]
    assert found[0].scores["prompted_again"] == 0
    assert found[2].scores["prompted_again"] == 2
    assert found[0].box is None
    assert found[2].box is not None
    assert found[2].box[2] - found[2].box[0] > 40
    assert (found[2].values > 0).sum() > 4 * (found[0].values > 0).sum()
    assert found[0].scores["plain_agreement"] == 1
    assert 0 <= found[0].scores["uncertainty"] <= 1
    first, inner = found[0], engine._adapted.segment
    answers = iter((lambda asked: inner(asked), lambda asked: [Segmentation(np.zeros((300, 300), bool)) for _ in asked]))
    engine._adapted.segment = lambda asked: next(answers)(asked)  # type: ignore[method-assign]
    kept = engine.segment([Prompt((140.0, 140.0, 160.0, 160.0), None, "ship")])[0]
    # a mask is not given up for none
    assert np.array_equal(kept.values > 0, first.values > 0)
    assert (kept.box, kept.scores["prompted_again"]) == (None, 0)
