"""One mask out of several: the pixels that most marked, and STAPLE, which weighs each annotator by what the others confirm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_START: Final = 0.99999
_STEPS: Final = 200
_STILL: Final = 1e-9
# No one is believed to be always right or always wrong: else one annotator's word decides a pixel whatever all others say.
_SURE: Final = 1e-6


@dataclass(frozen=True)
class Staple:
    """`probability` (height, width) that a pixel is of the object, and every annotator's sensitivity and specificity, in their order."""

    probability: NDArray[np.float64]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Pixels that are of the object more likely than not."""
        return self.probability > 0.5


def majority(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return the pixels (height, width) that more than half of the masks hold."""
    return np.asarray(2 * np.sum(np.stack(masks), axis=0, dtype=np.int64) > len(masks))


def staple(masks: Sequence[NDArray[np.bool_]]) -> Staple:
    """Return the estimate of the true mask and of everyone's performance (Warfield, Zou and Wells 2004, eqs. 20-22).

    It looks at the box around all masks with a margin of its own size: over a whole image the ground is so much that every
    specificity is 1. Pixels that the same annotators marked are one case, so the cost does not grow with the image. The same masks in
    another order give the same bits.

    Raises:
        ValueError: there is no mask.
    """
    stack = np.stack(masks)
    order = sorted(range(len(masks)), key=lambda index: masks[index].tobytes())
    where = _window(np.asarray(stack.any(axis=0)))
    cases, index, pixels = np.unique(
        stack[order][:, where[0], where[1]].reshape(len(masks), -1).T, axis=0, return_inverse=True, return_counts=True
    )
    likely, sensitivity, specificity = _estimate(cases.astype(bool), pixels.astype(np.float64))
    probability = np.zeros(stack.shape[1:], dtype=np.float64)
    inside = probability[where]
    inside[...] = likely[index.reshape(-1)].reshape(inside.shape)
    back = np.argsort(order)
    return Staple(probability, tuple(sensitivity[back].tolist()), tuple(specificity[back].tolist()))


def _window(anywhere: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the box around all that is marked, half its size larger on every side; the whole plane where nothing is."""
    if not anywhere.any():
        return slice(None), slice(None)
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(anywhere.any(axis=axis))
        low, high = int(places[0]), int(places[-1]) + 1
        margin = max(1, (high - low) // 2)
        spans.append(slice(max(0, low - margin), high + margin))
    return spans[0], spans[1]


def _estimate(
    cases: NDArray[np.bool_], pixels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability of each case (who marked it), and sensitivity and specificity by annotator, by expectation maximisation."""
    annotators = cases.shape[1]
    prior = float((cases.mean(axis=1) * pixels).sum() / pixels.sum())
    sensitivity, specificity = np.full(annotators, _START), np.full(annotators, _START)
    likely = np.zeros(len(cases))
    if not 0 < prior < 1:
        return np.full(len(cases), prior), sensitivity, specificity
    for _ in range(_STEPS):
        ours = np.log(prior) + np.where(cases, np.log(sensitivity), np.log1p(-sensitivity)).sum(axis=1)
        ground = np.log1p(-prior) + np.where(cases, np.log1p(-specificity), np.log(specificity)).sum(axis=1)
        before, likely = likely, 1 / (1 + np.exp(np.clip(ground - ours, -700, 700)))
        weight, rest = likely * pixels, (1 - likely) * pixels
        sensitivity = ((weight[:, None] * cases).sum(axis=0) / max(weight.sum(), _SURE)).clip(_SURE, 1 - _SURE)
        specificity = ((rest[:, None] * ~cases).sum(axis=0) / max(rest.sum(), _SURE)).clip(_SURE, 1 - _SURE)
        if np.abs(likely - before).max() < _STILL:
            break
    return likely, sensitivity, specificity
