"""A trained model asked about the samples of an image, all its sentences together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from risbench.benchmark.data.batches import normalised
from risbench.benchmark.data.cache import Cache
from risbench.benchmark.data.words import Words
from risbench.benchmark.eval.scoring import Prediction, Scored, score, stacked
from risbench.benchmark.eval.scoring import Protocol as ScoringProtocol
from risbench.benchmark.models.registry import referring
from risbench.core.progress import Progress
from risbench.learn.device import dtype_of, memory_for

# How many sentences are asked at once. No option: products of matrices of other shapes round otherwise, and masks' rims would hang on it.
_SENTENCES: Final = 16
ADVICE: Final = "free some, and give the same command again"


class Predictor(Protocol):
    """Whatever makes masks of an image and sentences."""

    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return a prediction for each of some samples, all of one image."""


class Trained:
    """A model of a run."""

    def __init__(self, model: nn.Module, words: Words, device: str, precision: str) -> None:
        """Ask `model`, in evaluation mode, on `device`."""
        with memory_for(ADVICE):
            self.model, self.words, self.device = model.to(device).eval(), words, device
        self.dtype = dtype_of(precision)

    @torch.inference_mode()
    def predict(self, cache: Cache, numbers: Sequence[int]) -> list[Prediction]:
        """Return logits at a quarter of the model's side."""
        model = referring(self.model)
        row = np.array(cache.images[cache.image_of[numbers[0]]])
        image = torch.from_numpy(row)[None].permute(0, 3, 1, 2).to(self.device)
        tokens, valid, _ = self.words.encode([cache.samples[number].sentence for number in numbers])
        made: list[Prediction] = []
        with memory_for(ADVICE), torch.autocast(self.device.partition(":")[0], self.dtype, enabled=self.dtype != torch.float32):
            maps = model.encode(normalised(image))
            for start in range(0, len(numbers), _SENTENCES):
                part = slice(start, start + _SENTENCES)
                ids, mask = torch.from_numpy(tokens[part]).to(self.device), torch.from_numpy(valid[part]).to(self.device)
                logits = model.decode([features.expand(len(ids), -1, -1, -1) for features in maps], ids, mask)
                made += stacked(logits, image.shape[2], image.shape[3])
        return made


def scored(
    predictor: Predictor,
    cache: Cache,
    numbers: NDArray[np.int64],
    protocol: ScoringProtocol,
    *,
    share: tuple[int, int] = (0, 1),
    label: str = "evaluate",
    quiet: bool = False,
) -> list[Scored]:
    """Return the counts of samples, sorted by id; `share` (i, n) asks only about every n-th image from the i-th on."""
    every: dict[int, list[int]] = {}
    for number in range(len(cache.samples)):
        every.setdefault(int(cache.image_of[number]), []).append(number)
    wanted: dict[int, list[int]] = {}
    for number in numbers.tolist():
        wanted.setdefault(int(cache.image_of[number]), []).append(number)
    images = sorted(wanted)[share[0] :: share[1]]
    made: list[Scored] = []
    with Progress(label, len(images), quiet=quiet) as bar:
        for image in images:
            asked = wanted[image]
            samples, others = [cache.samples[number] for number in asked], [cache.samples[number] for number in every[image]]
            made += score(samples, predictor.predict(cache, asked), others, protocol)
            bar.advance(1)
    return sorted(made, key=lambda one: one.id)
