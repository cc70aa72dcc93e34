"""Devices and their memory: what they say when they have had enough, in words for the user, and how the CPU's is kept."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Final

import torch
from torch import distributed

from risbench.core.errors import MissingRequirementError, OptionError

_SIGNS: Final = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
# glibc's malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD.
_KEEPING: Final = ((-4, 0), (-1, 2**31 - 1))


def out_of_memory(error: RuntimeError, advice: str) -> MissingRequirementError | None:
    """Return the user's error where a device's memory ran out; else None."""
    said = ran_out(error)
    return MissingRequirementError(f"{said}; {advice}") if said is not None else None


def need_cuda(doing: str) -> None:
    """Check that PyTorch finds a CUDA device for `doing` (train, evaluate).

    Raises:
        MissingRequirementError: it finds none.
    """
    if not torch.cuda.is_available():
        raise MissingRequirementError(
            f"--gpu: PyTorch finds no CUDA device here; leave --gpu out to {doing} on the CPU, or mend the driver"
        )


@contextlib.contextmanager
def memory_for(advice: str) -> Iterator[None]:
    """Turn a device's memory running out inside into the user's error, with what to do.

    Raises:
        MissingRequirementError: it ran out.
    """
    try:
        yield
    except RuntimeError as error:
        lacking = out_of_memory(error, advice)
        if lacking is None:
            raise
        raise lacking from None


def ran_out(error: RuntimeError) -> str | None:
    """Return what PyTorch says where a device's memory ran out, in the ways that it is known to say so; else None."""
    said = " ".join(str(error).split())
    if not isinstance(error, torch.cuda.OutOfMemoryError) and not any(sign in said for sign in _SIGNS):
        return None
    return said.partition(". ")[0][:200]


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


def ranks() -> tuple[int, int]:
    """Return this process's number and how many train together: torchrun's RANK and WORLD_SIZE, 0 and 1 without it.

    Raises:
        OptionError: they are no numbers, or the others cannot be found.
    """
    said = ", ".join(f"{name}={os.environ.get(name)}" for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    try:
        rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        raise OptionError(f"{said}: must be as torchrun sets them") from None
    if not 0 <= rank < max(count, 1) or count < 1 or (count > 1 and not os.environ.get("MASTER_ADDR")):
        raise OptionError(f"{said}: must be as torchrun sets them; unset them to train in one process")
    return rank, count


def joined(device: str) -> str:
    """Join the processes that train together, if there are several, and return this one's device."""
    if ranks()[1] == 1:
        return device
    if device == "cuda":
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device
