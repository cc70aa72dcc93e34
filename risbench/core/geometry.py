"""Boxes, oriented boxes and affine maps, in pixels: x right, y down, max exclusive."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InvalidRowError
from risbench.core.record import Affine, Box, Quad, Repair, is_singular

IDENTITY: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def box_area(box: Box) -> float:
    """Return the area in square pixels; 0 for a box that is inside out."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def box_intersection(a: Box, b: Box) -> Box:
    """Return the common part of two boxes; it has no area where they do not touch."""
    return (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))


def box_iou(a: Box, b: Box) -> float:
    """Return intersection over union of two boxes, 0 when both are empty."""
    common = box_area(box_intersection(a, b))
    union = box_area(a) + box_area(b) - common
    return common / union if union > 0 else 0.0


def quad_from_flat(values: Sequence[float], x_scale: float = 1.0, y_scale: float = 1.0) -> Quad:
    """Return four points from x1, y1 ... x4, y4, each scaled to pixels."""
    x1, y1, x2, y2, x3, y3, x4, y4 = values
    points = ((x1, y1), (x2, y2), (x3, y3), (x4, y4))
    scaled = [(float(x) * x_scale, float(y) * y_scale) for x, y in points]
    return (scaled[0], scaled[1], scaled[2], scaled[3])


def lies_in(box: Box, width: int, height: int) -> bool:
    """Return whether a box has an area and lies in an image of width x height px, as every box of a record does."""
    x_min, y_min, x_max, y_max = box
    return 0 <= x_min < x_max <= width + 1e-6 and 0 <= y_min < y_max <= height + 1e-6


def quad_bounds(points: Iterable[tuple[float, float]]) -> Box:
    """Return the upright box around points."""
    xs, ys = zip(*points, strict=True)
    return (float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys)))


def is_oriented(quad: Quad, tolerance_px: float = 0.5) -> bool:
    """Return whether the four points differ from the corners of their upright box by more than `tolerance_px`."""
    x_min, y_min, x_max, y_max = quad_bounds(quad)
    return any(min(x - x_min, x_max - x) > tolerance_px or min(y - y_min, y_max - y) > tolerance_px for x, y in quad)


def apply_affine(affine: Affine, x: float, y: float) -> tuple[float, float]:
    """Return (a x + b y + c, d x + e y + f) for affine (a, b, c, d, e, f)."""
    a, b, c, d, e, f = affine
    return (a * x + b * y + c, d * x + e * y + f)


def invert_affine(affine: Affine) -> Affine:
    """Return the inverse map.

    Raises:
        ValueError: the map is singular.
    """
    a, b, c, d, e, f = affine
    if is_singular(affine):
        raise ValueError(f"affine map {affine} is singular")
    determinant = a * e - b * d
    ia, ib, id_, ie = e / determinant, -b / determinant, -d / determinant, a / determinant
    return (ia, ib, -(ia * c + ib * f), id_, ie, -(id_ * c + ie * f))


def map_quad(affine: Affine, quad: Quad) -> Quad:
    """Return the four points under `affine`."""
    (px, py), (qx, qy), (rx, ry), (sx, sy) = quad
    return (apply_affine(affine, px, py), apply_affine(affine, qx, qy), apply_affine(affine, rx, ry), apply_affine(affine, sx, sy))


def map_box(affine: Affine, box: Box) -> Box:
    """Return the upright box around the mapped corners."""
    x_min, y_min, x_max, y_max = box
    corners = [apply_affine(affine, x_min, y_min), apply_affine(affine, x_max, y_max)]
    if affine[1] or affine[3]:  # else two corners say where all four lie
        corners += [apply_affine(affine, x_max, y_min), apply_affine(affine, x_min, y_max)]
    return quad_bounds(corners)


def window_starts(length: int, side: int) -> list[int]:
    """Return where windows of a side begin along a length: without gaps, the last one pulled back inside (VRSBench's cut of DOTA)."""
    starts = list(range(0, max(1, length - side + 1), side))
    if starts[-1] + side < length:
        starts.append(length - side)
    return starts


