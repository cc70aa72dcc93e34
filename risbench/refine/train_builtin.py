"""Training the built-in SAM from scratch on generated scenes: one explicit loop, resumable at any step."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from risbench.core.errors import EnvironmentLacks, InputError
from risbench.core.progress import Progress
from risbench.refine.builtin_data import Batch, CropExamples
from risbench.sam.compact import CompactSam, CompactSettings
from risbench.sam.compact_weights import save_compact


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; the checkpoint carries them, and a run resumed with others is refused."""

    seed: int = 0
    steps: int = 4500
    batch: int = 48
    learning_rate: float = 1.0e-3
    weight_decay: float = 0.05
    warm_up: int = 200
    average: float = 0.998
    clip: float = 1.0


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine to 1 % of the peak."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    share = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


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
    out: Path, recipe: Recipe, *, settings: CompactSettings | None = None, device: str = "cpu", keep_every: int = 250
) -> Path:
    """Train into the folder `out` and return the weights' path; the same call goes on after an interruption.

    `last.pt` holds all that is needed to go on, `log.jsonl` a line every 25 steps, `builtin.safetensors` the averaged weights.

    Raises:
        InputError: the folder holds a run of another recipe.
        EnvironmentLacks: the loss is not a finite number.
    """
    torch.manual_seed(recipe.seed)
    settings = settings or CompactSettings()
    model = CompactSam(settings).to(device).to(memory_format=torch.channels_last)
    decayed = [value for value in model.parameters() if value.ndim > 1]
    plain = [value for value in model.parameters() if value.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)  # type: ignore[no-untyped-call]
    out.mkdir(parents=True, exist_ok=True)
    start = _resume(out / "last.pt", recipe, model, averaged, optimizer, device)
    data = DataLoader(
        CropExamples(recipe.seed, start, recipe.steps, recipe.batch, settings.side_px), batch_size=None, num_workers=1, prefetch_factor=6
    )
    began = time.monotonic()
    model.train()
    with Progress("train", recipe.steps) as bar, open(out / "log.jsonl", "a", encoding="utf-8") as log:
        bar.advance(start)
        for step, batch in enumerate(data, start):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, recipe)
            batch = Batch(*(part.to(device) for part in vars(batch).values()))
            with torch.autocast(device.split(":")[0], torch.bfloat16):
                parts = losses(model, batch)
            loss = parts["mask"] + parts["alternatives"] + parts["iou"]
            if not torch.isfinite(loss):
                raise EnvironmentLacks(f"step {step}: the loss is not finite: { {name: float(value) for name, value in parts.items()} }")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            if step < 400:
                averaged.n_averaged.zero_()  # the first steps only start the average
            averaged.update_parameters(model)
            if step % 25 == 0 or step + 1 == recipe.steps:
                row = {
                    "step": step,
                    **{name: round(float(value.detach()), 4) for name, value in parts.items()},
                    "seconds": round(time.monotonic() - began, 1),
                }
                log.write(json.dumps(row) + "\n")
                log.flush()
            if (step + 1) % keep_every == 0 or step + 1 == recipe.steps:
                _keep(out / "last.pt", step + 1, recipe, model, averaged, optimizer)
                save_compact(_the(averaged), out / "builtin.safetensors", {"recipe": asdict(recipe), "step": step + 1})
            bar.advance(1)
    return out / "builtin.safetensors"


def _the(averaged: AveragedModel) -> CompactSam:
    inner = averaged.module
    assert isinstance(inner, CompactSam), "it averages the model it was made of"
    return inner


def _keep(path: Path, step: int, recipe: Recipe, model: CompactSam, averaged: AveragedModel, optimizer: torch.optim.Optimizer) -> None:
    state = {
        "step": step,
        "recipe": asdict(recipe),
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _resume(path: Path, recipe: Recipe, model: CompactSam, averaged: AveragedModel, optimizer: torch.optim.Optimizer, device: str) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise InputError(f"{path}: holds a run of another recipe ({state['recipe']}); choose another folder, or the same options")
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
