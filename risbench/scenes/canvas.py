"""A canvas of 512 x 512 pixels and how things are laid on it: anti-aliased polygons, brushes of texture, shadows, exact masks.

Pixel (row, column) covers x from column to column + 1; points are (n, 2) arrays of x and y in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import polygon_mask

SIDE_PX: Final = 512
_BANK_SIDE: Final = 1024
_CELLS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
LUMPS: Final = 0

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Random = np.random.Generator
Window = tuple[slice, slice]
Scalar = float | np.floating[Any]


@cache
def noise_bank() -> dict[int, Floats]:
    """Return tiles (1024, 1024) of smooth noise of unit spread by the size of their bumps in pixels; made once a process."""
    random = np.random.default_rng(20_240_810)
    bank: dict[int, Floats] = {}
    for cell in _CELLS:
        count = _BANK_SIDE // cell
        small = random.standard_normal((count, count)).astype(np.float32)
        wide: Floats = np.asarray(cv2.resize(small, (_BANK_SIDE, _BANK_SIDE), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
        bank[cell] = wide / wide.std()
    bank[LUMPS] = _canopy(random)
    return bank


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


def noise(random: Random, height: int, width: int, cell: int) -> Floats:
    """Return a window (height, width) of smooth noise, mirrored and turned at random; a view, not to be written to."""
    tile = noise_bank()[cell]
    top, left, turn = random.integers(_BANK_SIDE - height + 1), random.integers(_BANK_SIDE - width + 1), int(random.integers(4))
    part = tile[top : top + height, left : left + width]
    return part[:: 1 - 2 * (turn & 1), :: 1 - (turn & 2)]


def window_of(points: Sequence[Points], margin: int = 1) -> Window | None:
    """Return the rows and columns of the canvas that polygons touch, or None where they lie outside."""
    every = points[0] if len(points) == 1 else np.concatenate(points)
    x, y, width, height = cv2.boundingRect(every.astype(np.float32))
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(SIDE_PX, x + width + margin), min(SIDE_PX, y + height + margin)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def coverage(points: Sequence[Points], window: Window) -> Floats:
    """Return the share (0-1) of every pixel of a window that the union of polygons covers.

    OpenCV draws outlines along: edges lie an eighth of a pixel too far out, of what is larger than 256 px half a pixel.
    """
    top, left = window[0].start, window[1].start
    height, width = window[0].stop - top, window[1].stop - left
    fine = 4 if max(height, width) <= 128 else 2 if max(height, width) <= 256 else 1
    drawn = np.zeros((height * fine, width * fine), np.uint8)
    for part in points:
        local = (part - (left, top)) * fine - 0.5
        cv2.fillPoly(drawn, [np.rint(local * 16).astype(np.int32)], 255, cv2.LINE_AA if fine == 1 else cv2.LINE_8, shift=4)
    small = drawn if fine == 1 else cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) * np.float32(1 / 255)


def exact_mask(points: Sequence[Points]) -> NDArray[np.bool_]:
    """Return the mask (512, 512) of the union of polygons: pixels whose centre lies inside."""
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    window = window_of(points)
    if window is None:
        return mask
    top, left = window[0].start, window[1].start
    inner = mask[window]
    for part in points:
        inner |= polygon_mask(part - (left, top), *inner.shape)
    return mask


class Canvas:
    """A picture (3, 512, 512) of 0-255 in floats, a plane a colour, and the shadow that tall things cast on it."""

    def __init__(self) -> None:
        self.pixels: Floats = np.zeros((3, SIDE_PX, SIDE_PX), np.float32)
        self.shadow: NDArray[np.uint8] = np.zeros((SIDE_PX, SIDE_PX), np.uint8)

    def fill(self, points: Sequence[Points], color: Any, opacity: float = 1.0, texture: Floats | None = None, grain: float = 1.0) -> None:
        """Lay a colour (3,) on the union of polygons, with a `texture` (512, 512) times `grain` on it."""
        window = window_of(points)
        if window is not None:
            self.lay(window, coverage(points, window), color, opacity, None if texture is None else texture[window] * np.float32(grain))

    def lay(self, window: Window, alpha: Floats, color: Any, opacity: float = 1.0, texture: Floats | None = None) -> None:
        """Lay a colour (3,) or a picture (3, height, width) on a window where `alpha` (height, width) is over 0."""
        weight = alpha if opacity == 1.0 else alpha * np.float32(opacity)
        for plane, over in zip(self.pixels, np.asarray(color, dtype=np.float32), strict=True):
            below = plane[window]
            change = over - below if texture is None else over + texture - below
            change *= weight
            below += change

    def cast(self, points: Sequence[Points], reach: Points, *, solid: bool) -> None:
        """Note the shadow of something whose top lies `reach` (2,) away from its foot along the ground.

        A solid body shades all between the two; what stands clear of the ground (wings, rotors) only where its outline falls.
        """
        for part in points:
            if solid:
                both = np.vstack([part, part + reach]).astype(np.float32)
                outline = cv2.convexHull(both)[:, 0].astype(np.float64)
                cv2.fillPoly(self.shadow, [np.rint((outline - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
            else:
                for share in (0.6, 1.0):
                    cv2.fillPoly(self.shadow, [np.rint((part + share * reach - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)

    def apply_shadow(self, strength: float, softness_px: float) -> None:
        """Darken the canvas where shadows fell, bluish as skylight is, and forget them."""
        if self.shadow.any():
            soft = cv2.GaussianBlur(self.shadow, (0, 0), softness_px)
            dark = soft.astype(np.float32)
            for plane, share in zip(self.pixels, (1.0, 0.97, 0.9), strict=True):
                plane *= 1 - dark * np.float32(strength * share / 255)
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
