"""Batches of samples from the cache: the same for the same seed, whatever was interrupted, one batch read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from risbench.benchmark.data.cache import Cache

# ImageNet's mean and deviation of RGB in 0-1, which the backbones were trained with.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Batch:
    """Images (U, 3, side, side) uint8 in channels-last order, tokens (B, L), valid (B, L), masks (B, side, side) of 0 and 1.

    `image_of` (B,) says which image a sentence is of; None where every sentence brings its own, U = B.
    """

    images: Tensor
    tokens: Tensor
    valid: Tensor
    masks: Tensor
    image_of: Tensor | None = None

    def to(self, device: str) -> Batch:
        """Return it on a device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Return it in memory that a GPU fetches from by itself."""
        return self._each(lambda value: value.pin_memory())

    def at(self, side: int) -> Batch:
        """Return it at another side: images by antialiased bilinear interpolation, masks by nearest neighbours, as in the cache."""
        images = functional.interpolate(self.images, (side, side), mode="bilinear", antialias=True)
        masks = functional.interpolate(self.masks[:, None], (side, side), mode="nearest-exact")[:, 0]
        return Batch(images, self.tokens, self.valid, masks, self.image_of)

    def first(self, count: int) -> Batch:
        """Return its first `count` samples."""
        if self.image_of is None:
            return Batch(self.images[:count], self.tokens[:count], self.valid[:count], self.masks[:count])
        used, image_of = torch.unique(self.image_of[:count], return_inverse=True)
        return Batch(self.images[used], self.tokens[:count], self.valid[:count], self.masks[:count], image_of)

    def _each(self, made: Callable[[Tensor], Tensor]) -> Batch:
        image_of = None if self.image_of is None else made(self.image_of)
        return Batch(made(self.images), made(self.tokens), made(self.valid), made(self.masks), image_of)


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
        per_image: int = 1,
        coarse_side: int = 0,
        coarse_steps: int = 0,
        rank: int = 0,
        ranks: int = 1,
        pin: bool = False,
    ) -> None:
        """Make them of the samples `numbers`, whose token ids are the rows of `tokens` and `valid`; `batch` is that of all ranks.

        Up to `per_image` sentences of an image come behind one another, and share it where they share a batch. In the
        first `coarse_steps` steps images and masks have `coarse_side` instead of the cache's.
        """
        self.cache, self.numbers, self.tokens, self.valid = cache, numbers, tokens, valid
        self.batch, self.seed, self.per_image, self.rank, self.ranks, self.pin = batch, seed, per_image, rank, ranks, pin
        self.coarse_side, self.coarse_steps = coarse_side, coarse_steps

    @property
    def per_epoch(self) -> int:
        """Steps an epoch takes; what is left over of the samples waits for the next one's order."""
        return max(1, len(self.numbers) // self.batch)

    def chosen(self, step: int) -> NDArray[np.int64]:
        """Return which samples (rows of `tokens`) a step learns from, all ranks together."""
        epoch, place = divmod(step, self.per_epoch)
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.numbers))
        if self.per_image > 1:
            order = _gathered(order, self.cache.image_of[self.numbers[order]], self.per_image, random)
        return np.resize(order, max(len(order), self.batch))[place * self.batch : (place + 1) * self.batch]

    def read(self, step: int) -> Batch:
        """Return this rank's share of a step's batch."""
        rows = np.array_split(self.chosen(step), self.ranks)[self.rank]
        numbers = self.numbers[rows]
        images, image_of = self.cache.image_of[numbers], None
        if self.per_image > 1:
            images, image_of = np.unique(images, return_inverse=True)
        made = Batch(
            torch.from_numpy(np.ascontiguousarray(self.cache.images[images])).permute(0, 3, 1, 2),
            torch.from_numpy(self.tokens[rows]),
            torch.from_numpy(self.valid[rows]),
            torch.from_numpy(self.cache.mask(numbers)),
            None if image_of is None else torch.from_numpy(image_of),
        )
        if step < self.coarse_steps:
            made = made.at(self.coarse_side)
        return made.pinned() if self.pin else made

    def steps(self, start: int, end: int) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) from `start` to before `end`; the next one is read while the caller learns from this one."""
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self.read, start) if start < end else None
            for step in range(start, end):
                assert ahead is not None, "a step before asked for it"
                batch = ahead.result()
                ahead = reader.submit(self.read, step + 1) if step + 1 < end else None
                yield step, batch


def _gathered(order: NDArray[np.int64], images: NDArray[np.int64], per_image: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return an order (N,) of groups of up to `per_image` samples of an image, at random; `images` (N,) are those of `order`."""
    by_image = np.argsort(images, kind="stable")
    together = images[by_image]
    firsts = np.flatnonzero(np.r_[True, together[1:] != together[:-1]])
    within = np.arange(len(order)) - np.repeat(firsts, np.diff(np.r_[firsts, len(order)]))
    group = np.cumsum(within % per_image == 0) - 1
    place = random.permutation(group[-1] + 1)[group]
    result: NDArray[np.int64] = order[by_image[np.lexsort((within, place))]]
    return result
