"""A training as it stands: its parts, what is kept of it, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from risbench.benchmark.data.batches import Batch, Batches
from risbench.benchmark.data.cache import Cache
from risbench.benchmark.data.words import Words
from risbench.benchmark.models.crobim.crobim import CroBim
from risbench.benchmark.models.pretrained import described
from risbench.benchmark.models.registry import parameters_of
from risbench.benchmark.settings import Settings
from risbench.core.errors import MissingRequirementError
from risbench.learn.device import ran_out, ranks


@dataclass
class Run:
    """A training: the model, what it learns from, what it began with and the classes learnt there, and how far it is."""

    settings: Settings
    cache: Cache
    words: Words
    model: nn.Module
    device: str
    precision: str
    batches: Batches
    validation: NDArray[np.int64]
    steps: int
    begun: dict[str, dict[str, Any]]
    classes: Sequence[str] = ()
    step: int = 0
    looks: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0


def named_weights(settings: Settings, model: nn.Module) -> dict[str, dict[str, str]]:
    """Return what the encoders of a model that `build` made begin with."""
    whole = cast("Any", model)
    return {
        "backbone": described(settings.backbone.weights, whole.backbone.commit),
        "text": described(settings.text.weights, whole.text.commit),
    }


def state_of(run: Run, optimizer: torch.optim.AdamW, plan: str) -> dict[str, Any]:
    """Return what is needed to go on; of a run that is done, that it is."""
    state = {"plan": plan, "step": run.step, "looks": run.looks, "best": run.best}
    return state if run.step == run.steps else {**state, "model": run.model.state_dict(), "optimizer": optimizer.state_dict()}


def about_of(run: Run, name: str, seed: int, plan: str, look: dict[str, Any]) -> dict[str, Any]:
    """Return what a run's model is and was made of, for its `model.json`."""
    settings = run.settings
    cut = run.words.encode([run.cache.samples[number].sentence for number in run.batches.numbers])[2]
    return {
        "model": name,
        "plan": plan,
        "settings": settings.model_dump(mode="json"),
        "built": _built(run.model),
        "seed": seed,
        "precision": run.precision,
        "step": run.step,
        "steps": run.steps,
        "validation": look,
        "parameters": parameters_of(run.model),
        "weights": run.begun,
        "vocabulary": {"tokens": run.words.vocabulary, "from": run.words.origin},
        "sentences_cut": cut,
        "training": {"samples": len(run.batches.numbers), "format": run.cache.format, "digest": run.cache.digest},
        "classes": sorted({run.cache.samples[number].category for number in run.batches.numbers} | set(run.classes)),
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
    return {"backbone": backbone, "text": text, "embedded": bert.vocab_size}


def summary_of(run: Run, folder: Path, rank: int, seconds: float, waited: float, steps: int) -> dict[str, Any]:
    """Return what a training came to; `seconds` are those of its steps, `waited` of them for input."""
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
        "weights": {name: found["from"] for name, found in run.begun.items()},
    }


def need_numbers(run: Run) -> None:
    """Check that every weight is a number, before it is kept as the best or to go on from.

    Raises:
        MissingRequirementError: one is not.
    """
    bad = next((name for name, weight in run.model.named_parameters() if not bool(torch.isfinite(weight).all())), None)
    if bad is not None:
        raise MissingRequirementError(
            f"step {run.step}: {bad} is not finite; lower recipe.learning_rate, or set recipe.clip=1.0, with another -o"
        )


def what_fits(run: Run, step: int, batch: Batch, attempt: Callable[[Batch], Any]) -> str:
    """Return what to try where memory ran out: the largest halving of a process's batch that `attempt`, a step's gradients, has room for.

    Several processes that train together cannot try apart from one another: of them the half is named, untried.
    """
    whole, (_, count) = run.settings.recipe.batch, ranks()
    batch = batch.at(run.settings.side)  # a coarse one, with which a training may begin, takes less
    frugal = isinstance(run.model, CroBim) and not run.settings.mid.checkpoint
    tried = f"step {step} with recipe.batch={whole} at {run.settings.side} px does not fit"
    fits = _that_fits(run, batch, attempt) if count == 1 else whole // count // 2 * count
    ways = []
    if fits:
        ways.append(f"--set recipe.batch={fits}" + (", which fits" if count == 1 else ""))
    else:
        ways.append(f"a smaller side than {run.settings.side}, or another model")
    ways += ["--set mid.checkpoint=true, which keeps less for the way back"] if frugal else []
    return f"{tried}; try {' or '.join(ways)}, and another -o"


def _that_fits(run: Run, batch: Batch, attempt: Callable[[Batch], Any]) -> int:
    """Return the largest halving of a batch that there is room for beside the optimiser's two numbers a weight; 0: none."""
    size, beside = len(batch.tokens) // 2, list[torch.Tensor]()
    while size:
        run.model.zero_grad(set_to_none=True)
        if run.device != "cpu":
            torch.cuda.empty_cache()
        try:
            beside += [torch.empty_like(value) for value in run.model.parameters() for _ in range(2)] if run.step == 0 else []
            attempt(batch.first(size))
        except RuntimeError as error:
            if ran_out(error) is None:
                raise
        else:
            return size
        beside.clear()
        size //= 2
    return 0
