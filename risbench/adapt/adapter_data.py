"""What an adapter learns from: true masks of a workspace's images, and boxes as wrong as the workspace's own."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from risbench.adapt.box_noise import BoxNoise, Pair, distorted
from risbench.adapt.builtin_data import Batch, batch_of, crop_example
from risbench.core.errors import InputError, InvalidRowError
from risbench.core.geometry import box_iou, invert_affine, map_box, mask_bounds
from risbench.core.images import decoded_image, image_bytes
from risbench.core.masks import decode_rle, encode_rle, mask_of
from risbench.core.record import REVIEWED, Box, Record
from risbench.formats.truth import Truth

_IMAGE_BYTES: Final = 768 << 20
_MIN_AREA_PX: Final = 12
VALIDATION_SHARE: Final = 0.1
Loosen = Callable[[np.random.Generator, Box], Box]


@dataclass(frozen=True)
class TrueObject:
    """One object with its true mask, as COCO RLE, in an image of the workspace."""

    image: str
    sha256: str
    scene: str
    category: str
    size: tuple[int, int]
    counts: str
    bounds: Box

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Its pixels (height, width)."""
        return decode_rle(self.size, self.counts)


@dataclass(frozen=True)
class Known:
    """All objects with true masks, the boxes that can be compared with them, what was left out by reason, and whose sizes differed."""

    objects: tuple[TrueObject, ...]
    pairs: tuple[Pair, ...]
    left_out: Counter[str]
    sizes: tuple[str, ...] = ()


def from_records(records: Sequence[Record]) -> Known:
    """Return what people have verified: accepted, corrected and adjudicated masks, as one object a record."""
    objects, pairs, left_out = {}, [], Counter[str]()
    for record in records:
        if record.review.status not in REVIEWED or record.mask is None:
            left_out["not_verified"] += 1
        elif len(record.targets) != 1:
            left_out["several_targets"] += 1
        else:
            found = _object(record, mask_of(record.mask))
            if found is None:
                left_out["too_small"] += 1
                continue
            objects[(found.image, found.counts)] = found
            pairs.append(Pair(record.targets[0].box, found.bounds, record.targets[0].box_precision))
    return Known(tuple(objects.values()), tuple(pairs), left_out)


def from_truth(records: Sequence[Record], truth: Truth) -> Known:
    """Return every object of a COCO file that lies in an image of the workspace, whether a record names it or not.

    A record's box is compared with the annotation of its image and class that it means (`core/truth`).

    Raises:
        InputError: no annotation lies in an image of the workspace.
    """
    objects: list[TrueObject] = []
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    of_image: dict[str, Record] = {}
    for record in records:
        of_image.setdefault(record.image.path, record)
        for target, match in zip(record.targets, truth.matches(record), strict=True):
            if match.key is None:
                left_out[match.reason] += 1
            else:
                box = truth.box_of(record, truth.by_id[match.key])
                assert box is not None, "what is matched has a box"
                here = map_box(invert_affine(record.placement.affine), box)
                # both are cut by the image's border: what lies beyond is no error of the box
                pairs.append(Pair(target.box, _within(here, record), target.box_precision))
    for record in of_image.values():
        try:
            annotations = truth.in_image(record)
        except InvalidRowError as reason:
            left_out[reason.code] += 1
            continue
        for annotation in annotations:
            if annotation.get("iscrowd") == 1:
                left_out["crowd"] += 1
                continue
            try:
                found = _object(record, truth.mask_in_record(record, annotation), truth.class_of(annotation) or "unknown")
            except InvalidRowError as reason:
                left_out[reason.code] += 1
                continue
            if found is None:
                left_out["too_small_or_outside"] += 1
            else:
                objects.append(found)
    if not objects:
        count = len(truth.by_id)
        sizes = "".join(f"; {line}" for line in truth.said_of_sizes()) or "; compare file names"
        raise InputError(f"--truth {truth.path}: none of its {count:,} annotations lies in an image of the workspace{sizes}")
    return Known(tuple(objects), tuple(pairs), left_out, tuple(truth.said_of_sizes()))


def _within(box: Box, record: Record) -> Box:
    width, height = float(record.image.width), float(record.image.height)
    return (max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height))


def _object(record: Record, mask: NDArray[np.bool_], category: str | None = None) -> TrueObject | None:
    bounds = mask_bounds(mask)
    if bounds is None or mask.sum() < _MIN_AREA_PX:
        return None
    size, counts = encode_rle(mask)
    return TrueObject(record.image.path, record.image.sha256, record.image.scene, category or record.category.name, size, counts, bounds)


def split_by_scene(objects: Sequence[TrueObject], share: float = VALIDATION_SHARE) -> tuple[list[TrueObject], list[TrueObject]]:
    """Return the objects to learn from, and those of a tenth of the scenes to choose the checkpoint by."""

    def aside(scene: str) -> bool:
        return int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") < share * 2**64

    return [item for item in objects if not aside(item.scene)], [item for item in objects if aside(item.scene)]


