"""How much people agree: on masks (IoU, Boundary IoU, alpha over pixels) and on verdicts (alpha, kappa)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.metrics import boundary_iou, mask_iou

# Two careful people who draw the same object differ by about a pixel at its edge; nobody need agree better than the cap.
EDGE_PX: Final = 1.0
_LOWEST, _HIGHEST = 0.5, 0.85


@dataclass(frozen=True)
class MaskAgreement:
    """Agreement of several masks of one object: means over pairs, and Krippendorff's alpha over the pixels of their union's box."""

    iou: float
    boundary_iou: float
    alpha: float


def mask_agreement(masks: Sequence[NDArray[np.bool_]]) -> MaskAgreement:
    """Return the agreement of at least two masks (height, width); empty ones agree with each other.

    Raises:
        ValueError: there are fewer than two masks, or they differ in shape.
    """
    if len(masks) < 2 or len({mask.shape for mask in masks}) != 1:
        raise ValueError("agreement wants two or more masks of one shape")
    pairs = list(combinations(masks, 2))
    both_empty = [not (a.any() or b.any()) for a, b in pairs]
    ious = [1.0 if empty else mask_iou(a, b) for (a, b), empty in zip(pairs, both_empty, strict=True)]
    edges = [1.0 if empty else boundary_iou(a, b) for (a, b), empty in zip(pairs, both_empty, strict=True)]
    # sums of sorted numbers, so that the order of annotators cannot change the last digit
    return MaskAgreement(float(np.mean(sorted(ious))), float(np.mean(sorted(edges))), pixel_alpha(masks))


def pixel_alpha(masks: Sequence[NDArray[np.bool_]]) -> float:
    """Return Krippendorff's alpha over the pixels of the box around all masks; 1.0 where nobody marked anything."""
    stack = np.stack(masks)
    anywhere = np.asarray(stack.any(axis=0))
    if not anywhere.any():
        return 1.0
    rows, columns = np.flatnonzero(anywhere.any(axis=1)), np.flatnonzero(anywhere.any(axis=0))
    marked = stack[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].sum(axis=0).ravel()
    return nominal_alpha(np.stack([marked, len(masks) - marked], axis=1))


def nominal_alpha(counts: NDArray[Any]) -> float:
    """Return Krippendorff's alpha for categories without order (Krippendorff, Content Analysis, ch. 12).

    `counts` (units, categories) says how many gave a unit each category; units with fewer than two are left out. 1.0 where only one
    category was ever given, as nothing then contradicts.
    """
    ratings = np.asarray(counts, dtype=np.float64)
    per_unit = ratings.sum(axis=1)
    ratings, per_unit = ratings[per_unit >= 2], per_unit[per_unit >= 2]
    total = float(per_unit.sum())
    expected = total**2 - float((ratings.sum(axis=0) ** 2).sum())
    if total == 0 or expected == 0:
        return 1.0
    observed = float(((per_unit**2 - (ratings**2).sum(axis=1)) / (per_unit - 1)).sum())
    return 1.0 - (total - 1) * observed / expected


def verdict_alpha(votes: Sequence[Mapping[str, int]]) -> float:
    """Return Krippendorff's alpha of verdicts; each item of `votes` says how often each was given."""
    names = sorted({name for vote in votes for name in vote})
    return nominal_alpha(np.array([[vote.get(name, 0) for name in names] for vote in votes]).reshape(len(votes), len(names)))


def kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Return Cohen's kappa of two people's verdicts on the same items; None where chance alone explains all or there is no item.

    Raises:
        ValueError: the two do not have the same number of verdicts.
    """
    same = sum(a == b for a, b in zip(first, second, strict=True))
    count = len(first)
    mine, theirs = Counter(first), Counter(second)
    by_chance = sum(mine[name] * theirs[name] for name in mine)
    if count**2 == by_chance:
        return None
    return (same * count - by_chance) / (count**2 - by_chance)


def agreement_wanted(area: float) -> float:
    """Return the mean IoU below which masks of an object of this many pixels are put before an expert.

    It is the IoU of a square with itself drawn a pixel smaller all around, between .5 and .85.
    """
    side = max(area, 1.0) ** 0.5
    return float(np.clip((max(side - 2 * EDGE_PX, 0.0) / side) ** 2, _LOWEST, _HIGHEST))
