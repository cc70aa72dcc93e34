"""Processes that end with the one that began them, and leave it the cores while they wait."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def dying_with_parent(number: int) -> Callable[[], None] | None:
    """Return what a child does first so that it gets the signal `number` when its parent ends, however that ends; None but on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # found here: after a fork little may be done
    return lambda: prctl(_PR_SET_PDEATHSIG, number) and None


def end_with(parent: int) -> None:
    """Have this process killed when the one that began it, `parent`, ends, however that ends; at once where it has."""
    if (die := dying_with_parent(signal.SIGKILL)) is not None:
        die()
        if os.getppid() != parent:
            os._exit(1)


@contextlib.contextmanager
def patient_threads() -> Iterator[None]:
    """Have processes that are begun in here with as many threads each as there are cores wait without turning.

    GNU's OpenMP has them turn on a core while they wait, which is another process's: two then took three times as long as need be.
    """
    before = {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
