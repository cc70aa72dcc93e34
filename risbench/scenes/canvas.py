"""A canvas of 512 x 512 pixels and how things are laid on it: anti-aliased polygons, brushes of texture, shadows, exact masks.

Pixel (row, column) covers x from column to column + 1; points are (n, 2) arrays of x and y in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import polygon_mask

SIDE_PX: Final = 512
_BANK_SIDE: Final = 1024
_CELLS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
LUMPS: Final = 0
# Noise is kept as bytes about 128: this many steps are one standard deviation of it.
SPREAD: Final = 32
# Grain is kept in the fourth plane of a canvas, in eighths of a level.
_GRAIN_STEPS: Final = 8
# Outlines are kept in 64ths of a pixel.
_BITS: Final = 6
_HALF: Final = 1 << (_BITS - 1)
_LARGE_PX: Final = 256

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Random = np.random.Generator
Window = tuple[slice, slice]
Scalar = float | np.floating[Any]


class Outlines(NamedTuple):
    """Polygons in 64ths of a pixel, as OpenCV draws them: all their points (n, 2), and each one as a view of those."""

    every: NDArray[np.int32]
    parts: list[NDArray[np.int32]]


def outlines(points: Sequence[Points], turn: Points | None = None, shift: Points | None = None) -> Outlines:
    """Return polygons (n, 2) in pixels, first mapped by `points @ turn + shift` if those are given."""
    one = points[0] if len(points) == 1 else np.concatenate(points)
    if turn is not None and shift is not None:
        one = one @ (turn * (1 << _BITS)) + shift * (1 << _BITS)
    else:
        one = one * (1 << _BITS)
    every = np.rint(one).astype(np.int32)
    if len(points) == 1:
        return Outlines(every, [every])
    parts, start = [], 0
    for part in points:
        parts.append(every[start : start + len(part)])
        start += len(part)
    return Outlines(every, parts)


@cache
def noise_bank() -> dict[int, list[Bytes]]:
    """Return tiles (1024, 1024) of smooth noise by the size of their bumps in pixels, 128 +- 32, four ways up; made once a process."""
    random = np.random.default_rng(20_240_810)
    bank: dict[int, Floats] = {}
    for cell in _CELLS:
        count = _BANK_SIDE // cell
        small = random.standard_normal((count, count)).astype(np.float32)
        wide = np.asarray(cv2.resize(small, (_BANK_SIDE, _BANK_SIDE), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
        bank[cell] = wide / wide.std()
    bank[LUMPS] = _canopy(random)
    return {
        cell: [np.ascontiguousarray(_as_bytes(unit)[::down, ::right]) for down in (1, -1) for right in (1, -1)]
        for cell, unit in bank.items()
    }


def _as_bytes(unit: Floats) -> Bytes:
    return np.asarray(np.clip(np.rint(128 + SPREAD * unit), 0, 255), dtype=np.uint8)


def _canopy(random: Random) -> Floats:
    """Return the light on a closed canopy of crowns (1024, 1024), of unit spread: woods, and rubble when seen small."""
    tile = np.zeros((_BANK_SIDE, _BANK_SIDE), np.float32)
    for x, y, radius, light in zip(
        *random.uniform(0, _BANK_SIDE, (2, 9000)), random.uniform(4, 13, 9000), random.normal(0, 1, 9000), strict=True
    ):
        at = (int(x), int(y))
        cv2.circle(tile, at, int(radius), float(light - 1.2), -1)
        cv2.circle(tile, (int(x - 0.25 * radius), int(y - 0.25 * radius)), int(0.7 * radius), float(light + 0.5), -1)
    soft = np.asarray(cv2.GaussianBlur(tile, (0, 0), 0.8), dtype=np.float32)
    return np.asarray((soft - soft.mean()) / soft.std(), dtype=np.float32)


def noise(random: Random, height: int, width: int, cell: int) -> Bytes:
    """Return a window (height, width) of smooth noise, 128 +- 32, mirrored at random; a view, not to be written to."""
    top, left = random.integers(_BANK_SIDE - height + 1), random.integers(_BANK_SIDE - width + 1)
    return noise_bank()[cell][int(random.integers(4))][top : top + height, left : left + width]


def tinted(texture: Bytes, color: Any, strength: float) -> Bytes:
    """Return a picture (height, width, 4) of a colour (3,) with a texture of some levels' spread on it."""
    levels = np.asarray(color) + (np.arange(256)[:, None] - 128) * (strength / SPREAD)
    table = np.zeros((256, 4), np.uint8)
    table[:, :3] = np.minimum(np.maximum(levels, 0), 255)
    return table.view(np.uint32)[:, 0].take(texture).view(np.uint8).reshape(*texture.shape, 4)


