"""The piece of an image around a box, at a working scale, upright or turned with an oriented box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.imagery import Pixels
from risbench.core.record import Box, Quad

WORKING_SIDE_PX: Final = 128
MAX_SIDE_PX: Final = 256
PAD_SHARE: Final = 0.4
MIN_PAD_PX: Final = 12


@dataclass(frozen=True)
class Crop:
    """A crop in CIE Lab, 8-bit. `affine` (2, 3) maps the image's pixel corners to the crop's.

    `box` is the prompt's box in the crop; `u`, `v` (height, width) are pixel centres relative to it, -1 to 1 inside.
    """

    lab: Pixels
    affine: NDArray[np.float64]
    box: NDArray[np.float64]
    u: NDArray[np.float64]
    v: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the crop."""
        return (int(self.lab.shape[0]), int(self.lab.shape[1]))

    def to_image(self, votes: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
        """Return a map of the crop (height, width) as a map of the image; 0 outside the crop."""
        shifted = _between_centres(self.affine)
        out = cv2.warpAffine(votes.astype(np.float32), shifted, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return np.asarray(out, dtype=np.float32)


def _pad_and_scale(long_side: float) -> tuple[float, float]:
    """Return the padding in image pixels and the scale that brings a box's long side to 128 px, and no crop beyond 256 px."""
    pad = max(PAD_SHARE * long_side, MIN_PAD_PX)
    return pad, min(WORKING_SIDE_PX / long_side, MAX_SIDE_PX / (long_side + 2 * pad))


def upright_crop(pixels: Pixels, box: Box) -> Crop:
    """Return the padded crop of a box, its long side scaled to 128 px."""
    x_min, y_min, x_max, y_max = box
    width, height = max(x_max - x_min, 2.0), max(y_max - y_min, 2.0)
    pad, scale = _pad_and_scale(max(width, height))
    left, top = x_min - pad, y_min - pad
    affine = np.array([[scale, 0.0, -scale * left], [0.0, scale, -scale * top]])
    size = (round((width + 2 * pad) * scale), round((height + 2 * pad) * scale))
    inner = np.array([pad, pad, pad + width, pad + height]) * scale
    return _crop(pixels, affine, size, inner, scale)


def turned_crop(pixels: Pixels, quad: Quad) -> tuple[Crop, NDArray[np.float64]]:
    """Return the crop turned so that the oriented box lies upright, and the polygon's four points in it."""
    points = np.asarray(quad, dtype=np.float64)
    centre, (width, height), angle = cv2.minAreaRect(points.astype(np.float32))
    if width < height:
        width, height, angle = height, width, angle + 90
    width, height = max(width, 2.0), max(height, 2.0)
    pad, scale = _pad_and_scale(width)
    turn = np.radians(angle)
    rotation = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    size = (round((width + 2 * pad) * scale), round((height + 2 * pad) * scale))
    shift = np.array([size[0] / 2, size[1] / 2]) - rotation @ np.asarray(centre)
    affine = np.column_stack([rotation, shift])
    inner = np.array([pad, pad, pad + width, pad + height]) * scale
    return _crop(pixels, affine, size, inner, scale), points @ rotation.T + shift


def _crop(pixels: Pixels, affine: NDArray[np.float64], size: tuple[int, int], box: NDArray[np.float64], scale: float) -> Crop:
    # Only the part of the image that the crop shows is touched: scenes are much larger than objects.
    corners = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], dtype=np.float64)
    back = cv2.invertAffineTransform(affine)
    seen = corners @ back[:, :2].T + back[:, 2]
    left, top = (max(0, int(value) - 8) for value in seen.min(axis=0))
    right, bottom = (int(value) + 8 for value in seen.max(axis=0))
    right, bottom = min(right, pixels.shape[1]), min(bottom, pixels.shape[0])
    left, top = min(left, right - 1), min(top, bottom - 1)
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    if scale < 1:
        part = np.asarray(cv2.GaussianBlur(part, (0, 0), 0.5 * float(np.sqrt(1 / scale**2 - 1)) + 1e-3), dtype=np.uint8)
    local = affine.copy()
    local[:, 2] += affine[:, :2] @ np.array([left, top])
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
    warped = cv2.warpAffine(part, _between_centres(local), size, flags=method, borderMode=cv2.BORDER_REPLICATE)
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    u = (columns - (box[0] + box[2]) / 2) / (box[2] - box[0]) * 2
    v = (rows - (box[1] + box[3]) / 2) / (box[3] - box[1]) * 2
    return Crop(np.asarray(cv2.cvtColor(warped, cv2.COLOR_RGB2LAB), dtype=np.uint8), affine, box, u, v)


def _between_centres(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a map between pixel corners as cv2's map between pixel centres."""
    shifted = affine.copy()
    shifted[:, 2] += affine[:, :2] @ np.array([0.5, 0.5]) - 0.5
    return shifted
