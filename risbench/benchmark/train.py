"""`risbench train`: one loop from the first step to the last, in reading order."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from risbench.benchmark.board import pictures
from risbench.benchmark.checkpoint import STATE, TOKENIZER, read_state, write_state, write_weights
from risbench.benchmark.data.batches import Batch, Batches, normalised
from risbench.benchmark.data.cache import Cache, open_cache
from risbench.benchmark.data.words import Words, words_for
from risbench.benchmark.losses import mask_loss
from risbench.benchmark.models import build, parameters_of, referring
from risbench.benchmark.predict import Trained, scored
from risbench.benchmark.pretrained import described
from risbench.benchmark.settings import Recipe, Settings, load_settings
from risbench.core.errors import EnvironmentLacks, InputError, OptionError
from risbench.core.metrics import summarize
from risbench.core.progress import Progress
from risbench.core.storage import digest_of, locked, write_durably
from risbench.sam.device import dtype_of, fast_precision, joined, keep_freed_memory, out_of_memory, ranks

_LOG_EVERY: Final = 20
_PICTURES: Final = 8
_KEEP_EVERY_S: Final = 600.0
# What the weight decay spares (models' parameters by the end of their names, besides all of one dimension).
_SPARED: Final = ("prompts", "level_codes", "relative_position_bias_table", "position_embeddings.weight")


@dataclass
class Run:
    """A training: the model, what it learns from, and how far it is."""

    settings: Settings
    cache: Cache
    words: Words
    model: nn.Module
    device: str
    precision: str
    batches: Batches
    validation: NDArray[np.int64]
    steps: int
    step: int = 0
    looks: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0


def train(
    model: str = "crobim",
    release: Path | str = "4-export/release",
    *,
    out: Path | str,
    config: str = "base",
    changes: Sequence[str] = (),
    seed: int = 0,
    gpu: bool = False,
    precision: str = "auto",
    compiled: bool = False,
    cache: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a model on a release's train split and keep the weights that are best on its val split, by oIoU.

    The same call goes on after an interruption; on a CPU with the same number of threads it ends with the same bytes.

    Raises:
        OptionError: an option cannot be used.
        InputError: the release has no triplets to train or validate on, or the folder holds another run.
        EnvironmentLacks: no CUDA, weights that cannot be had, a loss that is no number, or too little memory.
    """
    settings = load_settings(config, model, changes)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    rank, count = ranks()
    with locked(folder, "risbench train") if rank == 0 else locked(_rank_folder(folder, rank), "risbench train"):
        device = joined(_device(gpu=gpu))
        data = _cache_of(release, settings.side, Path(cache) if cache is not None else folder.parent / "cache", rank, count, quiet)
        run = prepare(model, settings, data, seed=seed, device=device, precision=precision)
        plan = digest_of(
            {
                "model": model,
                "settings": settings.model_dump(),
                "seed": seed,
                "data": data.digest,
                "precision": run.precision,
                "ranks": count,
            }
        )
        return _trained(run, folder, plan, model, seed, compiled=compiled, quiet=quiet or rank > 0)


def prepare(model: str, settings: Settings, cache: Cache, *, seed: int, device: str, precision: str) -> Run:
    """Return a run at its first step.

    Raises:
        InputError: the release has nothing in its train or val split.
        OptionError: there are more ranks than samples a batch, or no such precision.
    """
    recipe, (rank, count) = settings.recipe, ranks()
    if precision not in ("auto", "fp32", "bf16"):
        raise OptionError(f"--precision {precision}: must be auto, fp32 or bf16")
    if recipe.batch % count:
        raise OptionError(f"recipe.batch = {recipe.batch}: must be divisible by the {count} processes that train together")
    training, validation = cache.of("train"), cache.of("val")
    for name, numbers in (("train", training), ("val", validation)):
        if not len(numbers):
            raise InputError(f"the release has no sample in its {name} split; `risbench export --split` makes one with all three")
    sentences = [cache.samples[number].sentence for number in training]
    words = words_for(settings.text, sentences)
    tokens, valid, _ = words.encode(sentences)
    if device == "cpu":
        keep_freed_memory()
    net = build(model, settings, words.vocabulary, seed).to(device).to(memory_format=torch.channels_last)
    batches = Batches(cache, training, tokens, valid, batch=recipe.batch, seed=seed, rank=rank, ranks=count, pin=device != "cpu")
    return Run(
        settings=settings,
        cache=cache,
        words=words,
        model=net,
        device=device,
        precision=fast_precision(device) if precision == "auto" else precision,
        batches=batches,
        validation=validation,
        steps=recipe.steps or recipe.epochs * batches.per_epoch,
    )