def window_of(shape: Outlines) -> Window | None:
    """Return the rows and columns of the canvas that polygons touch, and one more around.

    None where they lie outside, or all within half a pixel.
    """
    x, y, width, height = cv2.boundingRect(shape.every)
    if width < _HALF and height < _HALF:
        return None
    left, top = max(0, (x >> _BITS) - 1), max(0, (y >> _BITS) - 1)
    right, bottom = min(SIDE_PX, ((x + width) >> _BITS) + 2), min(SIDE_PX, ((y + height) >> _BITS) + 2)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def coverage(shape: Outlines, window: Window) -> Bytes:
    """Return how much of every pixel of a window the union of polygons covers, 255 for all of it.

    OpenCV draws outlines along: edges lie an eighth of a pixel too far out, a quarter in windows larger than 48 px.
    """
    top, left = window[0].start, window[1].start
    height, width = window[0].stop - top, window[1].stop - left
    fine = 2 if max(height, width) <= 48 else 1
    drawn = np.zeros((height << fine, width << fine), np.uint8)
    # OpenCV counts from the centre of the first pixel, and moves by fixed-point steps
    half = 1 << (_BITS - fine - 1)
    origin = (-(left << _BITS) - half, -(top << _BITS) - half)
    for part in shape.parts:
        cv2.fillPoly(drawn, [part], 255, cv2.LINE_8, _BITS - fine, origin)
    return np.asarray(cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def exact_mask(points: Sequence[Points]) -> NDArray[np.bool_]:
    """Return the mask (512, 512) of the union of polygons: pixels whose centre lies inside."""
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    window = window_of(outlines(points))
    if window is None:
        return mask
    top, left = window[0].start, window[1].start
    inner = mask[window]
    for part in points:
        inner |= polygon_mask(part - (left, top), *inner.shape)
    return mask


def _tone(color: Any, grain: float) -> tuple[int, int, int, int]:
    # grain is only ever added, so what bears it starts as much darker as it adds on average
    darker = grain * 128 / SPREAD - 0.5
    red, green, blue = (min(255, max(0, int(level - darker))) for level in np.asarray(color).tolist())
    return red, green, blue, min(255, round(grain * _GRAIN_STEPS))


def window_around(corners: Points) -> Window:
    """Return the rows and columns of the canvas around points (n, 2) on it."""
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)).tolist(), np.ceil(corners.max(axis=0)).tolist()
    return slice(max(0, int(top)), int(bottom)), slice(max(0, int(left)), int(right))


