"""How wrong a workspace's boxes are, measured against true objects, and boxes that are wrong in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import box_iou
from risbench.core.record import Box

Random = np.random.Generator
# Of so many objects alike in size one lends its error.
_NEAREST: Final = 24
FEWEST: Final = 30


@dataclass(frozen=True)
class Pair:
    """A box as the workspace uses it, its tier, and the upright box of the true object, in pixels of one image."""

    used: Box
    true: Box
    tier: str


class BoxNoise:
    """The errors of real boxes, to be drawn from by tier and by the object's size.

    An object borrows the error of one of the 24 measured objects that are most like it in width and height, in shares of
    those; tiers are drawn as often as the workspace has them.
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        """Take the pairs.

        Raises:
            ValueError: there are fewer than 30 pairs, too few to call it measured.
        """
        kept = list(pairs)
        if len(kept) < FEWEST:
            raise ValueError(f"{len(kept)} boxes can be compared with true objects; measuring their errors needs {FEWEST}")
        self.tiers = Counter(pair.tier for pair in kept)
        self._errors: dict[str, NDArray[np.float64]] = {}
        self._sizes: dict[str, NDArray[np.float64]] = {}
        for tier in sorted(self.tiers):
            used, true = (np.array([getattr(pair, name) for pair in kept if pair.tier == tier]) for name in ("used", "true"))
            sides = np.maximum(true[:, 2:] - true[:, :2], 1.0)
            self._errors[tier] = (used - true) / np.concatenate([sides, sides], axis=1)
            self._sizes[tier] = np.log(sides)
        self.pairs = kept

    def draw(self, random: Random, true: Box) -> Box:
        """Return a box (x_min, y_min, x_max, y_max) around a true one that errs as the workspace's boxes do."""
        names = sorted(self.tiers)
        shares = np.array([self.tiers[name] for name in names], dtype=float)
        tier = names[int(np.searchsorted(np.cumsum(shares) / shares.sum(), random.random(), side="right").clip(0, len(names) - 1))]
        sides = np.maximum(np.array([true[2] - true[0], true[3] - true[1]]), 1.0)
        far = np.abs(self._sizes[tier] - np.log(sides)).sum(axis=1)
        nearest = np.argsort(far, kind="stable")[:_NEAREST]
        error = self._errors[tier][nearest[int(random.integers(len(nearest)))]]
        x_min, y_min, x_max, y_max = (np.array(true) + error * np.concatenate([sides, sides])).tolist()
        return (x_min, y_min, max(x_max, x_min + 1), max(y_max, y_min + 1))

    def summary(self) -> dict[str, Any]:
        """Return what was measured, by tier: boxes, mean IoU with the true box, and the edges' errors in pixels (5, 50, 95 %)."""
        said: dict[str, Any] = {}
        for tier in sorted(self.tiers):
            members = [pair for pair in self.pairs if pair.tier == tier]
            moved = np.array([np.subtract(pair.used, pair.true) for pair in members])
            ious = [box_iou(pair.used, pair.true) for pair in members]
            edges = {
                name: [round(float(value), 1) for value in np.percentile(moved[:, index], (5, 50, 95))]
                for index, name in enumerate(("x_min", "y_min", "x_max", "y_max"))
            }
            said[tier] = {"boxes": len(members), "mean_iou": round(float(np.mean(ious)), 4), "edges_px": edges}
        return said


def distorted(random: Random, box: Box) -> Box:
    """Return a box made grossly wrong: 0.6 to 1.5 times as large, moved by up to a quarter of its sides."""
    x_min, y_min, x_max, y_max = box
    sides = np.array([x_max - x_min, y_max - y_min])
    centre = np.array([x_min + x_max, y_min + y_max]) / 2 + random.uniform(-0.25, 0.25, 2) * sides
    half = sides * np.exp(random.uniform(np.log(0.6), np.log(1.5))) * np.exp(random.normal(0, 0.08, 2)) / 2
    low, high = centre - half, centre + np.maximum(half, 0.5)
    return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
