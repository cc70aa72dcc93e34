"""`risbench train-adapter`: what a workspace knows to be true becomes the adapter that its next round of masks uses."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from risbench.adapt.adapter_data import Boxes, Known, TrueObject, check_images, from_records, from_truth, split_by_scene, summary_of
from risbench.adapt.bases import Base, load_base, oriented_share, predictors, recipe_for, source_for
from risbench.adapt.before_after import before_and_after
from risbench.adapt.box_noise import FEWEST, BoxNoise
from risbench.adapt.train_adapter import AdapterRecipe, plan_of, saved_run, train
from risbench.adapt.whole_data import PROMPTS
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.core.reading import parse_json
from risbench.core.record import Record
from risbench.core.storage import digest_of, explain_os_error, sha256_of_file, write_durably
from risbench.core.workspace import ADAPTERS, Workspace, read_records
from risbench.formats.truth import Truth
from risbench.learn.device import out_of_memory, ranks
from risbench.sam.adapter_file import BASES, COMPACT_BASE, save_adapter

NOISES: Final = ("measured", "none")
FEWEST_OBJECTS: Final = 8
_TRAINING: Final = "training"


def train_adapter(
    *,
    workspace: Path | str = ".",
    truth: Path | str | None = None,
    recipe: AdapterRecipe | None = None,
    box_noise: str = "measured",
    gross: float = 0.3,
    base: Path | str | None = None,
    gpu: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train an adapter, store it as `adapters/<sha12>/` and make it the workspace's; return what came of it.

    `truth` is a COCO file of the workspace's images; without it the truth is what people have verified. `base` is a compact SAM, or a
    SAM of whole images (Meta's, MobileSAM, PA-SAM's merged file), whose encoder stays as it is and runs once an image. An interrupted call
    goes on where it stopped; a finished one with the same truth and options finds its adapter and trains nothing. Under
    torchrun each process takes its share of every batch, and the first one writes.

    Raises:
        OptionError: an option's value cannot be used.
        InputError: no finished ingest, truth that matches nothing or is too little, images that are gone, a base that is none.
        MissingRequirementError: `gpu` without CUDA, a loss that is not finite, a full disk.
        BusyError: another run holds the workspace.
    """
    recipe = recipe or AdapterRecipe()
    _check(recipe, box_noise, gross)
    if gpu and not torch.cuda.is_available():
        raise MissingRequirementError(
            f"--gpu: PyTorch {torch.__version__} finds no CUDA device; run without --gpu, or see `risbench doctor`"
        )
    opened = Workspace.open(workspace)
    rank, together = ranks()
    if recipe.batch % together:
        raise OptionError(f"--batch {recipe.batch}: must be a multiple of the {together} processes that train together")
    with opened.lock("train-adapter") if rank == 0 else contextlib.nullcontext():
        records = list(read_records(opened.latest()))
        known = from_truth(records, Truth(Path(truth), records)) if truth is not None else from_records(records)
        try:
            return _adapt(
                opened, records, known, recipe, box_noise, gross, Path(base) if base else None, "cuda" if gpu else "cpu", quiet or rank > 0
            )
        except RuntimeError as error:
            raise out_of_memory(error, "free the device, give a smaller --batch, or run without --gpu") or error from error


