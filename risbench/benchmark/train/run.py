"""`risbench train`: one loop from the first step to the last, in reading order."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from risbench.benchmark.data.batches import Batch, Batches, normalised
from risbench.benchmark.data.cache import Cache, open_cache
from risbench.benchmark.data.words import words_for
from risbench.benchmark.eval.predict import Trained, scored
from risbench.benchmark.load_settings import load_settings, need_release
from risbench.benchmark.models.registry import build
from risbench.benchmark.settings import Recipe, Settings
from risbench.benchmark.train.board import pictures
from risbench.benchmark.train.checkpoint import STATE, TOKENIZER, Begun, initialized_from, read_state, write_state, write_weights
from risbench.benchmark.train.losses import mask_loss
from risbench.benchmark.train.training import Run, about_of, named_weights, need_numbers, state_of, summary_of, what_fits
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.core.metrics import summarize
from risbench.core.progress import Progress
from risbench.core.storage import digest_of, locked, write_durably
from risbench.learn.board import training_board
from risbench.learn.device import dtype_of, fast_precision, joined, keep_freed_memory, memory_for, need_cuda, ran_out, ranks
from risbench.learn.saved import put_back

# Counts up when the same settings make another model or train it otherwise: a run of before is not gone on with.
_REVISION: Final = 2
_LOG_EVERY: Final = 20
_PICTURES: Final = 8
_KEEP_EVERY_S: Final = 600.0
# What the weight decay spares (models' parameters by the end of their names, besides all of one dimension).
_SPARED: Final = ("prompts", "level_codes", "relative_position_bias_table", "position_embeddings.weight")


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
    only: Set[str] | None = None,
    init_from: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a model on a release's train split and keep the weights that are best on its val split, by oIoU.

    The same call goes on after an interruption; on a CPU with the same number of threads it ends with the same bytes. `only` names the
    samples to learn from and to validate on, by id; None: all. `init_from` is a run of the same model and configuration whose weights and
    words are begun with, on whatever release it was trained; else the encoders begin as the settings say, and the rest at random.

    Raises:
        OptionError: an option cannot be used.
        InputError: the release has no triplets to train or validate on, or the folder holds another run.
        MissingRequirementError: no CUDA, weights that cannot be had, a loss that is no number, or too little memory.
    """
    settings = load_settings(config, model, changes)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"-o {folder}: is a file; name a folder")
    need_options(release, precision, seed)
    device = _device(gpu=gpu)
    rank, count = ranks()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "risbench train") if rank == 0 else locked(_rank_folder(folder, rank), "risbench train"):
        device = joined(device)
        begun = initialized_from(Path(init_from), model, settings) if init_from is not None else None
        data = _cache_of(release, settings.side, Path(cache) if cache is not None else folder.parent / "cache", rank, quiet)
        run = prepare(model, settings, data, seed=seed, device=device, precision=precision, only=only, begun=begun)
        plan = digest_of(
            {
                "revision": _REVISION,
                "model": model,
                "settings": settings.model_dump(),
                "seed": seed,
                "data": data.digest,
                "precision": run.precision,
                "ranks": count,
                **({} if only is None else {"only": digest_of(sorted(only))}),
                **({} if begun is None else {"begun": begun[2]["run"]["sha256"]}),
            }
        )
        made = _trained(run, folder, plan, model, seed, compiled=compiled, quiet=quiet or rank > 0)
        return {**made, "release": str(release)}


