"""Masks as arrays and as COCO run-length encoding; cleaning rules live with the stage that uses them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from risbench.core.errors import InputError
from risbench.core.record import Mask


def encode_rle(mask: NDArray[Any]) -> tuple[tuple[int, int], str]:
    """Return ((height, width), counts) of a 2-D mask as COCO compressed RLE."""
    # pycocotools wants Fortran-ordered uint8 and is three times faster when it need not convert.
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    height, width = rle["size"]
    return (int(height), int(width)), rle["counts"].decode("ascii")


def decode_rle(size: tuple[int, int], counts: str) -> NDArray[np.bool_]:
    """Return the mask (height, width) of COCO compressed RLE.

    The run lengths must add up to height x width exactly: pycocotools itself trusts them.

    Raises:
        InputError: the runs do not fill the stated size.
    """
    total = sum(run_lengths(counts))
    if total != size[0] * size[1]:
        raise InputError(f"mask: the runs add up to {total} pixels; the stated size {size[0]} x {size[1]} has {size[0] * size[1]}")
    decoded = coco_mask.decode({"size": [size[0], size[1]], "counts": counts.encode("ascii")})
    return np.ascontiguousarray(decoded).astype(bool)


def run_lengths(counts: str) -> list[int]:
    """Return the run lengths of COCO's compressed string (LEB128-like, each run relative to the one two before it).

    Raises:
        InputError: the string is cut short, holds other characters, or a negative run.
    """
    runs: list[int] = []
    position = 0
    while position < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(counts) or not 48 <= ord(counts[position]) < 112 or shift > 40:
                raise InputError(f"mask: the run-length string breaks off or is damaged at character {position}")
            chunk = ord(counts[position]) - 48
            value |= (chunk & 0x1F) << shift
            more = bool(chunk & 0x20)
            position += 1
            shift += 5
            if not more and chunk & 0x10:
                value |= -1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise InputError(f"mask: run {len(runs)} of the run-length string is negative ({value})")
        runs.append(value)
    return runs


def mask_of(stored: Mask) -> NDArray[np.bool_]:
    """Return the pixels (height, width) of a record's mask."""
    return decode_rle(stored.size, stored.counts)


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """Return what tells one mask from another in keys."""
    return hashlib.sha256(np.packbits(mask).tobytes() + repr(mask.shape).encode()).hexdigest()[:16]


def mask_area(mask: Mask) -> int:
    """Return how many pixels a stored mask has.

    Raises:
        InputError: the run lengths are damaged.
    """
    return int(np.count_nonzero(mask_of(mask)))
