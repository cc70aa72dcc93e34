"""Splits by scene: whole scenes and their near-duplicates stay together; strata of class and size are kept even.

The assignment is greedy, in the manner of iterative stratification (Sechidis et al. 2011): groups in order of size go
where their strata are missed most. It depends on record ids, scenes and the seed only, never on order.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import OptionError, printable
from risbench.core.record import SPLITS, Record, Split
from risbench.formats.split_list import read_frozen

# RISBench's own proportions: 26,300 / 10,013 / 16,159 of 52,472.
DEFAULT_FRACTIONS: Final = (26300 / 52472, 10013 / 52472, 16159 / 52472)
_NUMBERS = re.compile(r"^[\d.,\s]+$")


@dataclass(frozen=True)
class SplitRule:
    """A parsed --split: either `targets` in triplets, or `frozen` scene to split; `warnings` are for the user."""

    text: str
    targets: tuple[int, int, int] | None
    frozen: Mapping[str, Split] | None
    warnings: tuple[str, ...] = ()


def parse_rule(text: str, available: int, manifests: Sequence[Path] = ()) -> SplitRule:
    """Return the rule that `text` means for `available` triplets.

    `scene` is the default rule; three numbers are fractions (sum up to 1) or counts; anything else is a frozen
    list: a CSV file with columns scene and split, or its name in one of `manifests`.

    Raises:
        OptionError: the numbers cannot be sizes, or no such list exists.
        InputError: the list is damaged.
    """
    if text == "scene":
        return SplitRule(text, _apportion(DEFAULT_FRACTIONS, available), None)
    if _NUMBERS.match(text):
        return _sized_rule(text, available)
    for path in (Path(text), *(folder / f"{text}.csv" for folder in manifests)):
        if path.is_file():
            return SplitRule(path.name if path == Path(text) else text, None, read_frozen(path))  # where it lies is nobody's business
    raise OptionError(
        f"--split {printable(text)}: no such rule or file; write scene, three fractions (.7,.1,.2), three counts, or a CSV of scene,split"
    )


def _sized_rule(text: str, available: int) -> SplitRule:
    try:
        sizes = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise OptionError(f"--split {text}: each of the three sizes must be a number") from None
    if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) == 0 or max(sizes) > 1e12:
        raise OptionError(
            f"--split {printable(text)}: needs three sizes for train, val and test, none negative, not all 0, none beyond 10^12"
        )
    if sizes[0] == 0:
        raise OptionError(f"--split {text}: leaves nothing for training")
    total = sum(sizes)
    if all(size <= 1 for size in sizes):
        if total > 1 + 1e-6:
            raise OptionError(f"--split {text}: fractions must not add up to more than 1, these make {total:g}")
        short = (f"--split {text} adds up to {total:g}: the fractions are used as proportions",) if total < 1 - 1e-6 else ()
        return SplitRule(text, _apportion([size / total for size in sizes], available), None, short)
    if any(size != int(size) for size in sizes):
        raise OptionError(f"--split {text}: counts must be whole numbers")
    warnings: tuple[str, ...] = ()
    if int(total) != available:
        warnings = (f"--split {text} asks for {int(total):,} triplets and there are {available:,}: the counts are used as proportions",)
        if abs(int(total) - available) == 1:
            warnings = (f"--split {text} adds up to {int(total):,}, one off the {available:,} triplets there are",)
    return SplitRule(text, _apportion([size / total for size in sizes], available), None, warnings)


def _apportion(fractions: Sequence[float], total: int) -> tuple[int, int, int]:
    """Return whole numbers in proportion that add up to `total` (largest remainder)."""
    exact = [fraction * total for fraction in fractions]
    sizes = [int(value) for value in exact]
    for index in sorted(range(3), key=lambda index: (sizes[index] - exact[index], index))[: total - sum(sizes)]:
        sizes[index] += 1
    return (sizes[0], sizes[1], sizes[2])


def scene_groups(scenes: Iterable[str], linked: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return each scene's group: scenes that `linked` pairs join (they share near-duplicate images) are one group."""
    parent = {scene: scene for scene in scenes}

    def root(scene: str) -> str:
        while parent[scene] != scene:
            parent[scene] = parent[parent[scene]]
            scene = parent[scene]
        return scene

    for a, b in linked:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {scene: root(scene) for scene in parent}


