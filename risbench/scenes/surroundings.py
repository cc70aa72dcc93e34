"""What objects stand in: grounds, roads, rivers, coasts, trees and fields."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.canvas import (
    LUMPS,
    SIDE_PX,
    SPREAD,
    Bytes,
    Canvas,
    Points,
    Random,
    bar,
    coverage,
    noise,
    outlines,
    ribbon,
    tinted,
    turned,
    window_of,
)

# Sums of textures are kept in half levels about 128.
_HALVES: Final = 2
_NOTHING: Final = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
# What is drawn straight onto the canvas comes out this much wider on every side.
_DRAWN_WIDE_PX: Final = 0.5
_WAVE: Final = np.rint(128 + SPREAD * np.sin(np.arange(256) * (2 * np.pi / 256))).astype(np.uint8)

GROUNDS: Final[dict[str, tuple[tuple[int, int, int], float, float, float]]] = {
    # colour; spread of the colour; strength of fine, and of wide texture
    "grass": ((92, 112, 68), 16, 6, 10),
    "dry": ((150, 140, 100), 14, 6, 9),
    "soil": ((158, 132, 102), 16, 5, 9),
    "sand": ((206, 190, 156), 12, 4, 7),
    "asphalt": ((98, 99, 102), 14, 4, 6),
    "concrete": ((170, 168, 160), 14, 4, 6),
    "gravel": ((142, 136, 128), 12, 10, 6),
    "forest": ((58, 80, 46), 10, 12, 9),
    "water": ((44, 70, 80), 14, 2, 4),
    "green water": ((62, 88, 74), 12, 2, 4),
    "dark water": ((26, 38, 46), 7, 1.5, 2),
    "snow": ((222, 224, 228), 8, 3, 5),
}


def paint_ground(random: Random, kind: str) -> Bytes:
    """Return a ground (512, 512, 4), its own texture on it and no grain."""
    base, spread, fine, wide = GROUNDS[kind]
    color = np.asarray(base) + random.normal(0, spread) + random.normal(0, spread * 0.3, 3)
    strength = random.uniform(0.3, 1.7)
    light = _sum(
        (_texture(random, (1, 2, 4)[int(random.integers(3))]), fine * strength),
        (_texture(random, (8, 16)[int(random.integers(2))]), 0.2 * (fine + wide) * strength),
    )
    light = _more(light, _texture(random, (64, 128)[int(random.integers(2))]), 0.8 * wide * strength)
    if kind == "forest" or random.random() < 0.15:
        light = _more(light, _texture(random, LUMPS), (1.4 if kind == "forest" else 0.7) * fine)
    if "water" in kind and random.random() < 0.3:
        light = _more(light, _rows(random, random.uniform(4, 14)), 3)
    elif kind in ("grass", "dry", "soil") and random.random() < 0.1:
        light = _more(light, _rows(random, random.uniform(3, 24)), random.uniform(2, 10))
    hue, share = _texture(random, 32), 0.25 * wide * strength / SPREAD
    red, green, blue = color - 128 / _HALVES
    warm = cv2.addWeighted(light, 1 / _HALVES, hue, share, float(red) - 128 * share)
    cold = cv2.addWeighted(light, 1 / _HALVES, hue, -0.7 * share, float(blue) + 128 * 0.7 * share)
    return np.asarray(cv2.merge([warm, cv2.addWeighted(light, 1 / _HALVES, light, 0.0, float(green)), cold, _NOTHING]), dtype=np.uint8)


def _texture(random: Random, cell: int) -> Bytes:
    return noise(random, SIDE_PX, SIDE_PX, cell)


def _sum(first: tuple[Bytes, float], second: tuple[Bytes, float]) -> Bytes:
    """Return two textures of some levels' spread as one, in half levels about 128."""
    one, two = first[1] * _HALVES / SPREAD, second[1] * _HALVES / SPREAD
    return np.asarray(cv2.addWeighted(first[0], one, second[0], two, 128 - 128 * (one + two)), dtype=np.uint8)


def _more(light: Bytes, texture: Bytes, strength: float) -> Bytes:
    """Return a sum of textures (half levels about 128) with one more of some levels' spread."""
    share = strength * _HALVES / SPREAD
    return np.asarray(cv2.addWeighted(light, 1.0, texture, share, -128 * share), dtype=np.uint8)


