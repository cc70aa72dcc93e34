"""Masks as arrays and as COCO run-length encoding; cleaning rules live with the stage that uses them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from risbench.core.errors import InputError, InvalidRowError
from risbench.core.record import Mask
from risbench.core.rle import check_mask_size, filled_runs

_LONGEST_OUTLINE_PX: Final = 4_000_000


def encode_rle(mask: NDArray[Any]) -> tuple[tuple[int, int], str]:
    """Return ((height, width), counts) of a 2-D mask as COCO compressed RLE."""
    # pycocotools wants Fortran-ordered uint8 and is three times faster when it need not convert.
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    height, width = rle["size"]
    return (int(height), int(width)), rle["counts"].decode("ascii")


def decode_rle(size: tuple[int, int], counts: str) -> NDArray[np.bool_]:
    """Return the mask (height, width) of COCO compressed RLE.

    Raises:
        InputError: no image has that size, the string is damaged, or its runs do not fill the size exactly.
    """
    height, width = size
    runs = filled_runs(height, width, counts)
    values = np.arange(runs.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def polygons_mask(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    """Return the union of polygons (x, y, x, y, ... in pixels) as a mask (height, width), by COCO's rule.

    Raises:
        InvalidRowError: no image has that size, or the outlines are so long that no object of it can have them.
    """
    try:
        check_mask_size(height, width)
    except InputError as error:
        raise InvalidRowError("wrong_size", "segmentation", [height, width], str(error)) from None
    # pycocotools walks every outline in steps of a fifth of a pixel and keeps all of them: memory goes by the length, not by the image.
    length = sum(_longer_steps(polygon) for polygon in polygons)
    if length > _LONGEST_OUTLINE_PX:
        bound = f"the outlines of a mask may be {_LONGEST_OUTLINE_PX:,} px long together; give such a mask as run lengths or as a picture"
        raise InvalidRowError("outline_too_long", "segmentation", round(length), bound)
    if not polygons:
        return np.zeros((height, width), bool)
    rles = coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width)
    return np.ascontiguousarray(coco_mask.decode(coco_mask.merge(rles))).astype(bool)


def _longer_steps(polygon: Sequence[float]) -> float:
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


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
    return int(filled_runs(*mask.size, mask.counts)[1::2].sum())
