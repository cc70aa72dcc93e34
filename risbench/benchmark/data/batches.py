"""Batches of samples from the cache: the same for the same seed, whatever was interrupted, one batch read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from risbench.benchmark.data.cache import Cache

# ImageNet's mean and deviation of RGB in 0-1, which the backbones were trained with.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, side, side) uint8 in channels-last order, tokens (B, L), valid (B, L), masks (B, side, side) of 0 and 1."""

    images: Tensor
    tokens: Tensor
    valid: Tensor
    masks: Tensor

    def to(self, device: str) -> Batch:
        """Return it on a device."""
        return Batch(*(value.to(device, non_blocking=True) for value in vars(self).values()))


def normalised(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) of 0-255 as the backbones want them; on the device, where it costs nothing."""
    mean = torch.tensor(_MEAN, device=images.device).view(1, 3, 1, 1) * 255
    deviation = torch.tensor(_DEVIATION, device=images.device).view(1, 3, 1, 1) * 255
    return (images.float() - mean) / deviation


class Batches:
    """The training batches of a run: every epoch the samples in a new order, of which each of `ranks` processes takes its share."""

    def __init__(
        self,
        cache: Cache,
        numbers: NDArray[np.int64],
        tokens: NDArray[np.int64],
        valid: NDArray[np.bool_],
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        pin: bool = False,
    ) -> None:
        """Make them of the samples `numbers`, whose token ids are the rows of `tokens` and `valid`; `batch` is that of all ranks."""
        self.cache, self.numbers, self.tokens, self.valid = cache, numbers, tokens, valid
        self.batch, self.seed, self.rank, self.ranks, self.pin = batch, seed, rank, ranks, pin

    @property
    def per_epoch(self) -> int:
        """Steps an epoch takes; what is left over of the samples waits for the next one's order."""
        return max(1, len(self.numbers) // self.batch)

    def chosen(self, step: int) -> NDArray[np.int64]:
        """Return which samples (rows of `tokens`) a step learns from, all ranks together."""
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.numbers))
        return np.resize(order, max(len(order), self.batch))[place * self.batch : (place + 1) * self.batch]

    def read(self, step: int) -> Batch:
        """Return this rank's share of a step's batch."""
        rows = self.chosen(step)[self.rank :: self.ranks]
        numbers = self.numbers[rows]
        made = Batch(
            torch.from_numpy(np.ascontiguousarray(self.cache.images[self.cache.image_of[numbers]])).permute(0, 3, 1, 2),
            torch.from_numpy(self.tokens[rows]),
            torch.from_numpy(self.valid[rows]),
            torch.from_numpy(self.cache.mask(numbers)),
        )
        return Batch(*(value.pin_memory() for value in vars(made).values())) if self.pin else made

    def steps(self, start: int, end: int) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) from `start` to before `end`; the next one is read while the caller learns from this one."""
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self.read, start) if start < end else None
            for step in range(start, end):
                assert ahead is not None, "a step before asked for it"
                batch = ahead.result()
                ahead = reader.submit(self.read, step + 1) if step + 1 < end else None
                yield step, batch
