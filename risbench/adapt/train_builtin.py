"""Training the built-in SAM from scratch on generated scenes: one explicit loop, resumable at any step."""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from risbench.adapt.builtin_data import Batch, CropExamples
from risbench.core.errors import InputError, MissingRequirementError, OptionError, printable
from risbench.core.processes import relayed, without_interrupts
from risbench.core.progress import Progress
from risbench.core.storage import explain_os_error, locked, sha256_of_file, write_durably
from risbench.learn.device import out_of_memory
from risbench.learn.saved import put_back, read_checkpoint, step_of
from risbench.learn.schedule import learning_rate_at
from risbench.sam.compact.model import CompactSam, CompactSettings
from risbench.sam.compact.weights import save_compact
from risbench.scenes.source import WORLDS

WEIGHTS: Final = "builtin_sam.safetensors"
_START_OF_AVERAGE: Final = 400
_LOG_EVERY: Final = 25
# Chosen on a third of the real images (docs/decisions/0006): people outline generously.
THRESHOLD: Final = -0.8


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; the checkpoint carries them, and a run resumed with others is refused."""

    seed: int = 0
    steps: int = 4400
    batch: int = 48
    learning_rate: float = 1.0e-3
    weight_decay: float = 0.05
    warm_up: int = 200
    average: float = 0.998
    clip: float = 1.0


def mask_loss(logits: Tensor, cover: Tensor) -> Tensor:
    """Return binary cross-entropy plus dice loss (B, K) of logits (B, K, H, W) against the covered share (B, H, W)."""
    target = cover[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(2, 3))
    share = logits.sigmoid()
    dice = 1 - (2 * (share * target).sum(dim=(2, 3)) + 1) / ((share + target).sum(dim=(2, 3)) + 1)
    return 4 * entropy + dice


def losses(model: CompactSam, batch: Batch) -> dict[str, Tensor]:
    """Return the loss's parts: the one mask, the best of the three alternatives, the predicted IoU."""
    points = (batch.points, batch.labels) if bool((batch.labels >= 0).any()) else None
    logits, predicted = model(batch.crops.float(), batch.boxes, batch.prompts, points)
    logits, predicted = logits.float(), predicted.float()
    each = mask_loss(logits, batch.cover)
    with torch.no_grad():
        drawn, true = logits > 0, (batch.cover > 0.5)[:, None]
        iou = (drawn & true).sum(dim=(2, 3)) / (drawn | true).sum(dim=(2, 3)).clamp(min=1)
    return {
        "mask": each[:, 0].mean(),
        "alternatives": 0.1 * each[:, 1:].min(dim=1).values.mean(),
        "iou": 0.25 * F.mse_loss(predicted, iou),
        "mean_iou": iou[:, 0].mean(),
    }


