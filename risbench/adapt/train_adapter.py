"""`risbench train-adapter`: PA-SAM's adapter on a base model, from true masks and boxes as wrong as the workspace's own."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from risbench.adapt.builtin_data import Batch
from risbench.adapt.objectives import CompactObjective, WholeObjective, objective_of
from risbench.adapt.pasam_losses import PaLosses, finite
from risbench.adapt.whole_data import WholeBatch
from risbench.core.errors import InputError, MissingRequirementError
from risbench.core.metrics import boundary_iou, mask_iou
from risbench.core.processes import relayed, without_interrupts
from risbench.core.progress import Progress
from risbench.core.storage import write_durably
from risbench.learn.board import training_board
from risbench.learn.device import joined, keep_freed_memory, out_of_memory, ranks
from risbench.learn.saved import check_looks, put_back, read_checkpoint, step_of
from risbench.learn.schedule import learning_rate_at
from risbench.sam.adapter_file import ENCODER
from risbench.sam.compact.model import CompactSam
from risbench.sam.pasam.predictor import PaSam

AnyBatch = Batch | WholeBatch
LOOK_EVERY: Final = 200
_LOG_EVERY: Final = 20
CHECKPOINT: Final = "last.pt"


@dataclass(frozen=True)
class AdapterRecipe:
    """The settings of a training; a run resumed with others is refused.

    Learning rates are Adam's; the encoder's is its share of the adapter's. `encoder` trains the image encoder; None does so for a
    compact base, whose encoder is small. The adapter appends its points from epoch `points_from` on (the official recipe: 5).
    `prompts` is "box" or "official", the published mix of boxes, points and masks, for a SAM of whole images.
    """

    seed: int = 0
    steps: int = 3200
    batch: int = 32
    learning_rate: float = 8e-4
    encoder: bool | None = None
    prompts: str = "box"
    points_from: int = 0
    encoder_share: float = 0.5
    warm_up: int = 40
    average: float = 0.99
    clip: float = 1.0


class Training:
    """A model, its running average and its optimiser; every step is a function of the recipe and its number."""

    def __init__(self, base: CompactSam | PaSam, recipe: AdapterRecipe, device: str, objects: int = 1) -> None:
        """Put a new adapter on a base; `objects` are those of an epoch."""
        self.recipe, self.device, self.objects = recipe, joined(device), objects
        self.kind = self.device.partition(":")[0]
        if self.kind == "cpu":
            keep_freed_memory()
        torch.manual_seed(recipe.seed)
        self.objective = objective_of(base).to(self.device).to(memory_format=torch.channels_last)
        model = self.objective.model
        self.names = self.objective.names(encoder=recipe.encoder if recipe.encoder is not None else isinstance(base, CompactSam))
        wanted = set(self.names)
        for name, value in model.named_parameters():
            value.requires_grad_(name in wanted)
        # evaluation mode throughout: batch norms keep the statistics they have, which fewer images could only spoil
        self.objective.eval()
        self.rank, self.ranks = ranks()
        self.parallel: nn.Module = DistributedDataParallel(self.objective) if self.ranks > 1 else self.objective
        self.pieces = 1
        parameters = dict(model.named_parameters())
        groups = []
        for is_encoder in (False, True):
            members = [parameters[name] for name in self.names if name.startswith(ENCODER) == is_encoder]
            if members:
                groups.append({"params": members, "share": recipe.encoder_share if is_encoder else 1.0})
        self.optimizer = torch.optim.Adam(groups, lr=recipe.learning_rate)
        average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.objective, multi_avg_fn=average)

    @property
    def model(self) -> CompactSam | PaSam:
        """The model as it is now."""
        return self.objective.model

    def step(self, number: int, batch: AnyBatch) -> PaLosses:
        """Learn from one batch.

        Raises:
            MissingRequirementError: the loss is not a finite number (all parts are named), or there is no memory for a single object.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(number, self.recipe) * group["share"]
        losses = self.gradients(number, batch)
        torch.nn.utils.clip_grad_norm_([value for group in self.optimizer.param_groups for value in group["params"]], self.recipe.clip)
        self.optimizer.step()
        self.averaged.update_parameters(self.objective)
        return losses

    def gradients(self, number: int, batch: AnyBatch) -> PaLosses:
        """Leave the gradients of a batch on the model and return its losses.

        Where the device's memory runs out the batch is cut in halves whose gradients are added up: the step stays the same. Not so
        under torchrun, where a smaller --batch is the way.

        Raises:
            MissingRequirementError: the loss is not a finite number, or there is no memory for a single object.
        """
        while True:
            try:
                return self._gradients(number, batch)
            except RuntimeError as error:
                lacking = out_of_memory(error, "free the device, give a smaller --batch, or run without --gpu")
                if lacking is None:
                    raise
                if self.ranks > 1 or self.pieces >= len(batch):
                    # several processes would have to agree on the pieces before any of them goes on
                    raise lacking from error
                self.pieces = min(2 * self.pieces, len(batch))

    def _gradients(self, number: int, batch: AnyBatch) -> PaLosses:
        self.optimizer.zero_grad(set_to_none=True)
        gumbel = self._gumbel(number)
        total: PaLosses | None = None
        count = len(batch)
        points = number * self.recipe.batch // self.objects >= self.recipe.points_from
        step = -(-count // self.pieces)
        for start in range(0, count, step):
            piece = type(batch)(*(part[start : start + step].to(self.device) for part in vars(batch).values()))
            with torch.autocast(self.kind, torch.bfloat16):
                found: PaLosses = self.parallel(piece, gumbel[start : start + step].to(self.device), points)
            if not finite(found):
                raise MissingRequirementError(f"step {number}: the loss is not finite: {found.parts()}; lower --learning-rate")
            share = len(piece) / count
            (found.total * share).backward()  # type: ignore[no-untyped-call]
            scaled = PaLosses(*(value.detach() * share for value in vars(found).values()))
            total = (
                scaled if total is None else PaLosses(*(a + b for a, b in zip(vars(total).values(), vars(scaled).values(), strict=True)))
            )
        assert total is not None, "a batch holds something"
        return total

    def _gumbel(self, number: int) -> Tensor:
        """Return the noise that this process's objects draw their points with; of the recipe's seed and the step's number."""
        noise = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + number)
        uniform = torch.rand(self.recipe.batch, 2, self.objective.cells, generator=noise).clamp(1e-6, 1 - 1e-6)
        return -torch.log(-torch.log(uniform[self.rank :: self.ranks]))

    def tensors(self) -> dict[str, Tensor]:
        """Return the averaged tensors that differ from the base's, by name."""
        inner = self.averaged.module
        assert isinstance(inner, CompactObjective | WholeObjective), "it averages what it was made of"
        return {name: value for name, value in inner.model.named_parameters() if name in set(self.names)}

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on."""
        return {"objective": self.objective.state_dict(), "averaged": self.averaged.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, path: Path, state: dict[str, Any]) -> None:
        """Go on from a state that was read from `path`.

        Raises:
            InputError: it is damaged, or of a model of other sizes.
        """
        step_of(path, state, self.recipe.steps)
        check_looks(path, state, {name: value.shape for name, value in self.tensors().items()})
        put_back(path, state, {"objective": self.objective, "averaged": self.averaged}, self.optimizer)


@torch.inference_mode()
def validated(objective: nn.Module, batches: Iterable[AnyBatch], device: str, adapter: bool = True) -> dict[str, float]:
    """Return mean IoU and mean boundary IoU of an objective's masks, or of its base's where `adapter` is off."""
    ious, boundaries = [], []
    for batch in batches:
        on_device = type(batch)(*(part.to(device) for part in vars(batch).values()))
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            logits = objective.logits(on_device, adapter)  # type: ignore[operator]
        half = 0.5 if batch.cover.is_floating_point() else 128
        for values, cover in zip(logits.float().cpu().numpy(), batch.cover.numpy(), strict=True):
            ious.append(mask_iou(values > 0, cover >= half))
            boundaries.append(boundary_iou(values > 0, cover >= half))
    return {"mean_iou": float(np.mean(ious)), "boundary_iou": float(np.mean(boundaries))}


class Source(Protocol):
    """What is learnt from, and the batches to look at, the same at every look."""

    objects: int
    workers: int

    def training(self, recipe: AdapterRecipe, start: int) -> IterableDataset[Any]: ...

    def validation(self, recipe: AdapterRecipe) -> Iterable[AnyBatch]: ...


def train(
    base: CompactSam | PaSam,
    source: Source,
    recipe: AdapterRecipe,
    out: Path,
    *,
    device: str,
    plan: str,
    quiet: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train into a folder; return the best averaged tensors and what came of it. The same call goes on after an interruption.

    `plan` is the digest of the recipe and of all that is learnt from: a run of another plan is not gone on with.

    Raises:
        InputError: the folder holds a run of another recipe or of other data, or a damaged checkpoint.
        MissingRequirementError: a loss that is not finite, or no memory for a single crop.
    """
    run = Training(base, recipe, device, source.objects)
    start, best, looks = _resumed(run, out, plan)
    batches = source.validation(recipe)
    if not looks:
        looks = [{"step": 0, **validated(run.objective, batches, run.device, not run.objective.is_new)}]
    apart: dict[str, Any] = {"prefetch_factor": 4, "multiprocessing_context": "spawn"} if source.workers else {}
    data = DataLoader(source.training(recipe, start), batch_size=None, num_workers=source.workers, **apart)
    began = time.monotonic()
    log = training_board(out / "tensorboard", start, wanted=run.rank == 0)
    with Progress("train-adapter", recipe.steps, quiet=quiet) as bar, log as board:
        bar.skip(start)
        with without_interrupts():
            batches_of_steps = iter(data)
        for step, batch in enumerate(relayed(batches_of_steps), start):
            losses = run.step(step, batch)
            last = step + 1 == recipe.steps
            if board is not None and (step % _LOG_EVERY == 0 or last):
                for name, value in losses.parts().items():
                    board.add_scalar(f"loss/{name}", value, step)
            if (step + 1) % LOOK_EVERY == 0 or last:
                look = {"step": step + 1, **validated(run.averaged.module, batches, run.device)}
                looks.append(look)
                if board is not None:
                    for name in ("mean_iou", "boundary_iou"):
                        board.add_scalar(f"validation/{name}", look[name], step + 1)
                if best is None or look["mean_iou"] > best["look"]["mean_iou"]:
                    best = {"look": look, "tensors": {name: value.detach().cpu().clone() for name, value in run.tensors().items()}}
                if run.rank == 0:
                    _keep(out / CHECKPOINT, {"plan": plan, "step": step + 1, "looks": looks, "best": best, **run.state()})
            bar.advance(1)
    if run.ranks > 1:
        distributed.barrier()  # the first process is about to clear away what the others may still be looking at
    assert best is not None, "the last step is always looked at"
    return best["tensors"], {"looks": looks, "best": best["look"], "seconds": round(time.monotonic() - began, 1)}


def _resumed(run: Training, out: Path, plan: str) -> tuple[int, dict[str, Any] | None, list[dict[str, Any]]]:
    state = saved_run(out, plan)
    if state is None:
        return 0, None, []
    run.restore(out / CHECKPOINT, state)
    return int(state["step"]), state["best"], list(state["looks"])


def saved_run(out: Path, plan: str) -> dict[str, Any] | None:
    """Return the state of a run in a folder, or None.

    Raises:
        InputError: it is of another plan, or damaged.
    """
    path = out / CHECKPOINT
    if not path.exists():
        return None
    state = read_checkpoint(path)
    if state.get("plan") != plan:
        raise InputError(f"{path}: holds a run with other options or other truth; remove {out} to start anew, or give the same options")
    return state


def plan_of(out: Path) -> str | None:
    """Return whose run a folder holds: its plan's digest, or None where it holds none that is whole: it is nobody's then."""
    try:
        plan = read_checkpoint(out / CHECKPOINT).get("plan")
    except InputError:
        return None
    return plan if isinstance(plan, str) else None


def _keep(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_durably(path, buffer.getvalue())
