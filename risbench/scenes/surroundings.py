"""What objects stand in: grounds, roads, rivers, coasts, trees and fields."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.canvas import SIDE_PX, Canvas, Floats, Points, Random, noise, ribbon, window_of

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


def paint_ground(random: Random, kind: str) -> tuple[Floats, Any]:
    """Return a ground (512, 512, 3) and its colour (3,)."""
    base, spread, fine, wide = GROUNDS[kind]
    color = np.asarray(base) + random.normal(0, spread) + random.normal(0, spread * 0.3, 3)
    strength = random.uniform(0.3, 1.7)
    close = (1, 2, 4)[int(random.integers(3))]
    light = noise(random, SIDE_PX, SIDE_PX, close) * np.float32(fine * strength)
    light = light + noise(random, SIDE_PX, SIDE_PX, (8, 16)[int(random.integers(2))]) * np.float32(0.5 * (fine + wide) * strength)
    light += noise(random, SIDE_PX, SIDE_PX, (64, 128)[int(random.integers(2))]) * np.float32(wide * strength)
    if "water" in kind and random.random() < 0.4:
        light += _rows(random, random.uniform(4, 14), 4)
    elif kind in ("grass", "dry", "soil") and random.random() < 0.25:
        light += _rows(random, random.uniform(3, 24), random.uniform(2, 12))
    hue = noise(random, SIDE_PX, SIDE_PX, 32) * np.float32(0.25 * wide * strength)
    picture = np.empty((SIDE_PX, SIDE_PX, 3), np.float32)
    for channel, sign in enumerate((1.0, 0.1, -0.7)):
        picture[..., channel] = light + hue * np.float32(sign) + np.float32(color[channel])
    return picture, color


def _rows(random: Random, pitch_px: float, strength: float) -> Floats:
    """Return the stripes of ploughed, mown or wavy ground (512, 512)."""
    angle, bend = random.uniform(0, np.pi), noise(random, SIDE_PX, SIDE_PX, 128)
    across = np.arange(SIDE_PX, dtype=np.float32) * np.float32(2 * np.pi / pitch_px)
    phase = across[None, :] * np.float32(np.cos(angle)) + across[:, None] * np.float32(np.sin(angle)) + bend
    return np.sin(phase) * np.float32(strength)


def mix_ground(random: Random, canvas: Canvas, kind: str) -> None:
    """Lay another ground over patches of the canvas: ragged, or beyond a straight or wavy border."""
    other, _ = paint_ground(random, kind)
    canvas.lay((slice(0, SIDE_PX), slice(0, SIDE_PX)), _region(random), other, random.uniform(0.5, 1.0))


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
        canvas.fill([ribbon(line, width_px * random.uniform(0.55, 0.8))], color * random.uniform(0.9, 1.3), random.uniform(0.2, 0.8), grain, 8)
    canvas.fill([ribbon(line, width_px / 2)], color, 1.0, grain, 5)
    if width_px > 10 and random.random() < 0.75:
        thin = max(0.35, width_px * 0.012)
        along = np.gradient(line, axis=0)
        along /= np.hypot(along[:, :1], along[:, 1:])
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
        edges = [ribbon(line + normal * offset, thin) for offset in (-0.44 * width_px, 0.44 * width_px)]
        canvas.fill(edges, (212, 212, 206), random.uniform(0.1, 0.8))
        dashes = [ribbon(line[k : k + 2], thin) for k in range(0, len(line) - 2, 2)]
        canvas.fill(dashes, (216, 212, 190), random.uniform(0.1, 0.9))


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
    kinds, tints = random.integers(len(crowns), size=len(places)), random.normal(0, 9, (len(places), 3)) + random.normal(0, 8, (len(places), 1))
    flip = (slice(None, None, -1 if sun[1] < 0 else 1), slice(None, None, -1 if sun[0] < 0 else 1))
    for place, radius, kind, tint in zip(places, radii, kinds, tints, strict=True):
        side = max(3, round(2 * radius))
        left, top = round(place[0] - radius), round(place[1] - radius)
        window = (slice(max(0, top), min(SIDE_PX, top + side)), slice(max(0, left), min(SIDE_PX, left + side)))
        if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
            continue
        inner = (slice(window[0].start - top, window[0].stop - top), slice(window[1].start - left, window[1].stop - left))
        cover, light = (cv2.resize(part[flip], (side, side), interpolation=cv2.INTER_AREA)[inner] for part in crowns[kind])
        canvas.lay(window, cover, (color + tint).astype(np.float32) + light[..., None] * np.float32(16))


def cast_trees(canvas: Canvas, places: Points, radii: NDArray[np.float64], reach: Points) -> None:
    """Note the crowns' shadows, `reach` (2,) pixels away per pixel of radius."""
    for place, radius in zip(places, radii, strict=True):
        centre = place + reach * radius
        if window_of([np.array([centre - radius, centre + radius])]) is not None:
            cv2.circle(canvas.shadow, tuple(np.rint(centre * 16).astype(int).tolist()), round(radius * 14), 255, -1, cv2.LINE_AA, 4)
