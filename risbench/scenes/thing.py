"""What an object is before it is placed: outline, height and painted layers in metres, centred, pointing along x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import cv2
import numpy as np

from risbench.scenes.canvas import Points, Random, Scalar

RGB = Any

COLORS: Final[dict[str, tuple[int, int, int]]] = {
    "white": (226, 226, 222),
    "red": (168, 46, 42),
    "blue": (52, 84, 152),
    "yellow": (206, 172, 52),
    "black": (38, 38, 42),
    "gray": (132, 134, 138),
    "green": (64, 118, 84),
    "orange": (204, 116, 48),
    "brown": (128, 92, 66),
}
LINE: Final = (226, 226, 220)
GLASS: Final = (42, 48, 58)


@dataclass(frozen=True)
class Layer:
    """Polygons painted in one colour; `grain` is the strength (levels) of the texture on it."""

    points: Sequence[Points]
    color: RGB
    opacity: float = 1.0
    grain: float = 3.0


@dataclass(frozen=True)
class Thing:
    """One object. `outline` is what its mask covers; `height` casts the shadow, of all between foot and top if `solid`.

    `skirt` is painted beneath everything and is not the object: aprons, decks, outfields, wakes. `shows` are the classes that
    are painted on it without being objects of their own: no sentence may count those.
    """

    category: str
    color: str
    outline: Sequence[Points]
    layers: Sequence[Layer]
    height: float = 0.0
    solid: bool = True
    skirt: Sequence[Layer] = ()
    shows: Sequence[str] = ()

    @property
    def noun(self) -> str:
        """The class as a word."""
        return self.category.replace("-", " ")

    @cached_property
    def size(self) -> tuple[float, float]:
        """Extent along x and y in metres."""
        x, y = np.ptp(self.hull, axis=0)
        return float(x), float(y)

    @cached_property
    def hull(self) -> Points:
        """The convex hull (n, 2) of the outline, in metres."""
        every = np.concatenate(list(self.outline)).astype(np.float32)
        return np.asarray(cv2.convexHull(every)[:, 0], dtype=np.float64)


def nearest_color(rgb: Any) -> str:
    """Return the name of the colour that a mean colour (3,) is nearest to."""
    return min(COLORS, key=lambda name: sum((own - level) ** 2 for own, level in zip(COLORS[name], rgb, strict=True)))


def pick(random: Random, *words: str) -> str:
    """Return one of some words."""
    return words[int(random.integers(len(words)))]


def tone(random: Random, color: str | tuple[int, int, int], spread: float = 9.0) -> Any:
    """Return a colour (3,) near a named one."""
    base = np.asarray(COLORS[color] if isinstance(color, str) else color, dtype=np.float64)
    return base + random.normal(0, spread) + random.normal(0, spread * 0.35, 3)


def lines(*segments: tuple[Scalar, Scalar, Scalar, Scalar], width: float) -> list[Points]:
    """Return straight lines (x0, y0, x1, y1) as thin polygons of a width."""
    made = []
    for x0, y0, x1, y1 in segments:
        a, b = np.array([x0, y0]), np.array([x1, y1])
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
        normal = np.array([-along[1], along[0]]) * width / 2
        made.append(np.array([a - normal, b - normal, b + normal, a + normal]))
    return made


def frame(x0: float, x1: float, y0: float, y1: float, width: float) -> list[Points]:
    """Return the outline of a rectangle as four lines."""
    return lines((x0, y0, x1, y0), (x0, y1, x1, y1), (x0, y0, x0, y1), (x1, y0, x1, y1), width=width)


def arc(x: float, y: float, radius: float, start: float, end: float, width: float, count: int = 24) -> Points:
    """Return an arc as a thin polygon (2 count, 2); angles in radians."""
    angles = np.linspace(start, end, count)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.vstack([ring * (radius + width / 2), (ring * (radius - width / 2))[::-1]]) + (x, y)