def _rows(random: Random, pitch_px: float) -> Bytes:
    """Return the stripes of ploughed, mown or wavy ground (512, 512)."""
    angle, bend = random.uniform(0, np.pi), noise(random, SIDE_PX, SIDE_PX, 128)
    # 256 steps a turn, so that the wave is a table
    across = np.arange(SIDE_PX) * (256 / pitch_px)
    phase = np.rint(across * np.cos(angle)).astype(np.int32)[None, :] + np.rint(across * np.sin(angle)).astype(np.int32)[:, None]
    phase += np.multiply(bend, 256 / (2 * np.pi * SPREAD), dtype=np.float32).astype(np.int32)
    wave: Bytes = _WAVE[phase & 255]
    return wave


def mix_ground(random: Random, canvas: Canvas, kind: str) -> None:
    """Lay another ground over patches of the canvas: ragged, or beyond a straight or wavy border."""
    canvas.lay((slice(0, SIDE_PX), slice(0, SIDE_PX)), _region(random), paint_ground(random, kind), random.uniform(0.5, 1.0))


def paint_parcels(random: Random, canvas: Canvas, kinds: tuple[str, ...], angle: float, count: int, metre_px: float) -> None:
    """Lay straight-edged plots along the main direction: yards, fields, aprons, car parks with their stalls."""
    for _ in range(count):
        kind = kinds[int(random.integers(len(kinds)))]
        base, spread, fine, _ = GROUNDS[kind]
        color = np.asarray(base) + random.normal(0, 1.4 * spread) + random.normal(0, spread * 0.3, 3)
        a, b = np.exp(random.uniform(np.log(25), np.log(260), 2))
        turn = angle + random.integers(2) * np.pi / 2 + (random.uniform(-0.6, 0.6) if random.random() < 0.2 else 0.0)
        centre = random.uniform(0, SIDE_PX, 2)
        plot = outlines([bar(-a, a, -b, b)], turned(np.eye(2), turn), centre)
        window = window_of(plot)
        if window is None:
            continue
        cover = coverage(plot, window)
        texture = noise(random, cover.shape[0], cover.shape[1], (0, 1, 2, 4, 8)[int(random.integers(5))])
        canvas.lay(window, cover, tinted(texture, color, fine * random.uniform(0.5, 2)), random.uniform(0.6, 1.0))
        bars, tint, opacity = _markings(random, a, b, metre_px)
        if bars:
            canvas.draw(outlines(bars, turned(np.eye(2), turn), centre), _mixed(color, color * tint if tint < 2 else tint, opacity))


def _markings(random: Random, a: float, b: float, metre_px: float) -> tuple[list[Points], float, float]:
    """Return what is drawn on a plot of half sides `a` and `b` pixels: bars, level or share of the plot's own, and opacity.

    A kerb, stalls for cars, the joints of slabs, or nothing.
    """
    draw, thin = random.random(), max(0.0, 0.12 * metre_px - _DRAWN_WIDE_PX)
    if draw < 0.25:
        edges = [bar(-a, a, y - thin, y + thin) for y in (-b, b)] + [bar(x - thin, x + thin, -b, b) for x in (-a, a)]
        return edges, 212.0 if random.random() < 0.4 else random.uniform(0.4, 0.8), random.uniform(0.3, 0.9)
    if draw < 0.45 and 4 < 2.6 * metre_px < 60:
        pitch, deep = 2.6 * metre_px, min(b, 2.6 * metre_px)
        return [bar(x - thin, x + thin, -deep, deep) for x in np.arange(-a, a, pitch)[:50]], 216.0, random.uniform(0.3, 0.9)
    if draw < 0.6:
        pitch = random.uniform(8, 40)
        joints = [bar(x, x, -b, b) for x in np.arange(-a, a, pitch)] + [bar(-a, a, y, y) for y in np.arange(-b, b, pitch)]
        return joints[:60], random.uniform(0.6, 1.25), random.uniform(0.2, 0.6)
    return [], 0.0, 0.0


