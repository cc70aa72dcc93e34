"""Objects seen from above: outline, detail and shadow, drawn in metres at any angle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.scenes.ground import Canvas, Random, blend, polygon

Points = NDArray[np.float64]
COLORS: Final[dict[str, tuple[int, int, int]]] = {
    "white": (226, 226, 222),
    "red": (168, 46, 42),
    "blue": (52, 84, 152),
    "yellow": (206, 172, 52),
    "black": (38, 38, 42),
    "gray": (132, 134, 138),
    "green": (64, 118, 84),
    "orange": (204, 116, 48),
}


@dataclass(frozen=True)
class Thing:
    """One object: class, size in metres (length, width, height), colour, and which words may describe it."""

    category: str
    noun: str
    length: float
    width: float
    height: float
    color: str


@dataclass(frozen=True)
class Kind:
    """A class's range of sizes in metres (length low and high, width over length, height), colours, ground and nouns."""

    category: str
    nouns: tuple[str, ...]
    length: tuple[float, float]
    ratio: tuple[float, float]
    height: float
    colors: tuple[str, ...]
    ground: str


KINDS: Final = (
    Kind("vehicle", ("vehicle",), (4.2, 5.2), (0.40, 0.46), 1.5, ("white", "red", "blue", "black", "gray", "yellow"), "asphalt"),
    Kind("vehicle", ("vehicle",), (9.0, 13.0), (0.21, 0.27), 3.4, ("white", "yellow", "red", "orange"), "asphalt"),
    Kind("airplane", ("airplane",), (24.0, 38.0), (0.92, 1.04), 5.0, ("white", "gray"), "concrete"),
    Kind("ship", ("ship",), (12.0, 34.0), (0.22, 0.30), 3.0, ("white", "gray", "red", "blue"), "water"),
    Kind("storage-tank", ("storage tank",), (12.0, 26.0), (1.0, 1.0), 8.0, ("white", "gray", "green"), "soil"),
    Kind("tennis-court", ("tennis court",), (34.0, 36.0), (0.48, 0.52), 0.0, ("blue", "green", "red"), "grass"),
    Kind("swimming-pool", ("swimming pool",), (9.0, 22.0), (0.42, 0.6), 0.0, ("blue",), "grass"),
    Kind("basketball-court", ("basketball court",), (28.0, 29.0), (0.52, 0.56), 0.0, ("orange", "gray", "green"), "grass"),
)


def draw_thing(random: Random, kind: Kind) -> Thing:
    """Return one object of a kind with size and colour drawn."""
    length = random.uniform(*kind.length)
    return Thing(
        kind.category,
        kind.nouns[0],
        length,
        length * random.uniform(*kind.ratio),
        kind.height,
        kind.colors[random.integers(len(kind.colors))],
    )


def outline(thing: Thing) -> Points:
    """Return the object's outline in metres, centred, pointing along x; the true mask is its inside."""
    a, b = thing.length / 2, thing.width / 2
    if thing.category == "storage-tank":
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return np.stack([a * np.cos(angles), a * np.sin(angles)], axis=1)
    if thing.category == "ship":
        bow = np.array([(0.35, 1.0), (0.62, 0.82), (0.85, 0.45), (1.0, 0.0), (0.85, -0.45), (0.62, -0.82), (0.35, -1.0)])
        return np.vstack([[(-1.0, -0.78), (-1.0, 0.78)], bow]) * [a, b]
    if thing.category == "airplane":
        half = [
            (1.0, 0.0),
            (0.94, 0.045),
            (0.82, 0.085),
            (0.30, 0.09),
            (-0.22, 0.98),
            (-0.34, 1.0),
            (-0.16, 0.34),
            (-0.14, 0.09),
            (-0.66, 0.07),
            (-0.92, 0.36),
            (-1.0, 0.36),
            (-0.94, 0.05),
        ]
        return np.array([*half, *[(x, -y) for x, y in half[::-1][:-1]]]) * [a, b]
    if thing.category == "vehicle":
        corner = 0.12 if thing.length < 7 else 0.04
        return _rounded(a, b, corner * thing.length)
    if thing.category == "swimming-pool":
        return _rounded(a, b, 0.45 * b)
    return np.array([(-a, -b), (a, -b), (a, b), (-a, b)])


