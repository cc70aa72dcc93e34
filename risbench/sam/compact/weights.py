"""Reading and writing compact SAMs: safetensors whose header carries the sizes, so that no code is run and none is guessed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import InputError
from risbench.sam.compact.model import CompactSam, CompactSettings
from risbench.sam.tensor_file import format_of, not_finite, read_tensors, singles, write_tensors

FORMAT: Final = "risbench compact SAM 1"


def save_compact(model: CompactSam, path: Path, notes: dict[str, Any]) -> None:
    """Write a model's tensors in half precision, with its settings and notes in the header, under a temporary name first."""
    header = {"format": FORMAT, "settings": model.settings.as_metadata(), "notes": notes}
    write_tensors(path, model.state_dict(), header)


def is_compact(path: Path) -> bool:
    """Return whether a file is a compact SAM of ours, by its header."""
    return format_of(path) == FORMAT


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
    header, state = read_tensors(place, f"--checkpoint {place}", FORMAT)
    try:
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in header["settings"].items()}
        settings = CompactSettings(**plain)
        model = CompactSam(settings)
        model.load_state_dict(singles(state), strict=True)
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, ArithmeticError, AttributeError, IndexError) as error:
        raise InputError(f"--checkpoint {place}: {' '.join(str(error).split())[:400]}") from None
    bad = not_finite(state)
    if bad is not None:
        raise InputError(f"--checkpoint {place}: {bad} holds values that are not finite numbers; the file is damaged")
    return model.eval().to(device), digest
