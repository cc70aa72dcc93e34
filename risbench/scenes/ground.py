"""Grounds: grass, asphalt, concrete, water and soil as layered noise, with roads, trees and roofs as clutter."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.float32]
Random = np.random.Generator

GROUNDS: Final[dict[str, tuple[tuple[int, int, int], float, float]]] = {
    # base colour, strength of fine noise, strength of patches
    "grass": ((96, 112, 70), 9.0, 20.0),
    "soil": ((150, 132, 104), 8.0, 16.0),
    "asphalt": ((92, 94, 98), 5.0, 8.0),
    "concrete": ((164, 163, 158), 5.0, 10.0),
    "water": ((40, 72, 84), 3.0, 7.0),
}


def noise(random: Random, height: int, width: int, cell: int) -> Canvas:
    """Return smooth noise (height, width) of unit spread whose bumps are about `cell` pixels."""
    small = random.standard_normal((max(2, height // cell + 2), max(2, width // cell + 2))).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def paint_ground(random: Random, height: int, width: int, kind: str) -> Canvas:
    """Return a ground (height, width, 3), 0-255."""
    base, fine, patches = GROUNDS[kind]
    tint = random.normal(0, 7, 3)
    layers = (
        patches * 0.5 * noise(random, height, width, 160)
        + patches * 0.4 * noise(random, height, width, 40)
        + fine * noise(random, height, width, 3)
    )
    hue = 0.25 * patches * noise(random, height, width, 90)
    canvas = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        canvas[..., channel] = base[channel] + tint[channel] + layers + (hue if channel == 0 else -0.5 * hue)
    return canvas


def blend(canvas: Canvas, mask: NDArray[Any], color: Any, opacity: float = 1.0) -> None:
    """Lay a colour or a picture of the canvas's size over the canvas where `mask` (0-255) is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    alpha = mask[part].astype(np.float32)[..., None] * (opacity / 255)
    over = color[part] if isinstance(color, np.ndarray) and color.ndim == 3 else np.asarray(color, dtype=np.float32)
    canvas[part] = canvas[part] * (1 - alpha) + over * alpha


def polygon(shape: tuple[int, ...], points: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an anti-aliased polygon (0-255) of a canvas's size."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return mask


def paint_road(random: Random, canvas: Canvas, width_px: float) -> NDArray[np.uint8]:
    """Draw one road across the canvas, with edge and centre lines; return where it is (0-255)."""
    height, width = canvas.shape[:2]
    across = random.random() < 0.5
    start, end = random.uniform(0.1, 0.9, 2)
    a = np.array([0.0, start * height]) if across else np.array([start * width, 0.0])
    b = np.array([float(width), end * height]) if across else np.array([end * width, float(height)])
    direction = (b - a) / np.hypot(*(b - a))
    normal = np.array([-direction[1], direction[0]])

    def strip(offset: float, half: float) -> NDArray[np.uint8]:
        centre_a, centre_b = a + normal * offset - direction * 20, b + normal * offset + direction * 20
        return polygon(
            canvas.shape, np.array([centre_a - normal * half, centre_b - normal * half, centre_b + normal * half, centre_a + normal * half])
        )

    blend(canvas, strip(0, width_px / 2 + 2), (128, 122, 110), 0.6)
    blend(canvas, strip(0, width_px / 2), paint_ground(random, height, width, "asphalt"))
    for offset in (-width_px * 0.44, width_px * 0.44):
        blend(canvas, strip(offset, 0.9), (206, 206, 200), 0.7)
    dashes = strip(0, 0.9)
    along = (np.arange(width)[None, :] * direction[0] + np.arange(height)[:, None] * direction[1]) % 44 < 22
    blend(canvas, (dashes * along).astype(np.uint8), (214, 210, 190), 0.8)
    return strip(0, width_px / 2)


def paint_trees(random: Random, canvas: Canvas, count: int, radius_px: tuple[float, float], keep_clear: NDArray[np.bool_]) -> None:
    """Scatter tree crowns with shadows where `keep_clear` is not set."""
    height, width = canvas.shape[:2]
    for _ in range(count):
        x, y, radius = random.uniform(0, width), random.uniform(0, height), random.uniform(*radius_px)
        reach = int(radius * 1.6)
        rows, columns = slice(max(0, int(y) - reach), int(y) + reach), slice(max(0, int(x) - reach), int(x) + reach)
        if keep_clear[rows, columns].any():
            continue
        angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        lobes = radius * (1 + 0.22 * random.standard_normal(18))
        crown = np.stack([x + lobes * np.cos(angles), y + lobes * np.sin(angles)], axis=1)
        blend(canvas, polygon(canvas.shape, crown + radius * 0.45), (20, 24, 22), 0.45)
        green = np.array([52, 78, 42]) + random.normal(0, 10, 3)
        blend(canvas, polygon(canvas.shape, crown), green)
        blend(
            canvas,
            polygon(canvas.shape, (crown - [x, y]) * 0.55 + [x - radius * 0.2, y - radius * 0.2]),
            green + np.array([18, 22, 12]),
            0.7,
        )


def finish(random: Random, canvas: Canvas, side: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the sensor's image (height, width, 3) of a supersampled canvas: optics, haze, noise."""
    height, width = side
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), random.uniform(0.35, 0.7))
    haze, gain = random.uniform(0, 0.1), random.uniform(0.9, 1.12)
    hazy = (1 - haze) * gain * np.asarray(small, dtype=np.float32) + haze * np.array([196, 204, 212], dtype=np.float32)
    noisy = hazy + random.normal(0, random.uniform(1.0, 3.0), hazy.shape)
    return np.asarray(np.clip(noisy, 0, 255).round(), dtype=np.uint8)