def _adapt(
    opened: Workspace,
    records: list[Record],
    known: Known,
    recipe: AdapterRecipe,
    box_noise: str,
    gross: float,
    path: Path | None,
    device: str,
    quiet: bool,
) -> dict[str, Any]:
    if len(known.objects) < FEWEST_OBJECTS:
        count = len(known.objects)
        raise InputError(f"{opened.root}: {count} true masks, an adapter needs {FEWEST_OBJECTS}; give more with --truth, or review first")
    check_images(opened.root, records, known.objects)
    said: list[str] = []
    learn, check = _divided(known, said)
    noise = _noise(known, box_noise, said)
    base = load_base(path)
    recipe = recipe_for(base, recipe)
    if recipe.points_from > (recipe.steps - 1) * recipe.batch // len(learn):
        epochs = recipe.steps * recipe.batch / len(learn)
        said.append(
            f"--points-from {recipe.points_from}: {recipe.steps} steps are {epochs:.1f} epochs, so that it never learnt with points"
        )
    boxes = Boxes(noise, gross, oriented_share(base, records))
    digests = {record.image.path: record.image.sha256 for record in records}
    inputs = {
        "base": base.sha256,
        "objects": digest_of([[item.image, digests[item.image], item.counts] for item in known.objects]),
        "pairs": digest_of([[pair.used, pair.true, pair.tier] for pair in known.pairs]),
        "noise": box_noise,
        "gross": gross,
    }
    plan = digest_of({"recipe": asdict(recipe), "inputs": inputs})
    out = opened.root / ADAPTERS / _TRAINING
    finished = _finished(opened, plan)
    if finished is not None:
        if ranks()[0] == 0:
            if _helps(_settings(finished)):
                opened.set_adapter(finished.name)
            _leave(out, plan)
        return {**_settings(finished), **_names(opened, finished), "state": "up to date", "rank": ranks()[0]}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, out) from error
    saved_run(out, plan)  # another run's folder is refused before hours go into encoding
    source = source_for(base, opened.root, records, known, learn, check, boxes, device=device, quiet=quiet)
    tensors, made = train(base.model, source, recipe, out, device=device, plan=plan, quiet=quiet)
    summary: dict[str, Any] = {"known": summary_of(known), "box_noise": noise.summary() if noise else None, "said": said}
    settings = {"plan": plan, "recipe": asdict(recipe), "inputs": inputs, "looks": made["looks"], "best": made["best"], **summary}
    if ranks()[0] > 0:
        return {**settings, "state": "done", "rank": ranks()[0]}
    folder = _kept(opened, out, base, tensors, settings, check, boxes, device)
    _leave(out, plan)
    return {**settings, **_names(opened, folder), "state": "done", "seconds": made["seconds"], "rank": 0}


def _divided(known: Known, said: list[str]) -> tuple[list[TrueObject], list[TrueObject]]:
    """Return the objects to learn from and to look at; what is unusual about them is said."""
    learn, check = split_by_scene(known.objects)
    if check and learn:
        return learn, check
    # so few scenes that none, or all, fell aside: every fifth object then chooses the checkpoint
    said.append("too few scenes to keep one aside: the figures below are of objects whose scenes were learnt from")
    return [item for k, item in enumerate(known.objects) if k % 5], list(known.objects[::5])


def _noise(known: Known, box_noise: str, said: list[str]) -> BoxNoise | None:
    """Return the errors of the workspace's boxes, or None where none are wanted or too few are known."""
    if box_noise != "measured":
        return None
    if len(known.pairs) >= FEWEST:
        return BoxNoise(known.pairs)
    said.append(f"only {len(known.pairs)} boxes compared with true objects, {FEWEST} are needed: prompts are exact but for the gross ones")
    return None


def _kept(
    opened: Workspace,
    out: Path,
    base: Base,
    tensors: Mapping[str, Tensor],
    settings: dict[str, Any],
    check: Sequence[TrueObject],
    boxes: Boxes,
    device: str,
) -> Path:
    """Store an adapter with its picture; make it the workspace's where it is better than its base."""
    if not _helps(settings):
        settings["said"].append("it is no better than its base on the scenes kept aside: stored, and not made the workspace's adapter")
    folder = _stored(opened, out, tensors, base, settings)
    before, after = predictors(folder / "adapter.safetensors", base, device)
    before_and_after(folder / "before_after.png", opened.root, check, boxes, before, after, int(settings["recipe"]["seed"]))
    if _helps(settings):
        opened.set_adapter(folder.name)
    return folder


def _stored(opened: Workspace, out: Path, tensors: Mapping[str, Tensor], base: Base, settings: dict[str, Any]) -> Path:
    """Write the adapter, its settings and its card, and move them to the name that their sha256 gives."""
    ready = out / "ready"
    ready.mkdir(exist_ok=True)
    notes = {"plan": settings["plan"], "recipe": settings["recipe"]}
    save_adapter(ready / "adapter.safetensors", tensors, base.sha256, notes, whole=base.whole)
    if base.path is not None:
        beside = ready / (BASES[base.path.suffix == ".safetensors"] if base.whole else COMPACT_BASE)
        try:
            shutil.copyfile(base.path, beside)
        except OSError as error:
            raise explain_os_error(error, beside) from error
    write_durably(ready / "settings.json", (json.dumps(settings, indent=1, sort_keys=True) + "\n").encode())
    write_durably(ready / "card.md", _card(settings, base).encode())
    if (out / "tensorboard").is_dir():
        shutil.copytree(out / "tensorboard", ready / "tensorboard", dirs_exist_ok=True)
    folder = opened.root / ADAPTERS / sha256_of_file(ready / "adapter.safetensors")[:12]
    if folder.exists():
        shutil.rmtree(folder)
    ready.rename(folder)
    return folder


