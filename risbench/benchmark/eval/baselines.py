"""What a model must beat: guesses that read no sentence, or are told what they may not know, and boxes given to SAM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from risbench.benchmark.data.cache import Cache
from risbench.benchmark.data.release import image_of
from risbench.benchmark.eval.predict import ADVICE, Predictor
from risbench.benchmark.eval.scoring import Prediction, mask_at
from risbench.core.geometry import mask_bounds
from risbench.core.record import Box
from risbench.formats.source.tree import SourceTree
from risbench.learn.device import memory_for
from risbench.sam.open import open_model, predictor_on
from risbench.sam.predictor import SamPrompt


class Empty:
    """Nothing, always."""

    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return empty masks."""
        return [np.zeros(cache.samples[number].size, dtype=bool) for number in numbers]


class Full:
    """The whole image, always."""

    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return full masks."""
        return [np.ones(cache.samples[number].size, dtype=bool) for number in numbers]


class Centre:
    """A disc in the middle, as large as the training masks' mean area."""

    def __init__(self, cache: Cache) -> None:
        """Learn the mean area of the training masks."""
        samples = [cache.samples[number] for number in cache.of("train")] or cache.samples
        self._share = float(np.mean([np.count_nonzero(sample.mask) / (sample.size[0] * sample.size[1]) for sample in samples]))

    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return the disc for every sample."""
        return [self._disc(*cache.samples[number].size) for number in numbers]

    def _disc(self, height: int, width: int) -> NDArray[np.bool_]:
        y, x = np.ogrid[:height, :width]
        distance = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
        found: NDArray[np.bool_] = distance <= self._share * height * width / np.pi
        return found


class Mean:
    """Where training masks lie more often than elsewhere: their mean, cut where it has their mean area."""

    def __init__(self, cache: Cache) -> None:
        """Learn the mean of the training masks at the cache's side."""
        numbers = cache.of("train") if len(cache.of("train")) else np.arange(len(cache.samples))
        total = np.zeros((cache.side, cache.side))
        for start in range(0, len(numbers), 256):
            total += cache.mask(numbers[start : start + 256]).sum(axis=0)
        share = total.sum() / max(1, len(numbers)) / total.size
        self._mask: NDArray[np.bool_] = total > np.quantile(total, max(0.0, 1 - share))

    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return the same mask for every sample."""
        logits = torch.from_numpy(np.where(self._mask, 1.0, -1.0).astype(np.float32))
        return [logits for _ in numbers]


class Largest:
    """The largest object of the sentence's class among those that sentences of the image are about; the class is told by an oracle."""

    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return the largest mask of each sample's class."""
        here = np.flatnonzero(cache.image_of == cache.image_of[numbers[0]])
        largest: dict[str, tuple[int, NDArray[np.bool_]]] = {}
        for number in here.tolist():
            sample = cache.samples[number]
            mask = sample.mask
            area = int(np.count_nonzero(mask))
            if area > largest.get(sample.category, (0, mask))[0]:
                largest[sample.category] = (area, mask)
        return [largest[cache.samples[number].category][1] for number in numbers]


class BoxToMask:
    """SAM given a box: the record's own (an upper bound for what boxes are worth), or the extent of another model's mask."""

    def __init__(self, release: Path, weights: Path | None, device: str, boxes: Predictor | None = None) -> None:
        """Open the weights, or the built-in model; `boxes` is asked for masks whose extent is the box, else records have it.

        Raises:
            InputError: the release or the weights cannot be read.
        """
        self._tree = SourceTree.open(release)
        with memory_for(ADVICE):
            model, self.weights_sha256 = open_model(weights, device)
            self._sam = predictor_on(model)
        self._boxes = boxes

    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return masks at the image's own size; where the other model found nothing there is no box, and the mask is empty."""
        samples = [cache.samples[number] for number in numbers]
        boxes: list[Box | None] = [sample.box for sample in samples]
        if self._boxes is not None:
            found = self._boxes.predict(cache, numbers)
            boxes = [mask_bounds(mask_at(one, sample.size)) for one, sample in zip(found, samples, strict=True)]
        made: list[Prediction] = [np.zeros(sample.size, dtype=bool) for sample in samples]
        asked = [(place, box) for place, box in enumerate(boxes) if box is not None]
        if asked:
            pixels = image_of(self._tree, samples[0].image)
            with memory_for(ADVICE):
                self._sam.load(pixels)
                logits = self._sam.predict([SamPrompt(box, None) for _, box in asked]).logits
            for (place, _), values in zip(asked, logits, strict=True):
                made[place] = np.asarray(values) > 0
        return made


def trivial(name: str, cache: Cache) -> Predictor:
    """Return a trivial baseline by its name, one of TRIVIAL."""
    if name == "empty":
        return Empty()
    if name == "full":
        return Full()
    if name == "largest":
        return Largest()
    return Centre(cache) if name == "centre" else Mean(cache)
