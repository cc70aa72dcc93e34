"""The weights that risbench ships."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from risbench.core.errors import InputError
from risbench.sam.compact.model import CompactSam
from risbench.sam.compact.weights import load_compact

BUILTIN_SHA256: Final = "a474e448f5118a07b118651edb24e469716d0e7bd55cc1fb1e52fb91752cd95b"


def builtin_weights() -> Path:
    """Return where the installed package's weights lie; `builtin_sam.md` beside them is their card."""
    return Path(str(resources.files("risbench.sam") / "builtin_sam.safetensors"))


@cache
def load_builtin(device: str = "cpu") -> tuple[CompactSam, str]:
    """Return (the built-in model in evaluation mode on `device`, sha256 of its weights).

    Raises:
        InputError: the installed file is not the one that was shipped; a flipped byte loads, and no mask shows it.
    """
    model, digest = load_compact(builtin_weights(), device)
    if digest != BUILTIN_SHA256:
        raise InputError(f"{builtin_weights()}: sha256 is {digest}, not {BUILTIN_SHA256}; the file is damaged: install risbench again")
    return model, digest
