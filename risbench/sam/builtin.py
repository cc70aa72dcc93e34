"""The weights that risbench ships."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from risbench.sam.compact import CompactSam
from risbench.sam.compact_weights import load_compact


def builtin_weights() -> Path:
    """Return where the installed package's weights lie; `builtin_sam.md` beside them is their card."""
    return Path(str(resources.files("risbench.sam") / "builtin_sam.safetensors"))


@cache
def load_builtin(device: str = "cpu") -> tuple[CompactSam, str]:
    """Return (the built-in model in evaluation mode on `device`, sha256 of its weights)."""
    return load_compact(builtin_weights(), device)