def polygon_mask(points: Sequence[Sequence[float]] | NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels (height, width) whose centres lie in the polygon, by the even-odd rule.

    By scan lines, not cv2.fillPoly, which also takes every pixel that the outline touches: half a pixel too wide all round.
    """
    mask = np.zeros((height, width), bool)
    corners = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    (x_min, y_min), (x_max, y_max) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    top, bottom = (math.ceil(min(max(value - 0.5, 0.0), height)) for value in (y_min, y_max))
    left, right = (math.ceil(min(max(value - 0.5, 0.0), width)) for value in (x_min, x_max))
    if top >= bottom or left >= right:
        return mask
    centres = np.arange(top, bottom) + 0.5
    (ax, ay), (bx, by) = corners.T[:, :, None], np.concatenate([corners[1:], corners[:1]]).T[:, :, None]
    edges, rows = np.nonzero((ay <= centres) != (by <= centres))
    ax, ay, bx, by = ax[edges, 0], ay[edges, 0], bx[edges, 0], by[edges, 0]
    crossed = ax + (centres[rows] - ay) * (bx - ax) / (by - ay)
    # A pixel is inside where an odd number of edges lies left of its centre: count each edge from its first pixel on.
    columns = np.minimum(np.maximum(np.ceil(crossed - 0.5), left), right).astype(np.int64) - left
    high, wide = bottom - top, right - left + 1
    turns = np.zeros(high * wide, bool)
    np.logical_xor.at(turns, rows * wide + columns, True)
    mask[top:bottom, left:right] = np.logical_xor.accumulate(turns.reshape(high, wide), axis=1)[:, :-1]
    return mask


def box_mask(box: Box, height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels (height, width) whose centres lie in the box; at least one pixel where the box touches the image."""
    x_min, y_min, x_max, y_max = box
    mask = np.zeros((height, width), bool)
    left, top = max(0, math.ceil(x_min - 0.5)), max(0, math.ceil(y_min - 0.5))
    right, bottom = min(width, math.ceil(x_max - 0.5)), min(height, math.ceil(y_max - 0.5))
    left, top = min(left, width - 1), min(top, height - 1)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return mask


def mask_bounds(mask: NDArray[Any]) -> Box | None:
    """Return the upright box of the mask's pixels, max exclusive, or None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def repair_box(box: Box, width: int, height: int, quantum: float | None) -> tuple[Box, tuple[Repair, ...]]:
    """Return `box` made usable in a width x height image, with the named rules that were needed.

    Rules, in this order: `swapped` (min and max exchanged), `no_area` (a side that rounding
    closed is opened to one `quantum`, the step of the source's rounding in shares of the side),
    `larger_than_image` (a side longer than the image is cut to it), `out_of_range` (cut at the border).
    Repairing a repaired box changes nothing.

    Raises:
        InvalidRowError: the box lies outside the image, or has no area and no rounding explains that.
    """
    x_min, y_min, x_max, y_max = box
    repairs: list[Repair] = []
    if x_min > x_max or y_min > y_max:
        x_min, x_max = sorted((x_min, x_max))
        y_min, y_max = sorted((y_min, y_max))
        repairs.append(Repair(rule="swapped", detail="min and max exchanged"))
    sides = {"x": [x_min, x_max, float(width)], "y": [y_min, y_max, float(height)]}
    for axis, side in sides.items():
        low, high, extent = side
        if low == high:
            if quantum is None:
                raise InvalidRowError("no_area", "box", box, f"its {axis} side is 0 px long; it must be longer than 0")
            middle, half = (low + high) / 2, quantum * extent / 2
            side[0], side[1] = middle - half, middle + half
            repairs.append(Repair(rule="no_area", detail=f"{axis} side opened from 0 to {quantum * extent:g} px"))
    for axis, side in sides.items():
        low, high, extent = side
        if high <= 0 or low >= extent:
            raise InvalidRowError("outside_image", "box", box, f"no part lies in the image of {width} x {height} px")
        new_low, new_high = max(0.0, low), min(extent, high)
        if (new_low, new_high) != (low, high):
            rule = "larger_than_image" if high - low > extent else "out_of_range"
            repairs.append(Repair(rule=rule, detail=f"{axis} from {low:.2f}..{high:.2f} to {new_low:.2f}..{new_high:.2f}"))
            side[0], side[1] = new_low, new_high
    return (sides["x"][0], sides["y"][0], sides["x"][1], sides["y"][1]), tuple(repairs)


def size_of(area_px: float) -> str:
    """Return COCO's size name of an area in pixels: small below 32 x 32, large from 96 x 96."""
    return "small" if area_px < 32**2 else "medium" if area_px < 96**2 else "large"