def need_options(release: Path | str | None, precision: str, seed: int) -> None:
    """Check what can be before a folder is made.

    Raises:
        OptionError: there is no such precision or seed.
        InputError: there is no such release.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise OptionError(f"--precision {precision}: must be auto, fp32 or bf16")
    if seed < 0:
        raise OptionError(f"--seed {seed}: must be 0 or more")
    if release is not None:
        need_release(release)


def prepare(
    model: str,
    settings: Settings,
    cache: Cache,
    *,
    seed: int,
    device: str,
    precision: str,
    only: Set[str] | None = None,
    begun: Begun | None = None,
) -> Run:
    """Return a run at its first step: with what `initialized_from` returned, else with what the settings name.

    Raises:
        InputError: the release has nothing in its train or val split.
        OptionError: there are more ranks than samples a batch, or no such precision.
    """
    recipe, (rank, count) = settings.recipe, ranks()
    need_options(None, precision, seed)
    if recipe.batch % count:
        raise OptionError(f"recipe.batch = {recipe.batch}: must be divisible by the {count} processes that train together")
    training, validation = (cache.needed(part, "the release", only) for part in ("train", "val"))
    if recipe.batch > len(training):
        raise OptionError(f"recipe.batch = {recipe.batch}: the train split has only {len(training)} samples; set it lower")
    sentences = [cache.samples[number].sentence for number in training]
    words = words_for(settings.text, sentences) if begun is None else begun[1]
    tokens, valid, _ = words.encode(sentences)
    if device == "cpu":
        keep_freed_memory()
    with memory_for("the model alone does not fit beside what else is on the device; free it, or take a smaller --config"):
        net = build(model, settings, words.vocabulary, seed) if begun is None else begun[0]
        net = net.to(device).to(memory_format=torch.channels_last)
    if device != "cpu" and count > 1:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    steps = recipe.steps or recipe.epochs * (len(training) // recipe.batch)
    coarse_steps = int(recipe.coarse_share * steps) if recipe.coarse_side else 0
    options = {"batch": recipe.batch, "per_image": recipe.per_image, "rank": rank, "ranks": count}
    options |= {"coarse_side": recipe.coarse_side, "coarse_steps": coarse_steps}
    batches = Batches(cache, training, tokens, valid, seed=seed, pin=device != "cpu", **options)
    return Run(
        settings=settings,
        cache=cache,
        words=words,
        model=net,
        device=device,
        precision=fast_precision(device) if precision == "auto" else precision,
        batches=batches,
        validation=validation,
        steps=steps,
        begun=named_weights(settings, net) if begun is None else begun[2],
        classes=() if begun is None else begun[3],
    )


def _trained(run: Run, folder: Path, plan: str, name: str, seed: int, *, compiled: bool, quiet: bool) -> dict[str, Any]:
    """Train to the end, from the start or from where the folder's state is."""
    recipe, (rank, count) = run.settings.recipe, ranks()
    optimizer = optimizer_of(run.model, recipe)
    _restore(run, folder, plan, optimizer)
    # what comes from the hub comes ready for use, not for learning
    run.model.train()
    learner: Any = torch.compile(run.model) if compiled else run.model
    if run.step < run.batches.coarse_steps:
        _need_room_for_the_whole_side(learner, run)
    if count > 1:
        devices = [torch.device(run.device)] if run.device != "cpu" else None
        # static: some parts of others' encoders, such as Swin's last norm, are never used, and checkpointed layers run twice
        learner = DistributedDataParallel(learner, device_ids=devices, static_graph=True)
    look_every = _look_every(run)
    began = kept = time.monotonic()
    waited, looking, first = 0.0, 0.0, run.step
    log = training_board(folder / "tensorboard", run.step + 1, wanted=rank == 0 and run.step < run.steps)
    with Progress(f"train {name}", run.steps, quiet=quiet) as bar, log as board:
        bar.skip(run.step)
        asked = time.monotonic()
        for step, batch in run.batches.steps(run.step, run.steps):
            waited += time.monotonic() - asked
            # 1  the step's own randomness: a run that was interrupted draws what it would have drawn
            torch.manual_seed((seed * 1_000_003 + step) * count + rank)
            # 2  the learning rate
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, run.steps, recipe) * group["share"]
            # 3  forward, loss, backward
            losses = learn(learner, run, batch, step)
            # 4  the step itself
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
            advance(optimizer, run, batch, step)
            optimizer.zero_grad(set_to_none=True)
            run.step = step + 1
            # 5  what it looks like from outside
            if board is not None and (step % _LOG_EVERY == 0 or run.step == run.steps):
                for part, value in losses.items():
                    board.add_scalar(f"train/{part}", float(value), run.step)
                board.add_scalar("train/learning_rate", learning_rate(step, run.steps, recipe), run.step)
            # 6  now and then: validate, keep the best, keep what is needed to go on
            looked = run.step % look_every == 0 or run.step == run.steps
            if looked:
                before = time.monotonic()
                look = _look(run, board)
                run.looks.append(look)
                if look["oIoU"] > run.best:
                    run.best = look["oIoU"]
                    if rank == 0:
                        write_weights(folder, run.model.state_dict(), about_of(run, name, seed, plan, look))
                run.model.train()
                looking += time.monotonic() - before
            if rank == 0 and (looked or time.monotonic() - kept > _KEEP_EVERY_S):
                need_numbers(run)
                write_state(folder, state_of(run, optimizer, plan))
                kept = time.monotonic()
            bar.advance(1)
            asked = time.monotonic()
    if count > 1:
        distributed.barrier()
    return summary_of(run, folder, rank, time.monotonic() - began - looking, waited, run.steps - first)


