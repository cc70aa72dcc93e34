"""Our own files of tensors: safetensors in half precision whose header says what they are, so that nothing is run or guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from risbench.core.errors import InputError
from risbench.core.storage import write_durably


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors in half precision with a header, under a temporary name first; the same input gives the same bytes."""
    halved = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    halved = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in halved.items()}
    bad = not_finite(halved)
    if bad is not None:
        raise ValueError(f"{bad} holds values that are no numbers in half precision")
    # One key only: safetensors writes several in no fixed order. Through memory: it makes files that only their owner may
    # read, and explains a full disk poorly.
    write_durably(path, save(halved, metadata={"risbench": json.dumps(dict(header), sort_keys=True)}))


def read_tensors(path: Path, where: str, form: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and the tensors of a file of one of our formats; `where` names it in errors.

    Raises:
        InputError: cut short, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get("risbench", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{where}: not a whole safetensors file ({error})") from None
    found = header.get("format") if isinstance(header, dict) else header
    if found != form:
        raise InputError(f"{where}: format is {found!r}, not {form!r}")
    return header, tensors


def format_of(path: Path) -> str | None:
    """Return the format that a file's header names, None where it is none of ours."""
    try:
        with safe_open(path, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get("risbench", "{}"))
    except (SafetensorError, OSError, ValueError):
        return None
    found = header.get("format") if isinstance(header, dict) else None
    return found if isinstance(found, str) else None


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first tensor that holds something else than finite numbers, or None."""
    return next((name for name, value in tensors.items() if not bool(torch.isfinite(value.float()).all())), None)


def singles(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in the precision that models are built in."""
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