def _mixed(below: Any, over: Any, opacity: Any) -> Any:
    """Return the colour (3,) that one laid over another with some opacity gives."""
    return np.asarray(below) * (1 - opacity) + np.asarray(over) * opacity


def paint_oddments(random: Random, canvas: Canvas, angle: float, count: int) -> None:
    """Scatter small bright and dark things that nobody names: boxes, bins, marks, carts, vents."""
    heads = random.uniform(0, SIDE_PX, (max(1, count // 10), 2))
    long = np.exp(random.uniform(np.log(1.0), np.log(9), count)) - _DRAWN_WIDE_PX
    wide = np.maximum(0.1, (long + _DRAWN_WIDE_PX) * random.uniform(0.3, 1.0, count) - _DRAWN_WIDE_PX)
    centres = heads[random.integers(len(heads), size=count)] + random.normal(0, 28, (count, 2))
    levels = random.choice([30, 70, 150, 215, 240], count)[:, None] + random.normal(0, 14, (count, 3))
    strengths, turn = random.uniform(0.4, 1.0, count)[:, None], turned(np.eye(2), angle)
    for a, b, centre, color in zip(long, wide, centres, _mixed((120, 120, 115), levels, strengths), strict=True):
        canvas.draw(outlines([bar(-a, a, -b, b)], turn, centre), color)


def _region(random: Random) -> Bytes:
    ragged = noise(random, SIDE_PX, SIDE_PX, (32, 64, 128)[int(random.integers(3))])
    sharp = random.uniform(1, 30)
    if random.random() < 0.5:
        table = np.clip(((np.arange(256) - 128) / SPREAD - random.uniform(-0.6, 0.9)) * sharp, 0, 1)
        return np.asarray(cv2.LUT(ragged, np.rint(255 * table).astype(np.uint8)), dtype=np.uint8)
    return half_plane(random, ragged, random.choice([0.0, 4.0, 16.0]))


def half_plane(random: Random, ragged: Bytes, bend_px: float, share: tuple[float, float] = (0.15, 0.85)) -> Bytes:
    """Return 255 on one side of a line across the image (512, 512), 0 on the other; a texture bends it by some pixels' spread."""
    angle = random.uniform(0, 2 * np.pi)
    at = np.arange(SIDE_PX, dtype=np.float32) - SIDE_PX / 2
    border = (random.uniform(*share) - 0.5) * SIDE_PX
    far = (at * np.float32(np.cos(angle)) - np.float32(border))[None, :] + (at * np.float32(np.sin(angle)))[:, None]
    if bend_px:
        far = cv2.addWeighted(ragged, bend_px / SPREAD, far, 1.0, -128 * bend_px / SPREAD, dtype=cv2.CV_32F)
    return np.asarray(cv2.addWeighted(far, 255.0, far, 0.0, 0.0, dtype=cv2.CV_8U), dtype=np.uint8)


def curve(random: Random, bend: float, through: Points | None = None, angle: float | None = None) -> Points:
    """Return a line (40, 2) across the whole image, bent by `bend` of its side."""
    turn = random.uniform(0, np.pi) if angle is None else angle
    middle = random.uniform(0.1, 0.9, 2) * SIDE_PX if through is None else through
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    t = np.linspace(-1, 1, 40)
    wave = bend * SIDE_PX * np.sin(t * random.uniform(0.5, 2.5) * np.pi)
    return np.asarray(middle + along * (t * SIDE_PX * 1.3)[:, None] + across * wave[:, None])


def paint_road(random: Random, canvas: Canvas, line: Points, width_px: float) -> None:
    """Lay a road with verges, edge lines and lane marks along a line (n, 2)."""
    kind = random.random()
    color = np.array((98, 98, 100) if kind < 0.65 else (166, 162, 154) if kind < 0.85 else (172, 150, 120), float) + random.normal(0, 14)
    if random.random() < 0.6:
        inside = line[((line > 0) & (line < SIDE_PX)).all(axis=1)].astype(int)
        ground = canvas.colors_at(inside).mean(axis=0) if len(inside) else color
        verge = _mixed(ground, color * random.uniform(0.9, 1.3), random.uniform(0.2, 0.8))
        canvas.draw(outlines([ribbon(line, width_px * random.uniform(0.55, 0.8))]), verge, 8)
    canvas.fill(outlines([ribbon(line, width_px / 2)]), color, 1.0, 5)
    if width_px > 10 and random.random() < 0.75:
        thin = max(0.0, width_px * 0.012 - _DRAWN_WIDE_PX)
        along = np.gradient(line, axis=0)
        along /= np.hypot(along[:, :1], along[:, 1:])
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
        marks = [ribbon(line + normal * offset, thin) for offset in (-0.44 * width_px, 0.44 * width_px) if random.random() < 0.8]
        marks += [ribbon(line[k : k + 2], thin) for k in range(0, len(line) - 2, 2)]
        canvas.draw(outlines(marks), _mixed(color, (214, 212, 200), random.uniform(0.1, 0.9)))


@cache
def _crowns(down: int, right: int) -> list[list[Bytes]]:
    """Return 24 tree crowns of 64, 32, 16, 8 and 4 px, their shadows falling down (1) or up (-1) and right or left.

    They are pictures of light about 128 with their cover (255 for all) as fourth plane.
    """
    random = np.random.default_rng(99)
    crowns = []
    rows, columns = (np.mgrid[:64, :64] + 0.5) / 32 - 1
    for _ in range(24):
        angle = np.arctan2(rows, columns)
        edge = 0.72 + sum(random.normal(0, 0.07) * np.cos(k * angle + random.uniform(0, 6.28)) for k in (2, 3, 5, 8, 11))
        rim = np.hypot(rows, columns) / np.clip(edge, 0.4, 0.98)
        cover = np.clip((1 - rim) * 6, 0, 1)
        lumps = cv2.resize(random.standard_normal((12, 12)), (64, 64), interpolation=cv2.INTER_CUBIC)
        light = 128 + 18 * (lumps * 0.6 - 0.6 * (rows + columns) - 0.5 * rim)
        crown = np.rint(np.clip(np.dstack([light, light, light, 255 * cover]), 0, 255)).astype(np.uint8)[::down, ::right]
        crowns.append([np.asarray(cv2.resize(crown, (side, side), interpolation=cv2.INTER_AREA), np.uint8) for side in (64, 32, 16, 8, 4)])
    return crowns


def paint_trees(random: Random, canvas: Canvas, places: Points, radii: NDArray[np.float64], color: Any, sun: Points) -> None:
    """Draw crowns of some radii (pixels) at places (n, 2), shaded away from the sun."""
    crowns = _crowns(*(-1 if value < 0 else 1 for value in (sun[1], sun[0])))
    kinds = random.integers(len(crowns), size=len(places)).tolist()
    tints = color - 128 + random.normal(0, 9, (len(places), 3)) + random.normal(0, 8, (len(places), 1))
    for (x, y), radius, kind, (red, green, blue) in zip(places.tolist(), radii.tolist(), kinds, tints.tolist(), strict=True):
        side = max(3, round(2 * radius))
        left, top = round(x - radius), round(y - radius)
        window = (slice(max(0, top), min(SIDE_PX, top + side)), slice(max(0, left), min(SIDE_PX, left + side)))
        if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
            continue
        inner = (slice(window[0].start - top, window[0].stop - top), slice(window[1].start - left, window[1].stop - left))
        # the smallest that is at least as large, so that two neighbours are enough; beyond 64 px it is enlarged
        crown = crowns[kind][0 if side > 32 else 1 if side > 16 else 2 if side > 8 else 3 if side > 4 else 4]
        picture = np.asarray(cv2.resize(crown, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)[inner]
        canvas.lay(window, picture[..., 3], np.asarray(cv2.add(picture, np.array([red, green, blue, -255.0])), dtype=np.uint8))


def cast_trees(canvas: Canvas, places: Points, radii: NDArray[np.float64], reach: Points) -> None:
    """Note the crowns' shadows, `reach` (2,) pixels away per pixel of radius."""
    for place, radius in zip(places, radii, strict=True):
        centre = place + reach * radius
        if window_of(outlines([np.array([centre - radius, centre + radius])])) is not None:
            cv2.circle(canvas.shadow, tuple(np.rint(centre * 16).astype(int).tolist()), round(radius * 14), 255, -1, cv2.LINE_AA, 4)
