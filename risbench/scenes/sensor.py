"""From the canvas to an image as a sensor and its archive give it: optics, colour, haze, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.canvas import SIDE_PX, SPREAD, Bytes, Random, noise

_LUMA: Final = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Look:
    """Whether an image's colours are those that people would name."""

    true_color: bool


def expose(random: Random, canvas: Bytes) -> tuple[Bytes, Look]:
    """Return the image (512, 512, 3) of a developed canvas (512, 512, 3) and its look."""
    image = _Optics.draw(random).apply(canvas)
    matrix, true_color = _color(random)
    contrast, haze = (
        random.choice([0.6, 0.85, 1.05, 1.3, 1.6]) * random.uniform(0.88, 1.12),
        random.uniform(0, 0.4) * float(random.random() < 0.25),
    )
    middle = float(image[::8, ::8].mean())
    gain = matrix * contrast * (1 - haze)
    # contrast about the image's own grey, exposure, then haze as a veil of skylight
    offset = (1 - haze) * (random.normal(98, 22) - contrast * middle) + haze * np.array([190.0, 200.0, 210.0])
    share, cell = abs(random.normal(0, 4.0)) / SPREAD, 1 if random.random() < 0.7 else 2
    # in bytes: what is saturated gets noise on one side only, which a float's detour would mend for a twentieth of the whole time
    shown = cv2.transform(image, np.column_stack([gain, offset]))
    speckle = cv2.merge([noise(random, SIDE_PX, SIDE_PX, cell) for _ in range(3)])
    image = np.asarray(cv2.addWeighted(shown, 1.0, speckle, share, -128 * share), dtype=np.uint8)
    if random.random() < 0.7:
        quality = int(random.integers(35, 96))
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), dtype=np.uint8)
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

    def apply(self, canvas: Bytes) -> Bytes:
        seen = _blurred(canvas, self.spread) if self.spread else canvas
        if self.coarse_px:
            small = cv2.resize(seen, (self.coarse_px, self.coarse_px), interpolation=cv2.INTER_AREA)
            seen = np.asarray(cv2.resize(small, (SIDE_PX, SIDE_PX), interpolation=self.method), dtype=np.uint8)
        if self.sharpened:
            veil = _blurred(seen, self.reach)
            seen = np.asarray(cv2.addWeighted(seen, 1 + self.sharpened, veil, -self.sharpened, 0), dtype=np.uint8)
        return seen


def _blurred(picture: Bytes, spread_px: float) -> Bytes:
    """Return a picture blurred out to about twice the spread; OpenCV's own choice goes to three times, at half as much again."""
    return np.asarray(cv2.GaussianBlur(picture, (2 * round(2 * spread_px) + 1,) * 2, spread_px), dtype=np.uint8)


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
