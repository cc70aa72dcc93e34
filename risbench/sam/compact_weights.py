"""Reading and writing compact SAMs: safetensors whose header carries the sizes, so that no code is run and none is guessed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from risbench.core.errors import InputError
from risbench.core.storage import write_durably
from risbench.sam.compact import CompactSam, CompactSettings

FORMAT: Final = "risbench compact SAM 1"


def save_compact(model: CompactSam, path: Path, notes: dict[str, Any]) -> None:
    """Write a model's tensors in half precision, with its settings and notes in the header, under a temporary name first."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    halved = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in state.items()}
    # One key only: safetensors writes several in no fixed order, and the same weights should be the same bytes.
    header = {"risbench": json.dumps({"format": FORMAT, "settings": model.settings.as_metadata(), "notes": notes}, sort_keys=True)}
    bad = next((name for name, value in halved.items() if not bool(torch.isfinite(value.float()).all())), None)
    if bad is not None:
        raise ValueError(f"{bad} holds values that are no numbers in half precision")
    # Through memory: safetensors makes files that only their owner may read, and explains a full disk poorly.
    write_durably(path, save(halved, metadata=header))


def load_compact(path: Path | str, device: str = "cpu") -> tuple[CompactSam, str]:
    """Return (model in evaluation mode on `device`, sha256 of the file).

    Raises:
        InputError: no such file, cut short, not a compact SAM, or tensors that do not fit its settings.
    """
    place = Path(path)
    if not place.is_file():
        raise InputError(f"--checkpoint {place}: there is no such file")
    with open(place, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with safe_open(place, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get("risbench", "{}"))
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"--checkpoint {place}: not a whole safetensors file ({error})") from None
    if header.get("format") != FORMAT:
        raise InputError(f"--checkpoint {place}: format is {header.get('format')!r}, not {FORMAT!r}")
    try:
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in header["settings"].items()}
        settings = CompactSettings(**plain)
        model = CompactSam(settings)
        model.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()}, strict=True)
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, ArithmeticError, AttributeError, IndexError) as error:
        raise InputError(f"--checkpoint {place}: {' '.join(str(error).split())[:400]}") from None
    bad = next((name for name, value in state.items() if not bool(torch.isfinite(value.float()).all())), None)
    if bad is not None:
        raise InputError(f"--checkpoint {place}: {bad} holds values that are not finite numbers; the file is damaged")
    return model.eval().to(device), digest
