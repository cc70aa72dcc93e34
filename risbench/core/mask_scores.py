"""What can be told of a mask without the engine that made it: how well it fills its box, its pieces, its holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import box_iou, mask_bounds, polygon_mask, quad_bounds
from risbench.core.metrics import mask_iou
from risbench.core.record import Box, Problem, Target

CONFLICT: Final = "mask_box_conflict"
# A mask that is merely looser or tighter than its box shares more than this with it.
CONFLICT_BELOW_IOU: Final = 0.5
# Of objects of a few pixels, rounding alone can take half of the overlap.
_ROUNDING_PX: Final = 2.0


def mask_box_agreement(mask: NDArray[np.bool_], target: Target) -> float:
    """Return how well the mask fills its prompt: IoU with the oriented box, or of its extent with the upright box."""
    if target.oriented_box is not None:
        return mask_iou(mask, polygon_mask(target.oriented_box, *mask.shape))
    bounds = mask_bounds(mask)
    return box_iou(bounds, target.box) if bounds is not None else 0.0


def conflict(mask: NDArray[np.bool_], boxes: Sequence[Box]) -> Problem | None:
    """Return the problem of a given mask (height, width) that does not lie where its given boxes do, None where they agree.

    The mask's extent is held against the upright box around `boxes`, both in pixels of one image.
    """
    extent = mask_bounds(mask)
    if extent is None or not boxes:
        return None
    around = _around(boxes)
    iou = box_iou(extent, around)
    if iou >= CONFLICT_BELOW_IOU or max(abs(one - other) for one, other in zip(extent, around, strict=True)) <= _ROUNDING_PX:
        return None
    detail = f"the mask's extent {_rounded(extent)} and the box {_rounded(around)} have an IoU of {iou:.2f}, in pixels of the source image"
    return Problem(stage="ingest", code=CONFLICT, detail=f"{detail}; one of them is of another object or place: decide in review")


def _around(boxes: Sequence[Box]) -> Box:
    return quad_bounds(corner for box in boxes for corner in (box[:2], box[2:]))


def _rounded(box: Box) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in (round(side, 1) for side in box)) + ")"


def scores_of_given(mask: NDArray[np.bool_], targets: Sequence[Target], *, boxes_given: bool) -> dict[str, float]:
    """Return the scores, 0 to 1 where 1 is best, of a mask (height, width) that the source brings.

    `in_one_piece` is the share of its pixels in its largest pieces, one a target; `without_holes` its pixels over those with its holes
    filled; `mask_box_agreement` stands only where the source gives boxes, too.
    """
    scores = _shape_scores(mask, len(targets))
    if boxes_given and len(targets) == 1:
        scores["mask_box_agreement"] = mask_box_agreement(mask, targets[0])
    elif boxes_given:
        bounds = mask_bounds(mask)
        scores["mask_box_agreement"] = box_iou(bounds, _around([target.box for target in targets])) if bounds is not None else 0.0
    return {name: round(float(value), 4) for name, value in sorted(scores.items())}


def _shape_scores(mask: NDArray[np.bool_], objects: int) -> dict[str, float]:
    bounds = mask_bounds(mask)
    if bounds is None:
        return {}
    left, top, right, bottom = (int(side) for side in bounds)
    crop = np.pad(mask[top:bottom, left:right], 1).astype(np.uint8)
    area = int(np.count_nonzero(crop))
    _, _, stats, _ = cv2.connectedComponentsWithStats(crop, connectivity=8)
    largest = np.sort(stats[1:, cv2.CC_STAT_AREA])[::-1][: max(1, objects)]
    _, outside, background, _ = cv2.connectedComponentsWithStats(1 - crop, connectivity=4)
    holes = crop.size - area - int(background[outside[0, 0], cv2.CC_STAT_AREA])
    return {"in_one_piece": float(largest.sum()) / area, "without_holes": area / (area + holes)}