def train_builtin(
    folder: Path | str,
    recipe: Recipe | None = None,
    *,
    settings: CompactSettings | None = None,
    gpu: bool = False,
    workers: int = 1,
    keep_every: int = 200,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train into a folder and return what came of it; the same call goes on after an interruption.

    `last.pt` holds all that is needed to go on, `log.jsonl` a line every 25 steps, `builtin_sam.safetensors` the averaged
    weights in half precision. The batches depend on the recipe's seed alone, not on `workers`.

    Raises:
        OptionError: a setting of the recipe cannot be used.
        InputError: the folder holds a run of another recipe, or a damaged checkpoint.
        MissingRequirementError: `gpu` without CUDA or memory enough, a folder that cannot be made, or a loss that is not a finite number.
        BusyError: another run writes into the folder.
    """
    recipe, settings, out = recipe or Recipe(), settings or CompactSettings(threshold=THRESHOLD), Path(folder)
    for name, low in (("steps", 1), ("batch", 2), ("seed", 0)):
        if getattr(recipe, name) < low:
            raise OptionError(f"--{name} {getattr(recipe, name)}: must be at least {low}")
    if recipe.seed >= WORLDS:
        raise OptionError(f"--seed {recipe.seed}: must be below {WORLDS}; from there on are the worlds that models are scored on")
    if workers < 1:
        raise OptionError(f"--workers {workers}: must be at least 1")
    if gpu and not torch.cuda.is_available():
        raise MissingRequirementError(
            f"--gpu: PyTorch {torch.__version__} finds no CUDA device; run without --gpu, or see `risbench doctor`"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, out) from error
    with locked(out, "train-builtin"):
        try:
            return _train(out, _Run(recipe, settings, "cuda" if gpu else "cpu"), workers, quiet, keep_every)
        except RuntimeError as error:
            raise out_of_memory(error, "free the device, or give a smaller --batch and a folder of its own") or error from error


def _train(out: Path, run: _Run, workers: int, quiet: bool, keep_every: int) -> dict[str, Any]:
    recipe, settings = run.recipe, run.model.settings
    start = run.resume(out / "last.pt")
    examples = CropExamples(recipe.seed, start, recipe.steps, recipe.batch, settings.side_px)
    # Spawned: a forked worker can inherit a lock that a thread of OpenCV or OpenMP holds, and wait for it for ever.
    data = DataLoader(examples, batch_size=None, num_workers=workers, prefetch_factor=4, multiprocessing_context="spawn")
    log = _Log(out / "log.jsonl", start)
    with Progress("train", recipe.steps, quiet=quiet) as bar:
        bar.skip(start)
        with without_interrupts():
            batches_of_steps = iter(data)
        for step, batch in enumerate(relayed(batches_of_steps), start):
            parts = run.step(step, batch)
            last = step + 1 == recipe.steps
            if step % _LOG_EVERY == 0 or last:
                log.write(step, parts)
            if (step + 1) % keep_every == 0 or last:
                run.keep(out, step + 1)
            bar.advance(1)
    weights = out / WEIGHTS
    count = sum(value.numel() for value in run.model.parameters())
    return {
        "weights": str(weights),
        "sha256": sha256_of_file(weights),
        "steps": recipe.steps,
        "parameters": count,
        "recipe": asdict(recipe),
    }


class _Run:
    """A model, its running average and its optimiser."""

    def __init__(self, recipe: Recipe, settings: CompactSettings, device: str) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.seed)
        self.model = CompactSam(settings).to(device).to(memory_format=torch.channels_last)
        decayed = [value for value in self.model.parameters() if value.ndim > 1]
        plain = [value for value in self.model.parameters() if value.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
        average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.model.train()

    def step(self, number: int, batch: Batch) -> dict[str, Tensor]:
        """Learn from one batch and return the parts of its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(number, self.recipe)
        with torch.autocast(self.device, torch.bfloat16):
            parts = losses(self.model, Batch(*(part.to(self.device) for part in vars(batch).values())))
        loss = parts["mask"] + parts["alternatives"] + parts["iou"]
        if not torch.isfinite(loss):
            raise MissingRequirementError(
                f"step {number}: the loss is not finite: { {name: float(value) for name, value in parts.items()} }"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        if number < _START_OF_AVERAGE:
            self.averaged.n_averaged.zero_()  # weights of the first steps would weigh on the average for long
        self.averaged.update_parameters(self.model)
        return parts

    def keep(self, out: Path, steps: int) -> None:
        """Write the checkpoint to go on from, and the averaged weights."""
        state = {
            "step": steps,
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        inner = self.averaged.module
        assert isinstance(inner, CompactSam), "it averages the model it was made of"
        # The weights first: a checkpoint says that they are there.
        save_compact(inner, out / WEIGHTS, {"recipe": asdict(self.recipe), "step": steps})
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_durably(out / "last.pt", buffer.getvalue())

    def resume(self, path: Path) -> int:
        """Load the checkpoint where there is one and return the step to go on with."""
        if not path.exists():
            return 0
        state = read_checkpoint(path)
        found = state.get("recipe")
        if found != asdict(self.recipe):
            shown = printable(found, 400)
            raise InputError(f"{path}: holds a run of another recipe ({shown}); choose another folder, or the same options")
        step = step_of(path, state, self.recipe.steps)
        put_back(path, state, {"model": self.model, "averaged": self.averaged}, self.optimizer)
        return step


class _Log:
    """One line of JSON every few steps; a resumed run drops the lines that it will write again."""

    def __init__(self, path: Path, start: int) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        kept = [line for line in lines if (step := _step_in(line)) is not None and step < start]  # a torn line is of a later step
        write_durably(path, "".join(line + "\n" for line in kept).encode())
        self._path, self._began = path, time.monotonic()

    def write(self, step: int, parts: dict[str, Tensor]) -> None:
        """Append the parts of one step's loss."""
        values = {name: round(float(value.detach()), 4) for name, value in parts.items()}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values, "seconds": round(time.monotonic() - self._began, 1)}) + "\n")


def _step_in(line: str) -> int | None:
    """Return the step of a line of the log, or None of a torn or damaged one."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if isinstance(step, int) else None