def _rounded(a: float, b: float, radius: float) -> Points:
    turn = np.linspace(0, np.pi / 2, 6)
    arc = np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius
    inner = np.array([a - radius, b - radius])
    quarters = [
        arc + inner,
        (arc * [-1, 1] + inner * [-1, 1])[::-1],
        arc * [-1, -1] + inner * [-1, -1],
        (arc * [1, -1] + inner * [1, -1])[::-1],
    ]
    return np.vstack(quarters)


def paint_thing(random: Random, canvas: Canvas, thing: Thing, place: Callable[[Points], Points], metre_px: float, sun: Points) -> None:
    """Draw shadow, body and detail; `place` maps metres of the object to canvas pixels, `sun` is a shadow's direction per metre."""
    body = outline(thing)
    color = np.array(COLORS[thing.color], dtype=np.float64) + random.normal(0, 7, 3)
    if thing.height > 0:
        for share in (0.5, 1.0):
            shifted = place(body) + sun * thing.height * share * metre_px
            blend(canvas, polygon(canvas.shape, shifted), (14, 16, 20), 0.42)
    blend(canvas, polygon(canvas.shape, place(body)), color)
    for part, shade, opacity in _details(thing):
        blend(canvas, polygon(canvas.shape, place(part)), shade if shade is not None else color * 0.78, opacity)


def _bar(x0: float, x1: float, y0: float, y1: float) -> Points:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _details(thing: Thing) -> list[tuple[Points, Any, float]]:
    """Return (outline in metres, colour or None for a darker body colour, opacity) of what lies on the body."""
    a, b = thing.length / 2, thing.width / 2
    line = max(0.16, 0.012 * thing.length)
    white = (228, 228, 222)
    if thing.category == "vehicle" and thing.length < 7:
        glass = (40, 46, 56)
        return [(_bar(0.18 * a, 0.42 * a, -0.8 * b, 0.8 * b), glass, 0.9), (_bar(-0.62 * a, -0.48 * a, -0.76 * b, 0.76 * b), glass, 0.9)]
    if thing.category == "vehicle":
        return [(_bar(0.62 * a, 0.66 * a, -b, b), (30, 32, 36), 0.8), (_bar(0.78 * a, 0.9 * a, -0.8 * b, 0.8 * b), (46, 52, 60), 0.9)]
    if thing.category == "ship":
        return [
            (_bar(-0.7 * a, -0.15 * a, -0.55 * b, 0.55 * b), None, 1.0),
            (_bar(-0.6 * a, -0.3 * a, -0.35 * b, 0.35 * b), (232, 232, 228), 0.9),
        ]
    if thing.category == "airplane":
        return [
            (_bar(-0.9 * a, 0.85 * a, -0.012 * b, 0.012 * b), (248, 248, 248), 0.7),
            (_bar(0.86 * a, 0.9 * a, -0.05 * b, 0.05 * b), (50, 54, 62), 0.9),
        ]
    if thing.category == "storage-tank":
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return [(ring * 0.9 * a, None, 0.35), (ring * 0.84 * a, (236, 236, 232), 0.35), (ring * 0.1 * a + [0.3 * a, 0], None, 0.8)]
    if thing.category == "tennis-court":
        x, y = 0.66 * a, 0.60 * b
        bars = [(-x, x, y0 - line / 2, y0 + line / 2) for y0 in (-y, -0.75 * y, 0, 0.75 * y, y)]
        bars += [(x0 - line / 2, x0 + line / 2, -y, y) for x0 in (-x, -0.54 * x, 0, 0.54 * x, x)]
        return [(_bar(-x, x, -y, y), None, 0.9), *[(_bar(*bar), white, 0.85) for bar in bars]]
    if thing.category == "basketball-court":
        bars = [(-0.94 * a, 0.94 * a, y - line / 2, y + line / 2) for y in (-0.92 * b, 0.92 * b)]
        bars += [(x - line / 2, x + line / 2, -0.92 * b, 0.92 * b) for x in (-0.94 * a, 0, 0.94 * a)]
        keys = [(_bar(x, x + 0.4 * a, -0.32 * b, 0.32 * b), None, 0.9) for x in (-0.94 * a, 0.54 * a)]
        return [*keys, *[(_bar(*bar), white, 0.8) for bar in bars]]
    return [(_rounded(a * 0.9, b * 0.82, 0.35 * b), (86, 178, 204), 0.9)]