class Canvas:
    """A picture (512, 512, 4): red, green, blue and the strength of grain; and the shadow that tall things cast on it.

    All that is painted on it bears the same grain, each as strongly as it wants; `develop` lays it on.
    """

    def __init__(self, ground: Bytes) -> None:
        self.pixels: Bytes = ground
        self.shadow: Bytes = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        self._plain: Bytes = np.empty_like(ground)

    def fill(self, shape: Outlines, color: Any, opacity: float = 1.0, grain: float = 0.0) -> None:
        """Lay a colour (3,) with `grain` (levels) on the union of polygons.

        Colours darker than four times the grain come out brighter than asked: bytes have no room below zero.
        """
        window = window_of(shape)
        if window is None:
            return
        height, width = window[0].stop - window[0].start, window[1].stop - window[1].start
        if opacity >= 1 and max(height, width) > _LARGE_PX:
            self.draw(shape, color, grain)
            return
        plain = self._plain[:height, :width]
        plain.view(np.uint32)[...] = np.array(_tone(color, grain), np.uint8).view(np.uint32)
        self.lay(window, coverage(shape, window), plain, opacity)

    def draw(self, shape: Outlines, color: Any, grain: float = 0.0) -> None:
        """Draw polygons in a colour (3,), ten times as fast as `fill` does, and up to a pixel too wide all round.

        OpenCV rounds rows to whole pixels here; columns it keeps, and adds about .7 px on either side.
        """
        tone = _tone(color, grain)
        for part in shape.parts:
            cv2.fillPoly(self.pixels, [part], tone, cv2.LINE_AA, _BITS, (-_HALF, -_HALF))

    def lay(self, window: Window, alpha: Bytes, over: Bytes, opacity: float = 1.0) -> None:
        """Lay a picture (height, width, 4) on a window as `alpha` (height, width; 255 covers all) says."""
        below = self.pixels[window]
        rim = cv2.findNonZero(cv2.inRange(alpha, np.array(1), np.array(254))) if alpha.size > _LARGE_PX**2 / 2 else None
        if rim is not None and 10 * len(rim) < alpha.size:
            # mostly covered or not at all: one weight for the whole, and only the rim by its own; half the time
            columns, rows = rim[:, 0].T
            share = np.multiply(alpha[rows, columns, None], np.float32(opacity / 255), dtype=np.float32)
            between = np.rint(below[rows, columns] * (1 - share) + over[rows, columns] * share).astype(np.uint8)
            covered = cv2.threshold(alpha, 254, 255, cv2.THRESH_BINARY)[1]
            cv2.copyTo(over if opacity >= 1 else cv2.addWeighted(over, opacity, below, 1 - opacity, 0.0), covered, below)
            below[rows, columns] = between
            return
        weight = np.multiply(alpha, np.float32(opacity / 255), dtype=np.float32)
        cv2.blendLinear(over, below, weight, np.float32(1) - weight, dst=below)

    def colors_at(self, places: NDArray[np.int64]) -> Floats:
        """Return the colours (n, 3) that pixels (n, 2), given as column and row, have on average once their grain is on them."""
        found = self.pixels[places[:, 1], places[:, 0]].astype(np.float32)
        return np.asarray(found[:, :3] + found[:, 3:] * np.float32(128 / (SPREAD * _GRAIN_STEPS)), dtype=np.float32)

    def develop(self, grain: Bytes) -> Bytes:
        """Return the picture (512, 512, 3) with its grain, a texture (512, 512)."""
        bright = cv2.multiply(cv2.extractChannel(self.pixels, 3), grain, scale=1 / (_GRAIN_STEPS * SPREAD))
        return np.asarray(cv2.add(cv2.cvtColor(self.pixels, cv2.COLOR_BGRA2BGR), cv2.merge([bright] * 3)), dtype=np.uint8)

    def cast(self, shape: Outlines, reach: Points, *, solid: bool) -> None:
        """Note the shadow of something whose top lies `reach` (2,) pixels away from its foot along the ground.

        A solid body shades all between the two; what stands clear of the ground (wings, rotors) only where its outline falls.
        """
        step = np.rint(reach * (1 << _BITS)).astype(np.int32)
        for part in shape.parts:
            if solid:
                self._shade(cv2.convexHull(np.concatenate([part, part + step])))
            else:
                for fifths in (3, 5):
                    self._shade(part + step * fifths // 5)

    def _shade(self, part: Any) -> None:
        cv2.fillPoly(self.shadow, [part], 255, cv2.LINE_AA, _BITS, (-_HALF, -_HALF))

    def apply_shadow(self, strength: float, softness_px: float) -> None:
        """Darken the canvas where shadows fell, bluish as skylight is, and forget them."""
        x, y, width, height = cv2.boundingRect(self.shadow)
        if width:
            margin = round(4 * softness_px)
            window = (slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin))
            soft = cv2.GaussianBlur(self.shadow[window], (0, 0), softness_px)
            left = [cv2.addWeighted(soft, -strength * share, soft, 0.0, 255.0) for share in (1.0, 0.97, 0.9, 1.0)]
            below = self.pixels[window]
            cv2.multiply(below, cv2.merge(left), dst=below, scale=1 / 255)
            self.shadow[:] = 0


def regular(radius: float, count: int = 40, stretch: float = 1.0, power: float = 2.0) -> Points:
    """Return a superellipse (count, 2) of half axes `radius` and `radius * stretch`, centred; power 2 is an ellipse."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    cos, sin = np.cos(angles), np.sin(angles)
    x, y = np.sign(cos) * np.abs(cos) ** (2 / power), np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.stack([radius * x, radius * stretch * y], axis=1)


def bar(x0: Scalar, x1: Scalar, y0: Scalar, y1: Scalar) -> Points:
    """Return an upright rectangle (4, 2)."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


def ribbon(line: Points, half_width: float) -> Points:
    """Return a line (n, 2) as a band (2n, 2) of a half width on both sides."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) * half_width
    return np.vstack([line + normal, (line - normal)[::-1]])


def turned(points: Points, angle: Scalar) -> Points:
    """Return points (n, 2) turned about the origin by an angle in radians, clockwise as seen on the image."""
    cos, sin = np.cos(angle), np.sin(angle)
    laid: Points = points @ np.array([[cos, sin], [-sin, cos]])
    return laid