@dataclass(frozen=True)
class Boxes:
    """How prompts err: as measured (None: not at all), how many of them grossly, and how many are oriented boxes."""

    noise: BoxNoise | None
    gross_share: float = 0.0
    oriented_share: float = 0.0

    def draw(self, random: np.random.Generator, true: Box) -> Box:
        """Return a prompt for an object whose upright box is `true`."""
        box = self.noise.draw(random, true) if self.noise else true
        if random.random() < self.gross_share:
            box = distorted(random, box)
        return box if box_iou(box, true) > 0.05 else true


class Images:
    """A workspace's images, the last ones used kept in memory up to 768 MiB."""

    def __init__(self, root: Path, digests: Mapping[str, str]) -> None:
        """Know the workspace, and the sha256 of each image by its path."""
        self._root, self._digests = root, digests
        self._kept: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, path: str) -> NDArray[np.uint8]:
        """Return an image (height, width, 3).

        Raises:
            InputError: it is gone, or cannot be read.
        """
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        data = image_bytes(self._root, path, self._digests[path])
        pixels = np.asarray(decoded_image(data, self._root / path, path), dtype=np.uint8)
        self._kept[path] = pixels
        self._bytes += pixels.nbytes
        while self._bytes > _IMAGE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


def check_images(root: Path, records: Sequence[Record], objects: Sequence[TrueObject]) -> None:
    """Read every image that is learnt from once: an error in a loader's process would come as a traceback, and hours later.

    Raises:
        InputError: one is gone, or is not the image that was ingested.
    """
    wanted = {item.image for item in objects}
    for path, digest in sorted({(record.image.path, record.image.sha256) for record in records if record.image.path in wanted}):
        image_bytes(root, path, digest)


def digests_of(objects: Sequence[TrueObject]) -> dict[str, str]:
    """Return the sha256 of each image by its path."""
    return {item.image: item.sha256 for item in objects}


class TrueExamples(IterableDataset[Batch]):
    """Batches of magnified crops; batch number k is a function of the seed and k alone, so a run can stop anywhere and go on.

    Several processes of one training (`ranks`) take equal shares of every batch.
    """

    def __init__(
        self, root: Path, objects: Sequence[TrueObject], boxes: Boxes, seed: int, start: int, stop: int, batch: int, side: int
    ) -> None:
        self.root, self.objects, self.boxes = root, tuple(objects), boxes
        self.seed, self.start, self.stop, self.batch, self.side = seed, start, stop, batch, side
        self.rank, self.ranks = 0, 1

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        images = Images(self.root, digests_of(self.objects))
        for index in self.numbers():
            yield self.make(index, images)

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the batches that this loader's process makes."""
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        yield from range(self.start + first, self.stop, step)

    def make(self, index: int, images: Images) -> Batch:
        """Return this process's share of batch number `index`."""
        return batch_of([self._example(np.random.default_rng(seed), item, images) for item, seed in self.objects_of(index)[1]])

    def objects_of(self, index: int) -> tuple[list[TrueObject], list[tuple[TrueObject, int]]]:
        """Return all objects of batch number `index`, and this process's share of them, each with a seed of its own."""
        random = np.random.default_rng([self.seed, index, 11])
        count = len(self.objects)
        # whole shuffles one after another: every object is seen once before any is seen twice
        places = np.arange(index * self.batch, (index + 1) * self.batch)
        orders = {turn: self._order(turn) for turn in set((places // count).tolist())}
        chosen = [int(orders[turn][place]) for turn, place in zip((places // count).tolist(), (places % count).tolist(), strict=True)]
        seeds = random.integers(2**63, size=self.batch)
        objects = [self.objects[number] for number in chosen]
        return objects, [(objects[k], int(seeds[k])) for k in range(self.rank, self.batch, self.ranks)]

    def _order(self, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, turn, 12]).permutation(len(self.objects))

    def _example(self, random: np.random.Generator, item: TrueObject, images: Images) -> tuple[NDArray[np.generic], ...]:
        box, mask = self.boxes.draw(random, item.bounds), item.mask
        polygon = np.array([(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])])
        if random.random() < self.boxes.oriented_share:
            rims = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
            rim = np.concatenate([part[:, 0] for part in rims])
            corners = cv2.boxPoints(cv2.minAreaRect(np.concatenate([rim, rim + 1]).astype(np.float32)))
            low, high = np.array(item.bounds[:2]), np.array(item.bounds[2:])
            # the oriented box errs as its upright one does: the same map of the corners
            polygon = (corners - low) / (high - low) * (np.array(box[2:]) - box[:2]) + box[:2]
        return crop_example(random, images[item.image], mask, box, polygon, self.side, False)


def summary_of(known: Known) -> dict[str, Any]:
    """Return what there is to learn from, in numbers."""
    return {
        "objects": len(known.objects),
        "images": len({item.image for item in known.objects}),
        "classes": dict(sorted(Counter(item.category for item in known.objects).items())),
        "boxes_compared": len(known.pairs),
        "left_out": dict(sorted(known.left_out.items())),
        "sizes": list(known.sizes),
    }
