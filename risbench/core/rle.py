"""COCO's compressed run lengths, read and written without native code: what comes from outside is checked before an array is made.

pycocotools trusts a stated size and every character; a size of 10^6 x 10^6 ends the process. It never sees text from outside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError
from risbench.core.pixels import MAX_PIXELS

# 30 bits hold every difference of two runs of such a mask. pycocotools reads a seventh character wrongly.
_LONGEST_RUN: Final = 6


def check_mask_size(height: int, width: int) -> None:
    """Refuse a mask size that no image has.

    Raises:
        InputError: a side is not positive, or there are more than 200,000,000 pixels.
    """
    if height <= 0 or width <= 0:
        raise InputError(f"mask: size {height} x {width}: both sides must be positive")
    if height * width > MAX_PIXELS:
        raise InputError(f"mask: size {height} x {width}: it may have at most {MAX_PIXELS:,} pixels")


def run_lengths(counts: str) -> NDArray[np.int64]:
    """Return the run lengths of COCO's compressed string (5 bits a character, from the fourth on relative to the run two before).

    Raises:
        InputError: the string is cut short, holds another character, a run of more than six characters or a negative one.
    """
    if not counts:
        return np.zeros(0, np.int64)
    digits = _digits(counts)
    ends = np.flatnonzero(digits < 32)
    if not ends.size or ends[-1] != digits.size - 1:
        raise InputError(f"mask: the run-length string breaks off at character {digits.size}")
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    if lengths[longest := int(lengths.argmax())] > _LONGEST_RUN:
        said = f"is written in {lengths[longest]} characters; COCO's tools read at most {_LONGEST_RUN}"
        raise InputError(f"mask: run {longest} of the run-length string {said}")
    places = np.arange(digits.size) - starts.repeat(lengths)
    values = np.add.reduceat((digits & 31) << (5 * places), starts)
    values -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    if values[lowest := int(values.argmin())] < 0:
        raise InputError(f"mask: run {lowest} of the run-length string is negative ({values[lowest]})")
    return values


def _digits(counts: str) -> NDArray[np.int64]:
    """Return what each character stands for, 0 to 63."""
    try:
        digits = np.frombuffer(counts.encode("ascii"), np.uint8) - np.uint8(48)
        wrong = int((digits > 63).argmax()) if digits.max() > 63 else None
    except UnicodeEncodeError as error:
        wrong = error.start
    if wrong is not None:
        raise InputError(f"mask: the run-length string is damaged at character {wrong}")
    return digits.astype(np.int64)


def filled_runs(height: int, width: int, counts: str) -> NDArray[np.int64]:
    """Return the runs of a mask (height, width), column by column, background first.

    Raises:
        InputError: the size is none that an image has, the string is damaged, or its runs do not add up to height x width.
    """
    check_mask_size(height, width)
    if len(counts) > 4 * height * width + 64:
        raise InputError(f"mask: a run-length string of {len(counts):,} characters is too long for {height} x {width} pixels")
    runs = run_lengths(counts)
    total = int(runs.sum())
    if total != height * width:
        raise InputError(f"mask: the runs add up to {total} pixels; the stated size {height} x {width} has {height * width}")
    return runs


def compress_runs(runs: Iterable[int]) -> str:
    """Return COCO's compressed string of runs that are not negative and below 2^28."""
    written: list[str] = []
    before: list[int] = []
    for run in runs:
        value = run - before[-2] if len(before) > 2 else run
        before.append(run)
        while True:
            digit, value = value & 31, value >> 5
            last = value == (-1 if digit & 16 else 0)
            written.append(chr(48 + digit + (0 if last else 32)))
            if last:
                break
    return "".join(written)
