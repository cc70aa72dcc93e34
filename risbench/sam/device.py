"""What devices say when they have had enough, in words for the user."""

from __future__ import annotations

from typing import Final

import torch

from risbench.core.errors import EnvironmentLacks

_SIGNS: Final = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def out_of_memory(error: RuntimeError, advice: str) -> EnvironmentLacks | None:
    """Return the user's error where a device's memory ran out, in the ways that PyTorch is known to say so; else None."""
    said = " ".join(str(error).split())
    if not isinstance(error, torch.cuda.OutOfMemoryError) and not any(sign in said for sign in _SIGNS):
        return None
    return EnvironmentLacks(f"{said.partition('. ')[0][:200]}; {advice}")
