"""Rules that tidy a mask, each an option: fragments, holes, and what lies far outside the box."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.record import Box


@dataclass(frozen=True)
class CleanRules:
    """Shares between 0 and 1; 0 turns a rule off (for `max_outside`, a negative number does).

    `min_fragment`: pieces smaller than this share of the largest piece go. `max_hole`: holes smaller than this
    share of the mask are filled. `max_outside`: pixels further outside the box than this share of its sides go.
    """

    min_fragment: float = 0.2
    max_hole: float = 0.05
    max_outside: float = 0.25


def clean_mask(mask: NDArray[np.bool_], box: Box, rules: CleanRules) -> NDArray[np.bool_]:
    """Return the mask (height, width) after the rules; a mask that a rule would empty stays as it was before that rule."""
    cleaned = _cut_outside(mask, box, rules.max_outside)
    if not cleaned.any():
        cleaned = mask
    cleaned = _drop_fragments(cleaned, rules.min_fragment)
    return _fill_holes(cleaned, rules.max_hole)


def _cut_outside(mask: NDArray[np.bool_], box: Box, share: float) -> NDArray[np.bool_]:
    if share < 0:
        return mask
    x_min, y_min, x_max, y_max = box
    reach_x, reach_y = share * (x_max - x_min), share * (y_max - y_min)
    rows, columns = np.arange(mask.shape[0]) + 0.5, np.arange(mask.shape[1]) + 0.5
    near_rows = (rows >= y_min - reach_y) & (rows <= y_max + reach_y)
    near_columns = (columns >= x_min - reach_x) & (columns <= x_max + reach_x)
    result: NDArray[np.bool_] = mask & near_rows[:, None] & near_columns[None, :]
    return result


def _drop_fragments(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if share <= 0 or count <= 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = 1 + np.flatnonzero(areas >= share * areas.max())
    result: NDArray[np.bool_] = np.isin(labels, kept)
    return result


def _fill_holes(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    if share <= 0 or not mask.any():
        return mask
    # A border of background joins all that is outside into one component.
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
    if count <= 2:
        return mask
    areas = stats[:, cv2.CC_STAT_AREA]
    holes = [index for index in range(1, count) if index != labels[0, 0] and areas[index] < share * np.count_nonzero(mask)]
    result: NDArray[np.bool_] = mask | np.isin(labels, holes)[1:-1, 1:-1]
    return result