def _trained(run: Run, folder: Path, plan: str, name: str, seed: int, *, compiled: bool, quiet: bool) -> dict[str, Any]:
    """Train to the end, from the start or from where the folder's state is."""
    recipe, (rank, count) = run.settings.recipe, ranks()
    optimizer = optimizer_of(run.model, recipe)
    state = read_state(folder, plan)
    if state is None:
        _refuse_other_run(folder)
        if rank == 0:
            write_durably(folder / TOKENIZER, run.words.to_json().encode())
    else:
        run.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run.step, run.looks, run.best = state["step"], state["looks"], state["best"]
    learner: Any = torch.compile(run.model) if compiled else run.model
    if count > 1:
        devices = [torch.device(run.device)] if run.device != "cpu" else None
        # static: some parts of others' encoders, such as Swin's last norm, are never used, and checkpointed layers run twice
        learner = DistributedDataParallel(learner, device_ids=devices, static_graph=True)
    look_every = _look_every(run)
    began = kept = time.monotonic()
    waited, first = 0.0, run.step
    board = SummaryWriter(str(folder / "tensorboard"), purge_step=run.step) if rank == 0 else None
    with Progress(f"train {name}", run.steps, quiet=quiet) as bar:
        bar.advance(run.step)
        asked = time.monotonic()
        for step, batch in run.batches.steps(run.step, run.steps):
            waited += time.monotonic() - asked
            # 1  the step's own randomness: a run that was interrupted draws what it would have drawn
            torch.manual_seed(seed * 1_000_003 + step)
            # 2  the learning rate
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, run.steps, recipe) * group["share"]
            # 3  forward, loss, backward
            losses = learn(learner, run, batch, step)
            # 4  the step itself
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.step = step + 1
            # 5  what it looks like from outside
            if board is not None and (step % _LOG_EVERY == 0 or run.step == run.steps):
                for part, value in losses.items():
                    board.add_scalar(f"train/{part}", float(value), step)
                board.add_scalar("train/learning_rate", learning_rate(step, run.steps, recipe), step)
            # 6  now and then: validate, keep the best, keep what is needed to go on
            looked = run.step % look_every == 0 or run.step == run.steps
            if looked:
                look = _look(run, board)
                run.looks.append(look)
                if look["oIoU"] > run.best:
                    run.best = look["oIoU"]
                    if rank == 0:
                        write_weights(folder, run.model.state_dict(), _about(run, name, seed, look))
                run.model.train()
            if rank == 0 and (looked or time.monotonic() - kept > _KEEP_EVERY_S):
                write_state(folder, _state(run, optimizer, plan))
                kept = time.monotonic()
            bar.advance(1)
            asked = time.monotonic()
    if board is not None:
        board.close()
    if count > 1:
        distributed.barrier()
    return _summary(run, folder, rank, time.monotonic() - began, waited, run.steps - first)


