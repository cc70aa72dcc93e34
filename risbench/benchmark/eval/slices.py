"""Scores by what a sample is like, and what failures have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.benchmark.data.cache import Cache
from risbench.benchmark.data.release import Sample
from risbench.benchmark.eval.scoring import Scored
from risbench.core.geometry import box_iou, mask_bounds
from risbench.core.metrics import score_intervals, summarize

# Slices with fewer samples are marked: their figures mean little.
FEW: Final = 20
# Shares of the image's area, at its own size (docs/benchmark.md).
KINDS: Final = ("class", "size", "attribute", "words", "uniqueness", "border")
FAILURE_KINDS: Final = ("several objects", "look-alike background", "imprecise annotation", "image border")
_SIZES: Final = (("tiny", 0.001), ("small", 0.01), ("medium", 0.05), ("large", 0.2), ("huge", 1.1))
_WORDS: Final = (("1-5 words", 5), ("6-10 words", 10), ("11-15 words", 15), ("16-20 words", 20), ("over 20 words", 10**9))
_FAILED: Final = 0.5
# Two colours that differ by less in CIE Lab are hardly told apart at a glance.
_ALIKE_LAB: Final = 12.0
_RIM_SHARE: Final = 0.02
_IMPRECISE: Final = 0.7


def summary(found: Sequence[Scored]) -> dict[str, Any]:
    """Return a figure and its interval by name, of samples scored; images are drawn."""
    pairs = [(one.intersection, one.union) for one in found]
    values, intervals = summarize(pairs), score_intervals(pairs, [one.image for one in found])
    return {name: {"value": value, "interval": list(intervals.get(name, (0.0, 1.0)))} for name, value in values.items()}


@dataclass(frozen=True)
class Traits:
    """What a sample's target is like.

    `share` of its image it covers, whether it touches the edge or lies `near` it, its `contrast` with what is around it (CIE Lab), and the
    `agreement` (IoU) of its mask's extent with the source's box. None: cannot be told.
    """

    share: float
    touches: bool
    near: bool
    contrast: float | None
    agreement: float | None


def traits_of(cache: Cache, found: Sequence[Scored]) -> dict[str, Traits]:
    """Return the traits of the samples scored, by id."""
    numbers = {sample.id: number for number, sample in enumerate(cache.samples)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda one: _traits(cache, numbers[one.id]), found)
        return {one.id: traits for one, traits in zip(found, made, strict=True)}


def _traits(cache: Cache, number: int) -> Traits:
    sample = cache.samples[number]
    mask = sample.mask
    return Traits(
        share=np.count_nonzero(mask) / mask.size,
        touches=touches_border(mask),
        near=touches_border(mask, _RIM_SHARE),
        contrast=_ring_contrast(cache, number),
        agreement=_box_agreement(sample, mask),
    )


def by_slices(cache: Cache, found: Sequence[Scored], traits: Mapping[str, Traits]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures of every slice, by what it is sliced by: class, size, attribute, words, uniqueness, border."""
    known = {sample.id: sample for sample in cache.samples}
    peers = _class_counts(cache.samples)
    kinds: dict[str, Callable[[Sample], Iterable[str]]] = {
        "class": lambda sample: [sample.category],
        "size": lambda sample: [_bin(traits[sample.id].share, _SIZES)],
        "attribute": lambda sample: sample.attributes,
        "words": lambda sample: [_bin(len(sample.sentence.split()), _WORDS)],
        "uniqueness": lambda sample: [
            "the only one of its class referred to" if peers[(sample.image, sample.category)] == 1 else "others of its class referred to"
        ],
        "border": lambda sample: ["touches the border" if traits[sample.id].touches else "inside"],
    }
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, names in kinds.items():
        groups: dict[str, list[Scored]] = {}
        for one in found:
            for name in names(known[one.id]):
                groups.setdefault(name, []).append(one)
        made[kind] = {name: {"n": len(group), "few": len(group) < FEW, **summary(group)} for name, group in sorted(groups.items())}
    return made


def in_order(names: Iterable[str]) -> list[str]:
    """Return slices' names, sizes and lengths by what they mean and all others by the alphabet."""
    rank = {name: place for bins in (_SIZES, _WORDS) for place, (name, _) in enumerate(bins)}
    return sorted(names, key=lambda name: (rank.get(name, 0), name))