def assign_scenes(records: Sequence[Record], groups: Mapping[str, str], targets: tuple[int, int, int], seed: int) -> dict[str, Split]:
    """Return scene to split with sizes as near to `targets` (triplets) as whole groups allow, strata even."""
    strata = [stratum_of(record) for record in records]
    columns = {name: index for index, name in enumerate(sorted(set(strata)))}
    contents: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(columns)))
    for record, stratum in zip(records, strata, strict=True):
        contents[groups[record.image.scene]][columns[stratum]] += 1
    share = np.array(targets, dtype=np.float64) / max(1, sum(targets))
    wanted = share[:, None] * sum(contents.values(), np.zeros(len(columns)))[None, :]
    have = np.zeros_like(wanted)
    weight = 1 / np.maximum(wanted.sum(axis=0), 1)
    order = sorted(contents, key=lambda group: (-contents[group].sum(), _drawn(seed, group)))
    chosen: dict[str, int] = {}
    for group in order:
        count = contents[group]
        room = np.array(targets) - have.sum(axis=1) - count.sum()
        need = ((wanted - have) * weight * (count > 0)).sum(axis=1)
        # A split that still has room for the whole group comes first, then the one whose strata miss it most.
        best = max(range(3), key=lambda index: (targets[index] > 0, room[index] >= 0, need[index], room[index], -index))
        chosen[group] = best
        have[best] += count
    _settle(chosen, contents, targets, seed)
    return {scene: SPLITS[chosen[groups[scene]]] for scene in groups if groups[scene] in chosen}


def _settle(chosen: dict[str, int], contents: Mapping[str, NDArray[np.float64]], targets: tuple[int, int, int], seed: int) -> None:
    """Move or swap small groups until no single move brings the three sizes nearer to their targets."""
    sizes = {group: int(counts.sum()) for group, counts in contents.items()}
    totals = [sum(sizes[group] for group, split in chosen.items() if split == index) for index in range(3)]
    for _ in range(3 * len(chosen)):
        gaps = [totals[index] - targets[index] for index in range(3)]
        over, under = int(np.argmax(gaps)), int(np.argmin(gaps))
        if gaps[over] <= 0 or over == under:
            return
        reach = min(gaps[over], -gaps[under])
        movable = [group for group, split in chosen.items() if split == over and 0 < sizes[group] <= 2 * reach - 1 and targets[under] > 0]
        if not movable:
            return
        group = min(movable, key=lambda group: (abs(sizes[group] - reach), _drawn(seed, group)))
        chosen[group] = under
        totals[over] -= sizes[group]
        totals[under] += sizes[group]


def _drawn(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def size_of(area_px: float) -> str:
    """Return COCO's size name of an area in pixels: small below 32 x 32, large from 96 x 96."""
    return "small" if area_px < 32**2 else "medium" if area_px < 96**2 else "large"


def stratum_of(record: Record) -> str:
    """Return class and size of the record's boxes."""
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (target.box for target in record.targets))
    return f"{record.category.name}/{size_of(area)}"


def overlap_matrices(
    records: Sequence[Record], splits: Mapping[str, Split], near: Sequence[tuple[str, str]]
) -> dict[str, dict[str, dict[str, int]]]:
    """Return for scenes and for near-duplicate images how many are shared by each two splits; the diagonal is within one."""
    scenes: dict[str, set[str]] = {split: set() for split in SPLITS}
    image_split: dict[str, str] = {}
    for record in records:
        split = splits[record.id]
        scenes[split].add(record.image.scene)
        image_split[record.image.path] = split
    pairs: Counter[tuple[str, str]] = Counter()
    for a, b in near:
        if a in image_split and b in image_split:
            first, second = sorted((image_split[a], image_split[b]), key=lambda split: [*SPLITS].index(split))  # type: ignore[arg-type]
            pairs[first, second] += 1
    return {
        "scenes": {a: {b: len(scenes[a] & scenes[b]) for b in SPLITS} for a in SPLITS},
        "near_duplicates": {a: {b: pairs[a, b] if a == b else pairs[a, b] + pairs[b, a] for b in SPLITS} for a in SPLITS},
    }
