"""Where a training's batches come from: magnified crops for a compact SAM, embeddings on disk for a SAM of whole images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from risbench.adapt.adapter_data import Boxes, Images, TrueExamples, TrueObject, digests_of
from risbench.adapt.builtin_data import Batch
from risbench.adapt.train_adapter import AdapterRecipe
from risbench.adapt.whole_data import Embeddings, WholeBatch, WholeExamples
from risbench.learn.device import ranks

_VALIDATION_MOST: Final = 384
_VALIDATION_SEED: Final = 1_000_003


class CropSource:
    """Magnified crops of a workspace's objects, cut by a process of their own."""

    workers = 1

    def __init__(self, root: Path, learn: Sequence[TrueObject], check: Sequence[TrueObject], boxes: Boxes, side: int) -> None:
        self._root, self._learn, self._check, self._boxes, self._side = root, learn, check, boxes, side
        self.objects = len(learn)

    def training(self, recipe: AdapterRecipe, start: int) -> TrueExamples:
        """Return this process's batches from number `start` on."""
        return _training(self._root, self._learn, self._boxes, recipe, start, self._side)

    def validation(self, recipe: AdapterRecipe) -> list[Batch]:
        """Return the same crops for every look: up to 384 objects, each with one box."""
        examples, count = _validation(self._root, self._check, self._boxes, recipe, 32, self._side)
        images = Images(self._root, digests_of(self._check))
        return [examples.make(index, images) for index in range(count)]


class WholeSource:
    """Objects of whole images whose embeddings lie on disk.

    They are read in the training's own process: a batch of 32 takes 117 MB, and containers share 64 MB among processes.
    """

    workers = 0

    def __init__(
        self, root: Path, learn: Sequence[TrueObject], check: Sequence[TrueObject], boxes: Boxes, side: int, embeddings: Embeddings
    ) -> None:
        self._root, self._learn, self._check, self._boxes, self._side = root, learn, check, boxes, side
        self._embeddings = embeddings
        self.objects = len(learn)

    def training(self, recipe: AdapterRecipe, start: int) -> WholeExamples:
        """Return this process's batches from number `start` on."""
        drawn = _training(self._root, self._learn, self._boxes, recipe, start, self._side)
        return WholeExamples(drawn, self._embeddings, self._side, recipe.prompts)

    def validation(self, recipe: AdapterRecipe) -> WholeLooks:
        """Return the same objects for every look, prompted with boxes, read from disk each time."""
        drawn, count = _validation(self._root, self._check, self._boxes, recipe, 8, self._side)
        return WholeLooks(WholeExamples(drawn, self._embeddings, self._side, "box"), count)


class WholeLooks:
    """A number of batches that are made anew whenever they are iterated over."""

    def __init__(self, examples: WholeExamples, count: int) -> None:
        self._examples, self._count = examples, count

    def __iter__(self) -> Iterator[WholeBatch]:
        return (self._examples.make(index) for index in range(self._count))


def _training(root: Path, learn: Sequence[TrueObject], boxes: Boxes, recipe: AdapterRecipe, start: int, side: int) -> TrueExamples:
    examples = TrueExamples(root, learn, boxes, recipe.seed, start, recipe.steps, recipe.batch, side)
    examples.rank, examples.ranks = ranks()
    return examples


def _validation(
    root: Path, check: Sequence[TrueObject], boxes: Boxes, recipe: AdapterRecipe, most: int, side: int
) -> tuple[TrueExamples, int]:
    """Return what draws the objects to look at, in batches of at most `most`, and how many batches there are."""
    chosen = list(check)
    if len(chosen) > _VALIDATION_MOST:
        chosen = [chosen[index] for index in np.random.default_rng(recipe.seed).permutation(len(chosen))[:_VALIDATION_MOST]]
    # a divisor, so that every object is looked at exactly once
    size = max(count for count in range(1, min(most, len(chosen)) + 1) if len(chosen) % count == 0)
    count = len(chosen) // size
    return TrueExamples(root, chosen, boxes, recipe.seed + _VALIDATION_SEED, 0, count, size, side), count
