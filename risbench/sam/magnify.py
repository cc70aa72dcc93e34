"""A magnified square crop of an image around one box, and the way back: what the built-in SAM looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

# The crop's side is the box's long side times this, plus some pixels: the boxes of small objects are the least certain.
CONTEXT: Final = 1.6
CONTEXT_PX: Final = 12.0
_OUTSIDE: Final = (124, 116, 104)  # SAM's mean pixel: what lies beyond the image is 0 once normalised


@dataclass(frozen=True)
class Frame:
    """A square window on an image: `scale` output pixels an image pixel, from the image's point (left, top) on."""

    left: float
    top: float
    scale: float

    def to_crop(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points (..., 2) of the image in pixels of the crop."""
        return (np.asarray(points, dtype=np.float64) - (self.left, self.top)) * self.scale

    def cut(self, image: NDArray[Any], side: int) -> NDArray[Any]:
        """Return the window (side, side, ...) of an image (height, width, ...), anti-aliased where it shrinks."""
        return _warp(image, self, side, shrunk=self.scale)

    def cut_mask(self, mask: NDArray[np.bool_], side: int, crop_side: int) -> NDArray[np.float32]:
        """Return the share (side, side) that a mask (height, width) covers, on a grid of the crop coarser by `crop_side / side`."""
        part = Frame(self.left, self.top, self.scale * side / crop_side)
        covered = _warp(mask.astype(np.uint8) * 255, part, side, shrunk=part.scale, outside=(0, 0, 0))
        return covered.astype(np.float32) / np.float32(255)

    def paste(self, logits: NDArray[np.float32], crop_side: int, height: int, width: int, outside: float) -> NDArray[np.float32]:
        """Return logits (side, side) of the crop as logits (height, width) of the image, `outside` beyond the crop."""
        scale = self.scale * logits.shape[0] / crop_side
        shift = -0.5 + scale * 0.5
        back = np.array([[scale, 0.0, shift - scale * self.left], [0.0, scale, shift - scale * self.top]])
        out = np.full((height, width), outside, np.float32)
        reach = crop_side / self.scale
        left, top = max(0, int(np.floor(self.left))), max(0, int(np.floor(self.top)))
        right, bottom = min(width, int(np.ceil(self.left + reach))), min(height, int(np.ceil(self.top + reach)))
        if left >= right or top >= bottom:
            return out
        local = back.copy()
        local[:, 2] += back[:, :2] @ np.array([left, top])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        out[top:bottom, left:right] = cv2.warpAffine(
            logits, local, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return out


def frame_of(box: tuple[float, float, float, float], crop_side: int) -> Frame:
    """Return the window around a box that is scaled to `crop_side` pixels."""
    x_min, y_min, x_max, y_max = box
    side = CONTEXT * max(x_max - x_min, y_max - y_min, 1.0) + CONTEXT_PX
    return Frame((x_min + x_max - side) / 2, (y_min + y_max - side) / 2, crop_side / side)


def _warp(image: NDArray[Any], frame: Frame, side: int, shrunk: float, outside: tuple[int, int, int] = _OUTSIDE) -> NDArray[Any]:
    # Only the part of the image that the crop shows is touched: scenes are much larger than objects.
    reach = side / frame.scale
    height, width = image.shape[:2]
    left, top = max(0, int(frame.left) - 8), max(0, int(frame.top) - 8)
    right, bottom = min(width, int(frame.left + reach) + 9), min(height, int(frame.top + reach) + 9)
    left, top = min(left, width - 1), min(top, height - 1)
    part = np.ascontiguousarray(image[top : max(bottom, top + 1), left : max(right, left + 1)])
    if shrunk < 1:
        part = cv2.GaussianBlur(part, (0, 0), 0.5 * float(np.sqrt(1 / shrunk**2 - 1)) + 1e-3)
    scale, shift = frame.scale, 0.5 * frame.scale - 0.5
    affine = np.array([[scale, 0.0, shift + scale * (left - frame.left)], [0.0, scale, shift + scale * (top - frame.top)]])
    method = cv2.INTER_CUBIC if shrunk > 1 and part.ndim == 3 else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(part, affine, (side, side), flags=method, borderMode=cv2.BORDER_CONSTANT, borderValue=outside))


def prompt_mask(polygon: NDArray[np.float64], side: int, crop_side: int) -> NDArray[np.float32]:
    """Return a polygon (n, 2) in pixels of the crop as a mask prompt (side, side): 1 inside, -1 outside, soft at the rim."""
    fine = 4
    drawn = np.zeros((side * fine, side * fine), np.uint8)
    points = polygon * (side * fine / crop_side) - 0.5
    cv2.fillPoly(drawn, [np.rint(points * 16).astype(np.int32)], 255, shift=4)
    small = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
