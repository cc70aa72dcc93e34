"""Rules of splitting, scenes that belong together, and what two splits share."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import OptionError, printable
from risbench.core.record import SPLITS, Record, Split
from risbench.formats.split_list import SplitList, read_split_list

# RISBench's own proportions: 26,300 / 10,013 / 16,159 of 52,472.
DEFAULT_FRACTIONS: Final = (26300 / 52472, 10013 / 52472, 16159 / 52472)
OFFICIAL: Final = "official"
_NUMBERS = re.compile(r"^[\d.,\s]+$")


@dataclass(frozen=True)
class SplitRule:
    """A parsed --split: `targets` in triplets, a `frozen` list, or, with neither, the lists of the sources; `warnings` are for the user.

    `asked` are the splits that are to hold something; of the sources' lists that is known only from the records (empty here).
    """

    text: str
    targets: tuple[int, int, int] | None
    frozen: SplitList | None
    warnings: tuple[str, ...] = ()
    asked: frozenset[Split] = frozenset()


def parse_rule(text: str, available: int, manifests: Sequence[Path] = ()) -> SplitRule:
    """Return the rule that `text` means for `available` triplets.

    `scene` is the default rule; three numbers are fractions (sum up to 1) or counts; `official` is what the sources' own lists
    say; anything else is a frozen list: a CSV file with the columns scene and split, or id and split, or its name in one of `manifests`.

    Raises:
        OptionError: the numbers cannot be sizes, or no such list exists.
        InputError: the list is damaged.
    """
    if text == "scene":
        return SplitRule(text, _apportion(DEFAULT_FRACTIONS, available), None, asked=frozenset(SPLITS))
    if text == OFFICIAL:
        return SplitRule(text, None, None)
    if _NUMBERS.match(text):
        return _sized_rule(text, available)
    for path in (Path(text), *(folder / f"{text}.csv" for folder in manifests)):
        if path.is_file():
            frozen, name = read_split_list(path), path.name if path == Path(text) else text  # where it lies is nobody's business
            return SplitRule(name, None, frozen, asked=frozenset(frozen.splits.values()))
    raise OptionError(
        f"--split {printable(text)}: no such rule or file; "
        "write scene, official, three fractions (.7,.1,.2), three counts, or a CSV of scene,split"
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
    asked = frozenset(split for split, size in zip(SPLITS, sizes, strict=True) if size)
    if all(size <= 1 for size in sizes):
        if total > 1 + 1e-6:
            raise OptionError(f"--split {text}: fractions must not add up to more than 1, these make {total:g}")
        short = (f"--split {text} adds up to {total:g}: the fractions are used as proportions",) if total < 1 - 1e-6 else ()
        return SplitRule(text, _apportion([size / total for size in sizes], available), None, short, asked)
    if any(size != int(size) for size in sizes):
        raise OptionError(f"--split {text}: counts must be whole numbers")
    warnings: tuple[str, ...] = ()
    if int(total) != available:
        warnings = (f"--split {text} asks for {int(total):,} triplets and there are {available:,}: the counts are used as proportions",)
        if abs(int(total) - available) == 1:
            warnings = (f"--split {text} adds up to {int(total):,}, one off the {available:,} triplets there are",)
    return SplitRule(text, _apportion([size / total for size in sizes], available), None, warnings, asked)


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


Pairs = Sequence[tuple[str, str]]


def overlap_matrices(records: Sequence[Record], splits: Mapping[str, Split], near: Pairs, overlapping: Pairs) -> dict[str, Any]:
    """Return what any two splits share, as a matrix each (the diagonal is within one split).

    `scenes` counts scenes; `near_duplicates` pairs of images that are copies or near copies, `overlapping` pairs of different scenes
    that show the same ground, both given by image paths. `splits` is by record id.
    """
    scenes: dict[str, set[str]] = {split: set() for split in SPLITS}
    of_image: dict[str, set[Split]] = defaultdict(set)
    for record in records:
        split = splits[record.id]
        scenes[split].add(record.image.scene)
        of_image[record.image.path].add(split)
    return {
        "scenes": {a: {b: len(scenes[a] & scenes[b]) for b in SPLITS} for a in SPLITS},
        "near_duplicates": _pair_matrix(of_image, near),
        "overlapping": _pair_matrix(of_image, overlapping),
    }


def _pair_matrix(of_image: Mapping[str, set[Split]], pairs: Pairs) -> dict[str, dict[str, int]]:
    """Count pairs of images; an image whose sentences lie in two splits is counted in both."""
    matrix: dict[str, dict[str, int]] = {str(a): {str(b): 0 for b in SPLITS} for a in SPLITS}
    for a, b in pairs:
        kinds = {tuple(sorted((one, other), key=SPLITS.index)) for one in of_image.get(a, ()) for other in of_image.get(b, ())}
        for one, other in kinds:
            matrix[one][other] += 1
            if one != other:
                matrix[other][one] += 1
    return matrix


def shared_by_two(matrix: Mapping[str, Mapping[str, int]]) -> int:
    """Return how many of a matrix lie in two different splits."""
    return sum(matrix[a][b] for index, a in enumerate(SPLITS) for b in SPLITS[index + 1 :])


def leaked(records: Sequence[Record], splits: Mapping[str, Split], groups: Mapping[str, str]) -> dict[str, int]:
    """Return how many triplets of val and test are linked to ground of train: by scene, copy, a window beside, or a chain of these."""
    trained = {groups[record.image.scene] for record in records if splits[record.id] == "train"}
    found = Counter(splits[record.id] for record in records if groups[record.image.scene] in trained)
    return {"val": found["val"], "test": found["test"]}
