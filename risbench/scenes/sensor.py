"""From the canvas to an image as a sensor and its archive give it: optics, colour, haze, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.canvas import SIDE_PX, Floats, Random, noise

_LUMA: Final = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Look:
    """Whether an image's colours are those that people would name."""

    true_color: bool


def expose(random: Random, canvas: Floats) -> tuple[NDArray[np.uint8], Look]:
    """Return the image (512, 512, 3) of a canvas (3, 512, 512) and its look."""
    optics = _Optics.draw(random)
    planes = [optics.apply(plane) for plane in canvas]
    matrix, true_color = _color(random)
    contrast, haze = (
        random.choice([0.6, 0.85, 1.05, 1.3, 1.6]) * random.uniform(0.88, 1.12),
        random.uniform(0, 0.4) * float(random.random() < 0.25),
    )
    middle = float(np.mean([plane[::8, ::8].mean() for plane in planes]))
    gain = matrix * contrast * (1 - haze)
    # contrast about the image's own grey, exposure, then haze as a veil of skylight
    offset = (1 - haze) * (random.normal(98, 22) - contrast * middle) + haze * np.array([190.0, 200.0, 210.0])
    level, cell = abs(random.normal(0, 4.0)), 1 if random.random() < 0.7 else 2
    picture = []
    for row, shift in zip(gain.astype(np.float32), offset, strict=True):
        plane = noise(random, SIDE_PX, SIDE_PX, cell) * np.float32(level)
        plane += np.float32(shift)
        for share, source in zip(row, planes, strict=True):
            plane += share * source
        picture.append(np.clip(plane, 0, 255, out=plane).astype(np.uint8))
    image = np.asarray(cv2.merge(picture), dtype=np.uint8)
    if random.random() < 0.7:
        quality = int(random.integers(35, 96))
        image = np.asarray(
            cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR), dtype=np.uint8
        )
    return image, Look(true_color)


@dataclass(frozen=True)
class _Optics:
    """Blur of lens and resampling, at times sharpened again; the same for all colours."""

    spread: float
    coarse_px: int | None
    method: int
    sharpened: float
    reach: float

    @classmethod
    def draw(cls, random: Random) -> _Optics:
        spread = float(random.choice([0.0, 0.45, 0.7, 1.0, 1.5], p=[0.15, 0.25, 0.3, 0.2, 0.1]))
        coarse = round(SIDE_PX / random.uniform(1.2, 2.6)) if random.random() < 0.2 else None
        method = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(random.integers(2))]
        sharpened = random.uniform(0.4, 1.5) if random.random() < 0.3 else 0.0
        return cls(spread, coarse, method, sharpened, random.uniform(0.8, 1.6))

    def apply(self, plane: Floats) -> Floats:
        seen = cv2.GaussianBlur(plane, (0, 0), self.spread) if self.spread else plane
        if self.coarse_px:
            small = cv2.resize(seen, (self.coarse_px, self.coarse_px), interpolation=cv2.INTER_AREA)
            seen = cv2.resize(small, (SIDE_PX, SIDE_PX), interpolation=self.method)
        if self.sharpened:
            seen = cv2.addWeighted(seen, 1 + self.sharpened, cv2.GaussianBlur(seen, (0, 0), self.reach), -self.sharpened, 0)
        return np.asarray(seen, dtype=np.float32)


def _color(random: Random) -> tuple[NDArray[np.float64], bool]:
    """Return a colour matrix (3, 3) and whether it leaves colours nameable."""
    draw = random.random()
    if draw < 0.07:
        return np.tile(_LUMA, (3, 1)), False
    gains = np.diag(random.normal(1.0, 0.07, 3))
    saturation = random.uniform(0.4, 1.15)
    matrix = gains @ (saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1)))
    if draw < 0.13:
        # infrared as red, as in aerial surveys: vegetation turns red, the rest bluish
        infrared = np.array([[-0.3, 1.9, -0.6], [0.75, 0.15, 0.1], [0.1, 0.7, 0.2]])
        return infrared @ matrix, False
    if draw < 0.2:
        return matrix @ (np.eye(3) + random.normal(0, 0.16, (3, 3))), False
    return matrix, True