def _helps(settings: Mapping[str, Any]) -> bool:
    return bool(settings["best"]["mean_iou"] > settings["looks"][0]["mean_iou"])


def _leave(out: Path, plan: str) -> None:
    """Remove what a finished training leaves, and nothing of another one that may still go on."""
    if plan_of(out) == plan:
        shutil.rmtree(out)


def _names(opened: Workspace, folder: Path) -> dict[str, str]:
    return {"adapter": folder.name, "picture": str((folder / "before_after.png").relative_to(opened.root))}


def _finished(opened: Workspace, plan: str) -> Path | None:
    for path in sorted((opened.root / ADAPTERS).glob("*/settings.json")):
        folder = path.parent
        if len(folder.name) != 12 or _settings(folder).get("plan") != plan or not (folder / "before_after.png").is_file():
            continue
        weights = folder / "adapter.safetensors"
        if weights.is_file() and sha256_of_file(weights).startswith(folder.name):
            return folder
    return None


def _settings(folder: Path) -> dict[str, Any]:
    try:
        value = parse_json((folder / "settings.json").read_bytes())
    except ValueError as error:
        raise InputError(f"{folder / 'settings.json'}: not JSON ({error}); remove {folder}") from None
    return value if isinstance(value, dict) else {}


def _card(settings: Mapping[str, Any], base: Base) -> str:
    known, best, first, gross = settings["known"], settings["best"], settings["looks"][0], settings["inputs"]["gross"]
    classes = ", ".join(f"{name} {count}" for name, count in known["classes"].items())
    seen = "at the input's size" if base.whole else "crop by crop"
    lines = [
        "# An adapter",
        "",
        f"PA-SAM's prompt adapter on the base {base.sha256}.",
        "",
        f"* Learnt from {known['objects']:,} true masks in {known['images']:,} images: {classes}.",
        f"* Prompts: {'boxes as wrong as those here' if settings['box_noise'] else 'exact boxes'}; grossly wrong: {gross:.0%}.",
        f"* Recipe: {json.dumps(settings['recipe'], sort_keys=True)}.",
        f"* On scenes kept aside, {seen}: mean IoU {first['mean_iou']:.4f} before, {best['mean_iou']:.4f} after; "
        f"boundary IoU {first['boundary_iou']:.4f} before, {best['boundary_iou']:.4f} after (step {best['step']}).",
        "* The checkpoint was chosen on those scenes: score it on others before quoting a figure.",
        "* The IoU estimate is the base's and saw none of this; do not rank by it.",
        "",
    ]
    return "\n".join(lines)


def _check(recipe: AdapterRecipe, box_noise: str, gross: float) -> None:
    for name, low, high in (("steps", 1, 10**7), ("batch", 1, 4096), ("seed", 0, 10**6)):
        if not low <= getattr(recipe, name) <= high:
            raise OptionError(f"--{name} {getattr(recipe, name)}: must lie between {low} and {high}")
    if recipe.prompts not in PROMPTS:
        raise OptionError(f"--prompts {recipe.prompts}: must be one of {', '.join(PROMPTS)}")
    if not 0 <= recipe.points_from <= 10**6:
        raise OptionError(f"--points-from {recipe.points_from}: must lie between 0 and 1000000")
    if not 0 < recipe.learning_rate < 1:
        raise OptionError(f"--learning-rate {recipe.learning_rate}: must lie between 0 and 1")
    if box_noise not in NOISES:
        raise OptionError(f"--box-noise {box_noise}: must be one of {', '.join(NOISES)}")
    if not 0 <= gross <= 1:
        raise OptionError(f"--gross {gross}: must lie between 0 and 1")
