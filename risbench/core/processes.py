"""Processes that end with the one that began them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def dying_with_parent(number: int) -> Callable[[], None] | None:
    """Return what a child does first so that it gets the signal `number` when its parent ends, however that ends; None but on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # found here: after a fork little may be done
    return lambda: prctl(_PR_SET_PDEATHSIG, number) and None