def learn(learner: Any, run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Leave the gradients of a batch on the model and return the losses by name.

    Raises:
        EnvironmentLacks: the loss is no finite number, or memory ran out.
    """
    try:
        given = batch.to(run.device)
        with torch.autocast(run.device.partition(":")[0], dtype_of(run.precision), enabled=run.precision != "fp32"):
            logits = learner(normalised(given.images), given.tokens, given.valid)
        losses = mask_loss(logits, given.masks, run.settings.recipe, align_corners=referring(run.model).align_corners)
        if not bool(torch.isfinite(losses["loss"])):
            said = ", ".join(f"{part} {float(value.detach()):g}" for part, value in losses.items())
            raise EnvironmentLacks(f"step {step}: the loss is not finite ({said}); lower recipe.learning_rate, or set recipe.clip=1.0")
        losses["loss"].backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        lacking = out_of_memory(error, _what_fits(run, step))
        if lacking is None:
            raise
        raise lacking from error
    return {part: value.detach() for part, value in losses.items()}


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over the model's parts, with the recipe's shares of the learning rate and what decays."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        share = recipe.backbone_share if name.startswith("backbone.") else recipe.text_share if name.startswith("text.") else 1.0
        spared = value.ndim < 2 or name.endswith(_SPARED)
        groups.setdefault((share, 0.0 if spared else recipe.weight_decay), []).append(value)
    return torch.optim.AdamW(
        [{"params": members, "share": share, "weight_decay": decay} for (share, decay), members in groups.items()],
        lr=recipe.learning_rate,
        fused=True,
    )


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Return a step's learning rate: polynomial decay to 0 over all steps, after a linear warm-up where there is one."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    return float(recipe.learning_rate * (1 - step / steps) ** recipe.power)


def _look(run: Run, board: SummaryWriter | None) -> dict[str, Any]:
    """Return what validation says at this step; every rank asks about its share of the images."""
    run.model.eval()
    predictor = Trained(run.model, run.words, run.device, run.precision)
    rank, count = ranks()
    found = scored(predictor, run.cache, run.validation, "peer", share=(rank, count), quiet=True)
    if count > 1:
        gathered: list[Any] = [None] * count
        distributed.all_gather_object(gathered, found)
        found = [one for part in gathered for one in part]
    result = summarize([(one.intersection, one.union) for one in sorted(found, key=lambda one: one.id)])
    if board is not None:
        for name, value in result.items():
            board.add_scalar(f"val/{name}", value, run.step)
        shown = run.validation[np.linspace(0, len(run.validation) - 1, min(_PICTURES, len(run.validation))).astype(int)]
        for number, picture in zip(shown.tolist(), pictures(predictor, run.cache, shown.tolist()), strict=True):
            board.add_image(f"val/{run.cache.samples[number].id}", picture, run.step, dataformats="HWC")
    return {"step": run.step, **result}


def _look_every(run: Run) -> int:
    looks = run.settings.recipe.looks
    return max(1, run.steps // looks) if looks else min(run.batches.per_epoch, run.steps)


def _state(run: Run, optimizer: torch.optim.AdamW, plan: str) -> dict[str, Any]:
    state = {"plan": plan, "step": run.step, "looks": run.looks, "best": run.best}
    return {**state, "model": run.model.state_dict(), "optimizer": optimizer.state_dict()}


def _about(run: Run, name: str, seed: int, look: dict[str, Any]) -> dict[str, Any]:
    settings = run.settings
    cut = run.words.encode([run.cache.samples[number].sentence for number in run.batches.numbers])[2]
    return {
        "model": name,
        "settings": settings.model_dump(mode="json"),
        "built": _built(run.model),
        "seed": seed,
        "precision": run.precision,
        "step": run.step,
        "steps": run.steps,
        "validation": look,
        "parameters": parameters_of(run.model),
        "weights": {"backbone": described(settings.backbone.weights), "text": described(settings.text.weights)},
        "vocabulary": {"tokens": run.words.vocabulary, "from": run.words.origin},
        "sentences_cut": cut,
        "training": {"samples": len(run.batches.numbers), "format": run.cache.format, "digest": run.cache.digest},
        "classes": sorted({run.cache.samples[number].category for number in run.batches.numbers}),
        "left_out": run.cache.left_out,
    }


def _built(model: nn.Module) -> dict[str, Any]:
    """Return the sizes that the encoders really have, which are the named weights' own."""
    whole: Any = model
    net, bert = whole.backbone.net.config, whole.text.bert.config
    if net.model_type == "swin":
        own = {"kind": "swin", "embed": net.embed_dim, "heads": list(net.num_heads), "window": net.window_size}
    else:
        own = {"kind": "convnext", "embed": net.hidden_sizes[0]}
    backbone = {**own, "depths": list(net.depths)}
    text = {"width": bert.hidden_size, "layers": bert.num_hidden_layers, "heads": bert.num_attention_heads, "ffn": bert.intermediate_size}
    return {"backbone": backbone, "text": text}


def _summary(run: Run, folder: Path, rank: int, seconds: float, waited: float, steps: int) -> dict[str, Any]:
    best = max(run.looks, key=lambda look: look["oIoU"])
    return {
        "rank": rank,
        "run": str(folder),
        "steps": run.steps,
        "samples": len(run.batches.numbers),
        "best": best,
        "looks": run.looks,
        "seconds": round(seconds, 1),
        "seconds_a_step": round(seconds / steps, 4) if steps else 0.0,
        "input_stall": round(waited / seconds, 4) if seconds else 0.0,
        "sentences_cut": run.words.encode([run.cache.samples[number].sentence for number in run.batches.numbers])[2],
        "left_out": run.cache.left_out,
        "first_left_out": run.cache.first,
        "weights": {name: described(getattr(run.settings, name).weights)["from"] for name in ("backbone", "text")},
    }


def _device(*, gpu: bool) -> str:
    if gpu and not torch.cuda.is_available():
        raise EnvironmentLacks("--gpu: PyTorch finds no CUDA device here; leave --gpu out to train on the CPU, or mend the driver")
    return "cuda" if gpu else "cpu"


def _cache_of(release: Path | str, side: int, folder: Path, rank: int, count: int, quiet: bool) -> Cache:
    """Open the cache; the first process makes it while the others wait."""
    found = open_cache(release, side, folder, quiet=quiet) if rank == 0 else None
    if count > 1:
        distributed.barrier()
    return found or open_cache(release, side, folder, quiet=True)


def _rank_folder(folder: Path, rank: int) -> Path:
    made = folder / f".rank{rank}"
    made.mkdir(exist_ok=True)
    return made


def _refuse_other_run(folder: Path) -> None:
    if (folder / STATE).exists():  # read_state would have said so
        raise InputError(f"{folder}: holds another run")


def _what_fits(run: Run, step: int) -> str:
    batch = run.settings.recipe.batch
    smaller = max(1, 2 ** math.floor(math.log2(max(1, batch // 2))))
    frugal = "" if run.settings.mid.checkpoint else ", or set mid.checkpoint=true, which keeps less for the way back"
    return f"step {step} with recipe.batch={batch} at {run.settings.side} px does not fit; try --set recipe.batch={smaller}{frugal}"


def default_run(workspace: Path, model: str, config: str, seed: int) -> Path:
    """Return where a run goes that no folder was named for."""
    return workspace / "5-benchmark" / f"{model}-{Path(config).stem}-seed{seed}"
