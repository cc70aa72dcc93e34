"""Mask metrics of the field: IoU, oIoU, mIoU, Pr@X (RMSIN/LAVT protocol) and Boundary IoU (Cheng et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

PRECISION_THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)


def intersection_union(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[int, int]:
    """Return (intersection, union) in pixels of two masks of one shape."""
    a, b = predicted.astype(bool), truth.astype(bool)
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))


def mask_iou(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the IoU of two masks; two empty masks score 0, as in the peers' evaluation code."""
    common, union = intersection_union(predicted, truth)
    return common / union if union else 0.0


def summarize(pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Return oIoU, mIoU and Pr@0.5 ... Pr@0.9 (all in 0-1) of (intersection, union) pairs; Pr@X counts IoU >= X."""
    if not pairs:
        return {"oIoU": 0.0, "mIoU": 0.0, **{f"Pr@{threshold}": 0.0 for threshold in PRECISION_THRESHOLDS}}
    common = np.array([pair[0] for pair in pairs], dtype=np.float64)
    union = np.array([pair[1] for pair in pairs], dtype=np.float64)
    ious = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    shares = {f"Pr@{threshold}": float((ious >= threshold).mean()) for threshold in PRECISION_THRESHOLDS}
    return {"oIoU": float(common.sum() / max(union.sum(), 1.0)), "mIoU": float(ious.mean()), **shares}


def boundary_iou(predicted: NDArray[Any], truth: NDArray[Any], dilation_ratio: float = 0.02) -> float:
    """Return the IoU of the two inner boundary bands, `dilation_ratio` of the image diagonal wide.

    The image border counts as outside, as in the authors' definition; two empty masks score 0.
    """
    a, b = predicted.astype(np.uint8), truth.astype(np.uint8)
    distance = max(1, round(dilation_ratio * float(np.hypot(a.shape[0], a.shape[1]))))
    rows, columns = np.flatnonzero((a | b).any(axis=1)), np.flatnonzero((a | b).any(axis=0))
    if rows.size == 0:
        return 0.0
    # Erosion cannot see past the band, so the crop around both masks gives the same result, sooner.
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return mask_iou(_inner_band(a[window], distance), _inner_band(b[window], distance))


def _inner_band(mask: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    band: NDArray[np.bool_] = (mask > 0) & (eroded == 0)
    return band


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[str],
    *,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean, drawing whole groups.

    Rows of one image share its light, sensor and annotator, so drawing rows would make the interval too narrow.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0:
        return (0.0, 0.0)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(index, weights=scores), np.bincount(index).astype(np.float64)
    draws = np.random.default_rng(seed).integers(0, sums.size, size=(rounds, sums.size))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return (float(low), float(high))


def score_intervals(
    pairs: Sequence[tuple[int, int]], groups: Sequence[str], *, level: float = 0.95, rounds: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the percentile bootstrap interval of each of `summarize`'s figures, drawing whole groups (such as images)."""
    if not pairs:
        return {}
    common, union = np.array([pair[0] for pair in pairs], dtype=np.float64), np.array([pair[1] for pair in pairs], dtype=np.float64)
    ious = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    columns = [common, union, ious, *((ious >= threshold).astype(np.float64) for threshold in PRECISION_THRESHOLDS), np.ones_like(ious)]
    sums = np.stack([np.bincount(index, weights=column) for column in columns], axis=1)
    random = np.random.default_rng(seed)
    drawn = np.stack([sums[random.integers(0, len(sums), len(sums))].sum(axis=0) for _ in range(rounds)])
    values = {"oIoU": drawn[:, 0] / np.maximum(drawn[:, 1], 1.0), "mIoU": drawn[:, 2] / drawn[:, -1]}
    values |= {f"Pr@{threshold}": drawn[:, 3 + place] / drawn[:, -1] for place, threshold in enumerate(PRECISION_THRESHOLDS)}
    tails = ((1 - level) / 2, (1 + level) / 2)
    return {name: (float(np.quantile(found, tails[0])), float(np.quantile(found, tails[1]))) for name, found in values.items()}


def paired_interval(
    differences: NDArray[np.float64], groups: Sequence[str], *, level: float = 0.95, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of paired differences (runs, samples).

    Runs (such as seeds) and groups of samples (such as images) are both drawn with replacement: what another seed would have given
    counts as much as what other images would have.
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.stack([np.bincount(index, weights=row) for row in differences])
    sizes = np.bincount(index).astype(np.float64)
    random = np.random.default_rng(seed)
    means = []
    for _ in range(rounds):
        runs, drawn = random.integers(0, len(sums), len(sums)), random.integers(0, len(sizes), len(sizes))
        means.append(sums[runs][:, drawn].sum() / (len(runs) * sizes[drawn].sum()))
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson interval of a share (95 % by default); (0, 1) of nothing."""
    if count == 0:
        return 0.0, 1.0
    share, square = hits / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    reach = z * np.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))