def failures(found: Sequence[Scored], traits: Mapping[str, Traits]) -> dict[str, Any]:
    """Return how often each of the paper's four failure kinds (Fig. 13) is met among failures, and among the rest.

    A failure has an IoU below .5. A sample may be of several kinds or of none:

    * several objects: it meets the target, and covers another object by half or has a piece that misses the target;
    * look-alike background: the ring around the target differs from it by less than 12 in CIE Lab;
    * imprecise annotation: the mask's extent and the record's box have an IoU below .7;
    * image border: the target lies within 2 % of the image's side from its edge.
    """
    kinds: dict[str, Callable[[Scored], bool | None]] = {
        "several objects": lambda one: one.intersection > 0 and (one.others > 0 or one.astray > 0),
        "look-alike background": lambda one: _below(traits[one.id].contrast, _ALIKE_LAB),
        "imprecise annotation": lambda one: _below(traits[one.id].agreement, _IMPRECISE),
        "image border": lambda one: traits[one.id].near,
    }
    failed = [one for one in found if one.iou < _FAILED]
    rest = [one for one in found if one.iou >= _FAILED]
    counted = {}
    for kind, holds in kinds.items():
        told = [[holds(one) for one in group] for group in (failed, rest)]
        known = [[one for one in group if one is not None] for group in told]
        counted[kind] = {
            "failures": sum(known[0]),
            "of_failures": _share(sum(known[0]), known[0]),
            "of_the_rest": _share(sum(known[1]), known[1]),
            "cannot_tell": sum(len(group) for group in told) - sum(len(group) for group in known),
        }
    empty = sum(one.predicted == 0 for one in found)
    missed = sum(one.intersection == 0 and one.predicted > 0 for one in found)
    return {"failures": len(failed), "of": len(found), "nothing_found": empty, "wholly_elsewhere": missed, "kinds": counted}


def touches_border(mask: NDArray[np.bool_], share: float = 0.0) -> bool:
    """Return whether a mask (height, width) reaches to within `share` of the image's side from its edge."""
    y, x = (max(1, round(share * side)) for side in mask.shape)
    return bool(mask[:y].any() or mask[-y:].any() or mask[:, :x].any() or mask[:, -x:].any())


def _class_counts(samples: Sequence[Sample]) -> Mapping[tuple[str, str], int]:
    """Return how many objects of a class an image's sentences are about; several sentences about one object count once."""
    seen: dict[tuple[str, str], set[str]] = {}
    for sample in samples:
        seen.setdefault((sample.image, sample.category), set()).add(sample.counts)
    return {key: len(masks) for key, masks in seen.items()}


def _bin(value: float, bins: Sequence[tuple[str, float]]) -> str:
    return next(name for name, most in bins if value <= most)


def _share(count: int, group: Sequence[Any]) -> float | None:
    return count / len(group) if group else None


def _below(value: float | None, bound: float) -> bool | None:
    return None if value is None else value < bound


def _ring_contrast(cache: Cache, number: int) -> float | None:
    """Return the distance in CIE Lab of the target's mean colour from that of a ring around it, an eighth of its extent wide.

    None where nothing is left of the target at the cache's side, or nothing around it.
    """
    mask = cache.mask(np.array([number]))[0]
    if not mask.any():
        return None
    reach = max(2, round(float(np.sqrt(mask.sum())) / 8))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = slice(max(0, rows[0] - reach), rows[-1] + reach + 1), slice(max(0, columns[0] - reach), columns[-1] + reach + 1)
    mask = mask[window]
    ring = cv2.dilate(mask, np.ones((3, 3), np.uint8), iterations=reach).astype(bool) & ~mask.astype(bool)
    if not ring.any():
        return None
    image = np.asarray(cache.images[cache.image_of[number]][window], dtype=np.float32) / 255
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return float(np.linalg.norm(lab[mask.astype(bool)].mean(axis=0) - lab[ring].mean(axis=0)))


def _box_agreement(sample: Sample, mask: NDArray[np.bool_]) -> float | None:
    """Return the IoU of the mask's extent with the box that the source gave; None where it gave none."""
    if sample.box_given is None:
        return None
    extent = mask_bounds(mask)
    return box_iou(extent, sample.box_given) if extent is not None else None