def _restore(run: Run, folder: Path, plan: str, optimizer: torch.optim.Optimizer) -> None:
    """Put a run where its folder's state is; of a new one write the tokenizer.

    Raises:
        InputError: the state is damaged.
        MissingRequirementError: memory ran out.
    """
    state = read_state(folder, plan)
    if state is None:
        if ranks()[0] == 0:
            write_durably(folder / TOKENIZER, run.words.to_json().encode())
        return
    run.step, run.looks, run.best = state["step"], state["looks"], state["best"]
    if run.step > run.steps or (run.step == run.steps and not run.looks):
        raise InputError(f"{folder / STATE}: is damaged (step {run.step:,} of {run.steps:,}); remove {folder} to start anew")
    if run.step < run.steps:
        with memory_for("the optimizer's state does not fit beside what else is on the device; free it, and give the same command again"):
            put_back(folder / STATE, state, {"model": run.model}, optimizer, f"remove {folder} to start anew")


def learn(learner: Any, run: Run, batch: Batch, step: int, beside: list[Tensor] | None = None) -> dict[str, Tensor]:
    """Leave the gradients of a batch on the model and return the losses by name; `beside` is let go of where memory ran out.

    Raises:
        MissingRequirementError: the loss is no finite number, or memory ran out.
    """
    try:
        losses = _gradients(learner, run, batch)
    except RuntimeError as error:
        said = ran_out(error)
        if said is None:
            raise
    else:
        if not bool(torch.isfinite(losses["loss"])):
            parts = ", ".join(f"{part} {float(value):g}" for part, value in losses.items())
            raise MissingRequirementError(
                f"step {step}: the loss is not finite ({parts}); lower recipe.learning_rate, or set recipe.clip=1.0"
            )
        return losses
    # only here is everything freed that the error's traceback held
    if beside is not None:
        beside.clear()
    raise MissingRequirementError(f"{said}; {what_fits(run, step, batch, lambda part: _gradients(run.model, run, part))}")


def _gradients(learner: Any, run: Run, batch: Batch) -> dict[str, Tensor]:
    given = batch.to(run.device)
    with torch.autocast(run.device.partition(":")[0], dtype_of(run.precision), enabled=run.precision != "fp32"):
        logits = learner(normalised(given.images), given.tokens, given.valid, given.image_of)
    losses = mask_loss(logits, given.masks, run.settings.recipe)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    return {part: value.detach() for part, value in losses.items()}


def _need_room_for_the_whole_side(learner: Any, run: Run) -> None:
    """Learn from a later batch and forget it: memory that the whole side lacks is missed now, not after the steps at the coarse one.

    Beside it lies what the optimiser will keep, two numbers a weight.

    Raises:
        MissingRequirementError: it ran out.
    """
    before = [value.clone() for value in run.model.buffers()]  # running means
    beside = [torch.empty_like(value) for value in run.model.parameters() for _ in range(2)] if run.step == 0 else []
    learn(learner, run, run.batches.read(run.batches.coarse_steps), run.step, beside)
    run.model.zero_grad(set_to_none=True)
    for value, kept in zip(run.model.buffers(), before, strict=True):
        value.copy_(kept)


def advance(optimizer: torch.optim.AdamW, run: Run, batch: Batch, step: int) -> None:
    """Make the optimiser's step; the first one takes twice the model's memory for its state.

    Raises:
        MissingRequirementError: memory ran out.
    """
    try:
        optimizer.step()
    except RuntimeError as error:
        said = ran_out(error)
        if said is None:
            raise
    else:
        return
    optimizer.state.clear()
    raise MissingRequirementError(f"{said}; {what_fits(run, step, batch, lambda part: _gradients(run.model, run, part))}")


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
    """Return what validation says at this step; every rank asks about its share of the images.

    Raises:
        MissingRequirementError: a weight is no finite number: it would be kept as the best, or gone on from.
    """
    need_numbers(run)
    if ranks()[1] > 1:
        for buffer in run.model.buffers():  # running means are each process's own until now
            distributed.broadcast(buffer, 0)
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
    return -(-run.steps // looks) if looks else min(run.batches.per_epoch, run.steps)


def _device(*, gpu: bool) -> str:
    if gpu:
        need_cuda("train")
    return "cuda" if gpu else "cpu"


def _cache_of(release: Path | str, side: int, folder: Path, rank: int, quiet: bool) -> Cache:
    """Open the cache; whichever process comes first makes it while the others wait for its lock, however long that takes."""
    return open_cache(release, side, folder, quiet=quiet or rank > 0)


def _rank_folder(folder: Path, rank: int) -> Path:
    made = folder / f".rank{rank}"
    made.mkdir(exist_ok=True)
    return made
