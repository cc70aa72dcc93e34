"""What objects stand in: grounds, roads, rivers, coasts, trees and fields."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.canvas import LUMPS, SIDE_PX, Canvas, Floats, Points, Random, bar, noise, ribbon, turned, window_of

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


def paint_ground(random: Random, kind: str) -> Floats:
    """Return a ground (3, 512, 512)."""
    base, spread, fine, wide = GROUNDS[kind]
    color = np.asarray(base) + random.normal(0, spread) + random.normal(0, spread * 0.3, 3)
    strength = random.uniform(0.3, 1.7)
    light = _texture(random, (1, 2, 4)[int(random.integers(3))], fine * strength)
    light += _texture(random, (8, 16)[int(random.integers(2))], 0.2 * (fine + wide) * strength)
    light += _texture(random, (64, 128)[int(random.integers(2))], 0.8 * wide * strength)
    if kind == "forest" or random.random() < 0.15:
        light += _texture(random, LUMPS, (1.4 if kind == "forest" else 0.7) * fine)
    if "water" in kind and random.random() < 0.3:
        light += _rows(random, random.uniform(4, 14), 3)
    elif kind in ("grass", "dry", "soil") and random.random() < 0.1:
        light += _rows(random, random.uniform(3, 24), random.uniform(2, 10))
    hue = _texture(random, 32, 0.25 * wide * strength)
    return np.stack(
        [light + hue + np.float32(color[0]), light + np.float32(color[1]), light - hue * np.float32(0.7) + np.float32(color[2])]
    )


def _texture(random: Random, cell: int, strength: float) -> Floats:
    return noise(random, SIDE_PX, SIDE_PX, cell) * np.float32(strength)


def _rows(random: Random, pitch_px: float, strength: float) -> Floats:
    """Return the stripes of ploughed, mown or wavy ground (512, 512)."""
    angle, bend = random.uniform(0, np.pi), noise(random, SIDE_PX, SIDE_PX, 128)
    across = np.arange(SIDE_PX, dtype=np.float32) * np.float32(2 * np.pi / pitch_px)
    phase = across[None, :] * np.float32(np.cos(angle)) + across[:, None] * np.float32(np.sin(angle)) + bend
    return np.sin(phase) * np.float32(strength)


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
        window = window_of([turned(bar(-a, a, -b, b), turn) + centre])
        if window is None:
            continue
        texture = noise(random, SIDE_PX, SIDE_PX, (0, 1, 2, 4, 8)[int(random.integers(5))])
        canvas.fill([turned(bar(-a, a, -b, b), turn) + centre], color, random.uniform(0.6, 1.0), texture, fine * random.uniform(0.5, 2))
        draw, thin = random.random(), max(0.5, 0.12 * metre_px)
        if draw < 0.25:
            edges = [bar(-a, a, y - thin, y + thin) for y in (-b, b)] + [bar(x - thin, x + thin, -b, b) for x in (-a, a)]
            tint = (214, 214, 208) if random.random() < 0.4 else color * random.uniform(0.4, 0.8)
            canvas.fill([turned(edge, turn) + centre for edge in edges], tint, random.uniform(0.3, 0.9))
        elif draw < 0.45 and 4 < 2.6 * metre_px < 60:
            pitch = 2.6 * metre_px
            stalls = [bar(x - thin, x + thin, -min(b, 2.6 * metre_px), min(b, 2.6 * metre_px)) for x in np.arange(-a, a, pitch)[:50]]
            canvas.fill([turned(stall, turn) + centre for stall in stalls], (218, 218, 212), random.uniform(0.3, 0.9))
        elif draw < 0.6:
            pitch = random.uniform(8, 40)
            joints = [bar(x - 0.5, x + 0.5, -b, b) for x in np.arange(-a, a, pitch)] + [
                bar(-a, a, y - 0.5, y + 0.5) for y in np.arange(-b, b, pitch)
            ]
            canvas.fill(
                [turned(joint, turn) + centre for joint in joints[:60]], color * random.uniform(0.6, 1.25), random.uniform(0.2, 0.6)
            )


def paint_oddments(random: Random, canvas: Canvas, angle: float, count: int) -> None:
    """Scatter small bright and dark things that nobody names: boxes, bins, marks, carts, vents."""
    heads = random.uniform(0, SIDE_PX, (max(1, count // 10), 2))
    for _ in range(count):
        a = float(np.exp(random.uniform(np.log(1.0), np.log(9))))
        b = a * random.uniform(0.3, 1.0)
        centre = heads[int(random.integers(len(heads)))] + random.normal(0, 28, 2)
        color = np.full(3, random.choice([30, 70, 150, 215, 240])) + random.normal(0, 14, 3)
        canvas.fill([turned(bar(-a, a, -b, b), angle) + centre], color, random.uniform(0.4, 1.0))


def _region(random: Random) -> Floats:
    ragged = noise(random, SIDE_PX, SIDE_PX, (32, 64, 128)[int(random.integers(3))])
    sharp = np.float32(random.uniform(1, 30))
    if random.random() < 0.5:
        return np.clip((ragged - np.float32(random.uniform(-0.6, 0.9))) * sharp, 0, 1)
    return half_plane(random, ragged * np.float32(random.choice([0.0, 4.0, 16.0])))


def half_plane(random: Random, ragged: Floats | float, share: tuple[float, float] = (0.15, 0.85)) -> Floats:
    """Return 1 on one side of a line across the image (512, 512), 0 on the other; `ragged` bends the border in pixels."""
    angle = random.uniform(0, 2 * np.pi)
    at = np.arange(SIDE_PX, dtype=np.float32) - SIDE_PX / 2
    far = at[None, :] * np.float32(np.cos(angle)) + at[:, None] * np.float32(np.sin(angle))
    border = (random.uniform(*share) - 0.5) * SIDE_PX
    return np.asarray(np.clip(far + ragged - np.float32(border), 0, 1), dtype=np.float32)


def curve(random: Random, bend: float, through: Points | None = None, angle: float | None = None) -> Points:
    """Return a line (40, 2) across the whole image, bent by `bend` of its side."""
    turn = random.uniform(0, np.pi) if angle is None else angle
    middle = random.uniform(0.1, 0.9, 2) * SIDE_PX if through is None else through
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    t = np.linspace(-1, 1, 40)
    wave = bend * SIDE_PX * np.sin(t * random.uniform(0.5, 2.5) * np.pi)
    return np.asarray(middle + along * (t * SIDE_PX * 1.3)[:, None] + across * wave[:, None])


def paint_road(random: Random, canvas: Canvas, line: Points, width_px: float, grain: Floats) -> None:
    """Lay a road with verges, edge lines and lane marks along a line (n, 2)."""
    kind = random.random()
    color = np.array((98, 98, 100) if kind < 0.65 else (166, 162, 154) if kind < 0.85 else (172, 150, 120), float) + random.normal(0, 14)
    if random.random() < 0.6:
        canvas.fill(
            [ribbon(line, width_px * random.uniform(0.55, 0.8))], color * random.uniform(0.9, 1.3), random.uniform(0.2, 0.8), grain, 8
        )
    canvas.fill([ribbon(line, width_px / 2)], color, 1.0, grain, 5)
    if width_px > 10 and random.random() < 0.75:
        thin = max(0.35, width_px * 0.012)
        along = np.gradient(line, axis=0)
        along /= np.hypot(along[:, :1], along[:, 1:])
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
        marks = [ribbon(line + normal * offset, thin) for offset in (-0.44 * width_px, 0.44 * width_px) if random.random() < 0.8]
        marks += [ribbon(line[k : k + 2], thin) for k in range(0, len(line) - 2, 2)]
        canvas.fill(marks, (214, 212, 200), random.uniform(0.1, 0.9))


@cache
def _crowns() -> list[tuple[Floats, Floats]]:
    """Return tree crowns (64, 64) as cover (0-1) and light (about 0), made once a process."""
    random = np.random.default_rng(99)
    crowns = []
    rows, columns = (np.mgrid[:64, :64] + 0.5) / 32 - 1
    for _ in range(24):
        angle = np.arctan2(rows, columns)
        edge = 0.72 + sum(random.normal(0, 0.07) * np.cos(k * angle + random.uniform(0, 6.28)) for k in (2, 3, 5, 8, 11))
        rim = np.hypot(rows, columns) / np.clip(edge, 0.4, 0.98)
        cover = np.clip((1 - rim) * 6, 0, 1)
        lumps = cv2.resize(random.standard_normal((12, 12)), (64, 64), interpolation=cv2.INTER_CUBIC)
        crowns.append((cover.astype(np.float32), (lumps * 0.6 - 0.6 * (rows + columns) - 0.5 * rim).astype(np.float32)))
    return crowns


def paint_trees(random: Random, canvas: Canvas, places: Points, radii: NDArray[np.float64], color: Any, sun: Points) -> None:
    """Draw crowns of some radii (pixels) at places (n, 2), shaded away from the sun."""
    crowns = _crowns()
    kinds, tints = (
        random.integers(len(crowns), size=len(places)),
        random.normal(0, 9, (len(places), 3)) + random.normal(0, 8, (len(places), 1)),
    )
    flip = (slice(None, None, -1 if sun[1] < 0 else 1), slice(None, None, -1 if sun[0] < 0 else 1))
    for place, radius, kind, tint in zip(places, radii, kinds, tints, strict=True):
        side = max(3, round(2 * radius))
        left, top = round(place[0] - radius), round(place[1] - radius)
        window = (slice(max(0, top), min(SIDE_PX, top + side)), slice(max(0, left), min(SIDE_PX, left + side)))
        if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
            continue
        inner = (slice(window[0].start - top, window[0].stop - top), slice(window[1].start - left, window[1].stop - left))
        cover, light = (cv2.resize(part[flip], (side, side), interpolation=cv2.INTER_AREA)[inner] for part in crowns[kind])
        canvas.lay(window, cover, (color + tint)[:, None, None].astype(np.float32) + light * np.float32(18))


def cast_trees(canvas: Canvas, places: Points, radii: NDArray[np.float64], reach: Points) -> None:
    """Note the crowns' shadows, `reach` (2,) pixels away per pixel of radius."""
    for place, radius in zip(places, radii, strict=True):
        centre = place + reach * radius
        if window_of([np.array([centre - radius, centre + radius])]) is not None:
            cv2.circle(canvas.shadow, tuple(np.rint(centre * 16).astype(int).tolist()), round(radius * 14), 255, -1, cv2.LINE_AA, 4)
