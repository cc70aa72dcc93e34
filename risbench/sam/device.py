"""Devices and their memory: what they say when they have had enough, in words for the user, and how the CPU's is kept."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

import torch

from risbench.core.errors import EnvironmentLacks

_SIGNS: Final = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
# glibc's malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD.
_KEEPING: Final = ((-4, 0), (-1, 2**31 - 1))


def out_of_memory(error: RuntimeError, advice: str) -> EnvironmentLacks | None:
    """Return the user's error where a device's memory ran out, in the ways that PyTorch is known to say so; else None."""
    said = " ".join(str(error).split())
    if not isinstance(error, torch.cuda.OutOfMemoryError) and not any(sign in said for sign in _SIGNS):
        return None
    return EnvironmentLacks(f"{said.partition('. ')[0][:200]}; {advice}")


def keep_freed_memory() -> bool:
    """Tell glibc to keep the memory that tensors free in this process instead of giving it back; return whether it could be told.

    Every tensor over 128 KiB is otherwise mapped anew and its pages are faulted in one by one: on two cores that is a third of the
    time of a training step, and nearly half of an image encoder's. Peak memory stays the same. Elsewhere than on glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, value) == 1 for option, value in _KEEPING)


def fast_precision(device: str) -> str:
    """Return bf16 where the device multiplies it in hardware (Nvidia from Ampere on; Intel's AMX, AVX-512 BF16), else fp32."""
    if device != "cpu":
        return "bf16" if torch.version.hip or torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    # PyTorch has no public name for these two; where it has none at all the slower one is right
    tests = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return "bf16" if any(test is not None and test() for test in tests) else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """Return PyTorch's type of "fp32" or "bf16"."""
    return torch.bfloat16 if precision == "bf16" else torch.float32
