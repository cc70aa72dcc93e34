"""Arrays of pixels: which sizes are read, the stretch to 8 bits, and turning upright."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InvalidRowError

Pixels = NDArray[np.uint8]
Value = TypeVar("Value", bound=np.generic)

MAX_PIXELS: Final = 200_000_000
MAX_BAND_BYTES: Final = 400_000_000
MIN_SIDE_PX: Final = 8
_ROWS: Final = 512
_SAMPLES: Final = 1_000_000


def check_size(name: str, width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse images that are too small to hold an object or too large to decode in memory."""
    size = f"{width} x {height} px"
    if min(width, height) < MIN_SIDE_PX:
        raise InvalidRowError("image_too_small", "image", name, f"it is {size}; a side must have at least {MIN_SIDE_PX} px")
    if width * height > max_pixels:
        raise InvalidRowError(
            "image_too_large", "image", name, f"it is {size}; at most {max_pixels:,} pixels are decoded: cut it into tiles first"
        )


def turned(array: NDArray[Value], orientation: int) -> NDArray[Value]:
    """Return an array (height, width, ...) as EXIF's orientation (1 to 8) says it is to be seen."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def to_eight_bits(band: NDArray[Any], valid: NDArray[np.bool_] | None, bits: int | None = None) -> Pixels:
    """Bring one band (height, width) to 8 bits; what is not `valid` becomes 0.

    8-bit bands stay as they are, and those of fewer (`bits`) fill 0 to 255. All others are stretched between the 2nd and 98th
    percentile of their valid, finite pixels.
    """
    if np.iscomplexobj(band):
        band = np.abs(band)
    if band.dtype == np.uint8:
        eight: Pixels = band if bits is None or bits >= 8 else _widened(band, bits)
        return eight if valid is None else np.where(valid, eight, np.uint8(0))
    out = np.zeros(band.shape, np.uint8)
    limits = _limits(band, valid)
    if limits is None:
        return out
    low, high = limits
    scale = 255.0 / (high - low) if high > low else 0.0
    for rows, usable in _usable(band, valid):
        part = band[rows] if usable is None else np.where(usable, band[rows], low)
        values = np.clip((part.astype(np.float64) - low) * scale, 0, 255)
        out[rows] = (values if usable is None else np.where(usable, values, 0)).round().astype(np.uint8)
    return out


def _widened(band: Pixels, bits: int) -> Pixels:
    table = (np.arange(256) * 255 / (2**bits - 1)).round().clip(0, 255).astype(np.uint8)
    return np.asarray(table[band], dtype=np.uint8)


def _usable(band: NDArray[Any], valid: NDArray[np.bool_] | None) -> Iterator[tuple[slice, NDArray[np.bool_] | None]]:
    """Yield some rows at a time, with which of their pixels count; None: all of them."""
    for start in range(0, band.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        usable = None if valid is None else valid[rows]
        if np.issubdtype(band.dtype, np.inexact):
            finite = np.isfinite(band[rows])
            usable = finite if usable is None else usable & finite
        yield rows, usable


def _limits(band: NDArray[Any], valid: NDArray[np.bool_] | None) -> tuple[float, float] | None:
    """Return the 2nd and 98th percentile, or where they are equal the least and the largest value; None without a valid pixel."""
    count = sum(band[rows].size if usable is None else int(np.count_nonzero(usable)) for rows, usable in _usable(band, valid))
    if count == 0:
        return None
    # A million samples settle a percentile; the stride is fixed, so the result is too.
    stride, seen = max(1, count // _SAMPLES), 0
    samples: list[NDArray[Any]] = []
    least: list[float] = []
    largest: list[float] = []
    for rows, usable in _usable(band, valid):
        values = band[rows].ravel() if usable is None else band[rows][usable]
        if values.size:
            samples.append(values[-seen % stride :: stride].astype(np.float64))
            least.append(float(values.min()))
            largest.append(float(values.max()))
        seen += values.size
    low, high = np.percentile(np.concatenate(samples), (2, 98))
    return (float(low), float(high)) if high > low else (min(least), max(largest))
