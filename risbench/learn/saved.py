"""Checkpoints of the trainings here, read back: every value is checked, and a damaged file is one line that names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from risbench.core.errors import InputError, printable
from risbench.core.storage import explain_read_error, is_system_failure

_MEND: Final = "remove it to start anew"
# What Adam needs of its groups (`share` is ours, of its learning rate), and keeps of every weight.
_NEEDED: Final = {"params", "lr", "betas", "eps", "weight_decay"}
_KEPT: Final = {"step", "exp_avg", "exp_avg_sq"}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, by name.

    Raises:
        InputError: it is missing, cut short or damaged.
        MissingRequirementError: it is there and cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file makes the reader fail in any way
        if isinstance(error, OSError) and is_system_failure(error):
            raise explain_read_error(error, path) from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a whole checkpoint ({printable(reason)}); remove it to start anew") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise _damaged(path, "it holds no values by name")
    return state


def step_of(path: Path, state: Mapping[str, Any], steps: int) -> int:
    """Return the step to go on with.

    Raises:
        InputError: it is no step of a training of so many.
    """
    step = state.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= steps:
        raise _damaged(path, f"step = {printable(step, 40)}, of {steps:,}")
    return step


def check_looks(path: Path, state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
    """Check what validation said, and the best tensors so far, which are by name and shape `shapes`.

    Raises:
        InputError: a value is missing or of another kind.
    """
    looks, best = state.get("looks"), state.get("best")
    if not isinstance(looks, list) or not looks or not all(_is_look(look) for look in looks):
        raise _damaged(path, "looks are not what validation says")
    if not isinstance(best, dict) or not _is_look(best.get("look")):
        raise _damaged(path, "best.look is not what validation says")
    check_tensors(path, "best.tensors", best.get("tensors"), shapes)


def _is_look(look: object) -> bool:
    numbers = [look.get(name) for name in ("step", "mean_iou", "boundary_iou")] if isinstance(look, dict) else [None]
    return all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in numbers)


def check_tensors(path: Path, name: str, found: object, shapes: Mapping[str, torch.Size], mend: str = _MEND) -> None:
    """Check that tensors have these names and shapes, and are finite; `mend` says what to do.

    Raises:
        InputError: they are not; the first that differs is named.
    """
    if not isinstance(found, dict) or set(found) != set(shapes):
        raise InputError(f"{path}: holds a model of other sizes ({name}: other tensors); {mend}")
    for key, value in found.items():
        if not isinstance(value, Tensor) or value.shape != shapes[key]:
            raise InputError(f"{path}: holds a model of other sizes ({name}: {key} is not {tuple(shapes[key])}); {mend}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise _damaged(path, f"{name}: {key} is not finite", mend)


def put_back(
    path: Path, state: Mapping[str, Any], models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, mend: str = _MEND
) -> None:
    """Put the weights of a checkpoint on models, by their names in it, and the optimiser's numbers on the optimiser; `mend`: what to do.

    Raises:
        InputError: something is missing, of other sizes or not finite.
    """
    for name, model in models.items():
        check_tensors(path, name, state.get(name), {key: value.shape for key, value in model.state_dict().items()}, mend)
    odd = _odd_in(state.get("optimizer"), optimizer)
    if odd is not None:
        raise _damaged(path, f"optimizer{odd}", mend)
    for name, model in models.items():
        model.load_state_dict(state[name])
    optimizer.load_state_dict(state["optimizer"])


def _odd_in(found: Any, optimizer: torch.optim.Optimizer) -> str | None:
    """Return what does not fit in an optimiser's groups and numbers, or None; PyTorch would only notice in the next step."""
    own = optimizer.state_dict()["param_groups"]
    groups, kept = (found.get("param_groups"), found.get("state")) if isinstance(found, dict) else (None, None)
    if not isinstance(groups, list) or not isinstance(kept, dict) or len(groups) != len(own):
        return " holds no groups of this model"
    shapes: dict[Any, torch.Size] = {}
    for group, mine, real in zip(groups, own, optimizer.param_groups, strict=True):
        needed = _NEEDED | ({"share"} & set(mine))
        if not isinstance(group, dict) or group.get("params") != mine["params"] or not set(group) >= needed:
            return ".param_groups are not those of this model"
        # a later PyTorch may have more of them
        odd = next((name for name, value in mine.items() if name in group and not _alike(group[name], value)), None)
        if odd is not None:
            return f".param_groups: {odd} = {printable(group[odd], 40)}"
        shapes |= {number: value.shape for number, value in zip(mine["params"], real["params"], strict=True)}
    for number, values in kept.items():
        if number not in shapes or not isinstance(values, dict) or not set(values) >= _KEPT:
            return f".state: {printable(number, 40)} is no weight of this model"
        for name, value in values.items():
            if not isinstance(value, Tensor) or value.shape != (torch.Size() if name == "step" else shapes[number]):
                return f".state: {printable(name, 40)} of weight {number} has another shape"
            if not bool(torch.isfinite(value).all()):
                return f".state: {printable(name, 40)} of weight {number} is not finite"
    return None


def _alike(found: object, expected: object) -> bool:
    if isinstance(expected, tuple):
        return isinstance(found, tuple) and len(found) == len(expected) and all(map(_alike, found, expected))
    if isinstance(expected, float):
        return isinstance(found, float) and math.isfinite(found)
    return type(found) is type(expected)


def _damaged(path: Path, what: str, mend: str = _MEND) -> InputError:
    return InputError(f"{path}: is damaged ({what}); {mend}")
