"""Known answers among the tasks: which records have one, and masks that are wrong on purpose."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.metrics import mask_iou
from risbench.core.record import UNDECIDED, Record
from risbench.core.releasable import blocking_problem

# A corrupted mask must be seen to be wrong at a glance, and yet be one that a model could have made.
CORRUPTED_IOU: Final = (0.15, 0.65)
SPOILT_FROM_AREA_PX: Final = 30


def known_answer(record: Record, *, trust_source: bool = False) -> bool:
    """Return whether a record's mask is beyond doubt: an expert's, that of three who agree, or the source's own where that is trusted."""
    if record.mask is None or blocking_problem(record) is not None or record.expression is None or record.expression.is_true is False:
        return False
    agreed = record.review.status == "consensus" and len(record.review.reviewers) >= 3
    given = trust_source and record.mask.engine == "source" and record.review.status in UNDECIDED
    return given or record.review.status == "adjudicated" or agreed


def corrupt(mask: NDArray[np.bool_], name: str) -> NDArray[np.bool_] | None:
    """Return a mask that is wrong: grown, shrunk, moved aside or cut in half, as a hash of `name` decides; None for objects too small."""
    if np.count_nonzero(mask) < SPOILT_FROM_AREA_PX:
        return None
    draw = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:15], 16))
    ways = [_grown, _moved, _halved, _shrunk]
    for index in draw.permutation(len(ways)):
        for strength in (0.25, 0.35, 0.5, 0.7):
            wrong: NDArray[np.bool_] = ways[index](mask, strength, draw)
            if wrong.any() and CORRUPTED_IOU[0] <= mask_iou(wrong, mask) <= CORRUPTED_IOU[1]:
                return wrong
    return None


def _side(mask: NDArray[np.bool_]) -> float:
    return float(np.sqrt(np.count_nonzero(mask)))


def _disc(radius: float) -> NDArray[np.uint8]:
    width = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)).astype(np.uint8)


def _grown(mask: NDArray[np.bool_], strength: float, draw: np.random.Generator) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _disc(strength * _side(mask)))).astype(bool)


def _shrunk(mask: NDArray[np.bool_], strength: float, draw: np.random.Generator) -> NDArray[np.bool_]:
    return np.asarray(cv2.erode(mask.astype(np.uint8), _disc(strength * _side(mask) / 2))).astype(bool)


def _moved(mask: NDArray[np.bool_], strength: float, draw: np.random.Generator) -> NDArray[np.bool_]:
    angle = float(draw.uniform(0, 2 * np.pi))
    reach = strength * _side(mask)
    step = np.array([[1, 0, round(reach * np.cos(angle))], [0, 1, round(reach * np.sin(angle))]], dtype=np.float64)
    size = (mask.shape[1], mask.shape[0])
    return np.asarray(cv2.warpAffine(mask.astype(np.uint8), step, size, flags=cv2.INTER_NEAREST)).astype(bool)


def _halved(mask: NDArray[np.bool_], strength: float, draw: np.random.Generator) -> NDArray[np.bool_]:
    rows, columns = np.nonzero(mask)
    angle = float(draw.uniform(0, 2 * np.pi))
    along = rows * np.sin(angle) + columns * np.cos(angle)
    kept = along <= np.quantile(along, 1 - strength)
    wrong = np.zeros_like(mask)
    wrong[rows[kept], columns[kept]] = True
    return wrong
