"""Training examples of the built-in SAM: crops of generated scenes with boxes as imprecise as those of every tier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from risbench.core.geometry import box_iou, mask_bounds
from risbench.core.record import Box
from risbench.sam.magnify import frame_of, prompt_mask
from risbench.scenes.world import Placed, Scene, draw_scene

Random = np.random.Generator
CROPS_PER_SCENE: Final = 8
_WORST_IOU: Final = 0.4
_CLUTTER_SHARE: Final = 0.2
_ORIENTED_SHARE: Final = 0.25
# Every eighth batch carries points; the others none at all, as refinement asks.
_POINTS_EVERY: Final = 8


@dataclass(frozen=True)
class Batch:
    """Crops (B, 3, S, S) uint8, boxes (B, 4), mask prompts (B, 1, S/2, S/2), points (B, 2, 2) with labels (B, 2), cover (B, S/2, S/2)."""

    crops: Tensor
    boxes: Tensor
    prompts: Tensor
    points: Tensor
    labels: Tensor
    cover: Tensor

    def __len__(self) -> int:
        return len(self.crops)


def loosened(random: Random, box: Box) -> Box:
    """Return a box with the errors that boxes of some tier have: none, a hand's, or those of coarse tokens and moved boxes."""
    tier = random.random()
    if tier < 0.12:
        return box
    spread, moved, grown = (0.03, 0.02, 0.03) if tier < 0.4 else (0.06, 0.08, 0.08)
    size = np.array([box[2] - box[0], box[3] - box[1]])
    for attempt in range(4):
        weak = 0.6**attempt
        shift = random.normal(-0.5 * moved, moved, 2) * weak * (0.5 * size + 0.5 * size.max())
        scale = random.normal(0, grown, 2) * weak * size / 2
        edges = random.normal(0, spread, (2, 2)) * weak * size
        low, high = np.array(box[:2]) + shift - scale + edges[0], np.array(box[2:]) + shift + scale + edges[1]
        found = (float(low[0]), float(low[1]), float(max(high[0], low[0] + 2)), float(max(high[1], low[1] + 2)))
        if box_iou(found, box) >= _WORST_IOU:
            return found
    return box


class CropExamples(IterableDataset[Batch]):
    """Batch number k is a function of the seed and k alone: a run can stop anywhere and go on."""

    def __init__(self, seed: int, start: int, stop: int, batch: int, side: int) -> None:
        self.seed, self.start, self.stop, self.batch, self.side = seed, start, stop, batch, side

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(self.start + first, self.stop, step):
            yield self.make(index)

    def make(self, index: int) -> Batch:
        """Return batch number `index`."""
        random = np.random.default_rng([self.seed, index, 7])
        examples: list[tuple[NDArray[np.generic], ...]] = []
        scenes = max(1, self.batch // CROPS_PER_SCENE)
        number = 0
        while number < scenes or not examples:  # a scene can be empty; a batch cannot
            scene = draw_scene(self.seed, index * scenes + number)
            number += 1
            wanted = self.batch * min(number, scenes) // scenes - len(examples)
            examples += self._of_scene(random, scene, wanted, index % _POINTS_EVERY == 0)
        while len(examples) < self.batch:
            examples.append(examples[int(random.integers(len(examples)))])
        return batch_of(examples)

    def _of_scene(self, random: Random, scene: Scene, wanted: int, pointed: bool) -> list[tuple[NDArray[np.generic], ...]]:
        made: list[tuple[NDArray[np.generic], ...]] = []
        order = random.permutation(len(scene.objects)).tolist()
        for turn in range(wanted if scene.objects else 0):
            item = scene.objects[order[turn % len(order)]]
            if scene.clutter and random.random() < _CLUTTER_SHARE:
                item = scene.clutter[int(random.integers(len(scene.clutter)))]
            if item.mask.sum() >= 16:
                made.append(self._example(random, scene.pixels, item, pointed))
        return made

    def _example(self, random: Random, pixels: NDArray[np.uint8], item: Placed, pointed: bool) -> tuple[NDArray[np.generic], ...]:
        side = self.side
        bounds = mask_bounds(item.mask)
        assert bounds is not None, "an example's mask has pixels"
        box = loosened(random, bounds)
        polygon = np.array([(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])])
        if random.random() < _ORIENTED_SHARE:
            # the oriented box errs as its upright one does: the same map of the corners
            size, loose = np.array(bounds[2:]) - bounds[:2], np.array(box[2:]) - box[:2]
            polygon = (item.corners - bounds[:2]) / size * loose + box[:2]
        return crop_example(random, pixels, item.mask, box, polygon, side, pointed)


def crop_example(
    random: Random,
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    box: Box,
    polygon: NDArray[np.float64],
    side: int,
    pointed: bool,
) -> tuple[NDArray[np.generic], ...]:
    """Return a magnified crop, in another light and turned at random, with its prompts and the share of its pixels that `mask` covers.

    In the order of `Batch`: crop (3, side, side), box (4,), mask prompt and cover (side / 2, side / 2), points (2, 2), labels (2,).
    """
    half = side // 2
    frame = frame_of(box, side)
    crop = frame.cut(pixels, side)
    cover = frame.cut_mask(mask, half, side)
    corners = frame.to_crop(polygon)
    points, labels = _points(random, cover, pointed)
    gain = random.normal(1, 0.08, 3) * random.normal(1, 0.08)
    tinted = np.clip(crop.astype(np.float32) * gain + random.normal(0, 8), 0, 255).astype(np.uint8)
    # the eight ways to lay a square
    turns, flip = int(random.integers(4)), bool(random.random() < 0.5)

    def lay(picture: NDArray[np.generic]) -> NDArray[np.generic]:
        laid = np.rot90(picture, turns)
        return np.ascontiguousarray(laid[:, ::-1] if flip else laid)

    def lay_points(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        for _ in range(turns):
            xy = np.stack([xy[:, 1], side - xy[:, 0]], axis=1)
        return np.stack([side - xy[:, 0], xy[:, 1]], axis=1) if flip else xy

    corners = lay_points(corners)
    upright = lay_points(frame.to_crop(np.array([box[:2], box[2:]])))
    inner = np.concatenate([upright.min(axis=0), upright.max(axis=0)]).astype(np.float32)
    prompt = prompt_mask(corners, half, side)
    crop_chw = np.ascontiguousarray(lay(tinted).transpose(2, 0, 1))
    return crop_chw, inner, prompt, lay_points(points).astype(np.float32), labels, lay(cover)


def batch_of(examples: list[tuple[NDArray[np.generic], ...]]) -> Batch:
    """Return examples as one batch."""
    crops, boxes, prompts, points, labels, cover = (torch.from_numpy(np.stack(part)) for part in zip(*examples, strict=True))
    return Batch(crops, boxes, prompts[:, None], points, labels, cover)


def _points(random: Random, cover: NDArray[np.float32], pointed: bool) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return two points (2, 2) and labels (2,): where `pointed`, one on the object and one beside it, else padding."""
    places, labels = np.zeros((2, 2)), np.full(2, -1, np.float32)
    if pointed:
        for slot, (where, label) in enumerate(((cover > 0.6, 1), (cover < 0.2, 0))):
            rows, columns = np.nonzero(where)
            if rows.size and random.random() < 0.7:
                chosen = int(random.integers(rows.size))
                places[slot] = (columns[chosen] * 2 + 1, rows[chosen] * 2 + 1)
                labels[slot] = label
    return places, labels
