"""Every record its split: by whole scenes, by a frozen list, or as the sources' own lists say; and what that leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from risbench.core.errors import InputError, printable
from risbench.core.reading import read_json
from risbench.core.record import SPLITS, Record, Split
from risbench.core.workspace import INGEST, Workspace
from risbench.export.split import OFFICIAL, Pairs, SplitRule, leaked, overlap_matrices, scene_groups
from risbench.export.strata import assign_scenes, evenness
from risbench.formats.split_list import SplitList

# VRSBench calls its held-out part eval, the REFER sets have testA and testB.
_OFFICIAL_NAMES: Final[Mapping[str, Split]] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testa": "test",
    "testb": "test",
    "eval": "test",
}


# Of a hundred copies of one image not every pair is listed; they are linked all the same.
_COPIES_PAIRED: Final = 20


@dataclass(frozen=True)
class OverlapIndex:
    """Pairs of image paths: copies and near copies, and images of different scenes that show the same ground."""

    near: Pairs
    overlapping: Pairs
    warnings: tuple[str, ...] = ()

    def pairs(self) -> list[tuple[str, str]]:
        """Return all pairs of both kinds."""
        return [*self.near, *self.overlapping]

    @classmethod
    def read(cls, workspace: Workspace) -> OverlapIndex:
        """Return what ingest found.

        Raises:
            InputError: its list is missing or damaged.
        """
        path = workspace.stage(INGEST) / "duplicates.json"
        try:
            found = read_json(path)
            pairs = [pair["images"] for pair in found.get("overlapping", ())]
            _check_paths([*found["exact"], *found["near"], *pairs])
            near, overlapping = _expanded(found["exact"], found["near"], pairs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}); ingest the source into a new workspace") from None
        old = (
            "images that show the same ground were not looked for by the version that ingested them; "
            "`risbench ingest SOURCE -w NEW_WORKSPACE` does"
        )
        return cls(sorted(near), sorted(overlapping), () if "overlapping" in found else (old,))


def _check_paths(groups: Sequence[Any]) -> None:
    for group in groups:
        if not isinstance(group, list) or len(group) < 2 or not all(isinstance(path, str) for path in group):
            raise TypeError(f"{printable(group, 80)} is no list of image paths")


def _expanded(exact: Sequence[Sequence[str]], near: Pairs, overlapping: Pairs) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Return the pairs with every copy of an image in its place: ingest lists overlaps of one copy only, which may not be released."""
    copies = {path: group for group in exact for path in group}
    same = {(a, b) for group in exact for index, a in enumerate(group) for b in group[index + 1 : index + 1 + _COPIES_PAIRED]}
    close = {(a, b) for a, b in map(sorted, near)} | same
    shared = {
        (min(a, b), max(a, b)) for one, other in overlapping for a in copies.get(one, [one]) for b in copies.get(other, [other]) if a != b
    }
    return close, shared


@dataclass(frozen=True)
class Assignment:
    """Split by record id, the scenes that belong together, and how many records got none, by code."""

    splits: Mapping[str, Split]
    groups: Mapping[str, str]
    left_out: Mapping[str, int]
    warnings: tuple[str, ...] = ()


def assign(records: Sequence[Record], rule: SplitRule, twice: OverlapIndex, seed: int) -> Assignment:
    """Return every record's split under a rule."""
    groups = _groups(records, twice)
    if rule.targets is not None:
        scenes = assign_scenes(records, groups, rule.targets, seed)
        return Assignment({record.id: scenes[record.image.scene] for record in records}, groups, {})
    official = rule.frozen is None
    found = {record.id: official_split(record) if official else rule.frozen.of(record) for record in records}  # type: ignore[union-attr]
    splits = {key: split for key, split in found.items() if split is not None}
    missing = len(found) - len(splits)
    code = "no_official_split" if official else "not_in_split_list"
    warnings = [f"{missing:,} records are left out: {'their source has no list' if official else 'the list does not name them'}"]
    if rule.frozen is not None:
        known = {record.image.scene if rule.frozen.by == "scene" else record.id for record in records}
        idle = sum(key not in known for key in rule.frozen.splits)
        if idle:
            plural = "scenes" if rule.frozen.by == "scene" else "records"
            warnings.append(f"{idle:,} of the {len(rule.frozen.splits):,} {plural} of the list have nothing to release")
    return Assignment(splits, groups, {code: missing} if missing else {}, tuple(warnings if missing else warnings[1:]))


def _groups(records: Sequence[Record], twice: OverlapIndex) -> dict[str, str]:
    """Return each scene's group. Images that are not released link too: two windows may share ground with a third one only."""
    shown = sorted({(record.image.path, record.image.scene) for record in records})
    nodes = {f"scene {scene}" for _, scene in shown} | {f"image {path}" for pair in twice.pairs() for path in pair}
    links = [(f"image {a}", f"image {b}") for a, b in twice.pairs()]
    links += [(f"image {path}", f"scene {scene}") for path, scene in shown if f"image {path}" in nodes]
    # an image that records count to several scenes joins them
    links += [(f"scene {a}", f"scene {b}") for (path, a), (other, b) in pairwise(shown) if path == other]
    groups = scene_groups(sorted(nodes), links)
    return {scene: groups[f"scene {scene}"] for _, scene in shown}


def official_split(record: Record) -> Split | None:
    """Return where the record's source puts it, None where it does not say."""
    return _OFFICIAL_NAMES.get((record.source.split or "").casefold())


def split_list(records: Sequence[Record], rule: SplitRule) -> SplitList:
    """Return the list that makes this split again: of scenes, or of records where a rule may part a scene."""
    if rule.targets is not None or (rule.frozen is not None and rule.frozen.by == "scene"):
        return SplitList("scene", {record.image.scene: record.split for record in records if record.split})
    return SplitList("id", {record.id: record.split for record in records if record.split})


def described(records: Sequence[Record], rule: SplitRule, made: Assignment, twice: OverlapIndex, seed: int) -> dict[str, Any]:
    """Return what release.json says of a split: sizes, what two splits share, what leaks, how even it is; the same of the other way beside.

    Beside a split of ours stand the sources' own lists, where they have any; beside theirs stands ours of the same sizes.
    """
    said = {**_sizes(records, made.splits, rule), **_judged(records, made.splits, made.groups, twice), "beside": None}
    official = {record.id: split for record in records if (split := official_split(record)) is not None}
    of_both = [record for record in records if record.id in official]
    if rule.text == OFFICIAL:
        counts = Counter(official.values())
        sizes = (counts["train"], counts["val"], counts["test"])
        ours = assign(of_both, SplitRule("scene", sizes, None), twice, seed)
        said["beside"] = {"rule": "scene", **_sizes(of_both, ours.splits), **_judged(of_both, ours.splits, ours.groups, twice)}
    elif len(set(official.values())) > 1:
        said["beside"] = {"rule": OFFICIAL, **_sizes(of_both, official), **_judged(of_both, official, made.groups, twice)}
    return said


def empty_parts(
    records: Sequence[Record], rule: SplitRule, made: Assignment, named: Set[Split], left_out: Mapping[str, int]
) -> tuple[tuple[Split, ...], str]:
    """Return the splits that were to hold something and hold none of `records`, which have a split, and the likeliest reason.

    `named` are the splits that the sources' own lists name anywhere in the workspace.
    """
    there = {record.split for record in records}
    empty = tuple(split for split in SPLITS if split in (rule.asked or named) and split not in there)
    scenes = {record.image.scene for record in records}
    if rule.targets is None:
        withheld = ", ".join(f"{code} {count:,}" for code, count in sorted(left_out.items())) or "none"
        return empty, f"the list names nothing of it that can be released; left out: {withheld}"
    groups = len({made.groups[scene] for scene in scenes})
    together = f"{groups:,} group{'s' if groups != 1 else ''} of scenes that show the same ground and stay together"
    told = "" if groups == len(scenes) else f", {together}"
    glanced = left_out.get("triaged_outside_train", 0)
    also = f"; {glanced:,} masks that only passed on a triage sheet are released in train alone" if glanced else ""
    return empty, f"{len(records):,} triplets of {len(scenes):,} scenes can be released{told}{also}"


def _sizes(records: Sequence[Record], splits: Mapping[str, Split], rule: SplitRule | None = None) -> dict[str, Any]:
    sizes: dict[str, dict[str, Any]] = {}
    for index, split in enumerate(SPLITS):
        members = [record for record in records if splits[record.id] == split]
        wanted = {} if rule is None else {"wanted": rule.targets[index] if rule.targets else "official" if not rule.frozen else "frozen"}
        scenes, images = {record.image.scene for record in members}, {record.image.path for record in members}
        sizes[split] = {"triplets": len(members), **wanted, "scenes": len(scenes), "images": len(images)}
    return {"splits": sizes}


def _judged(records: Sequence[Record], splits: Mapping[str, Split], groups: Mapping[str, str], twice: OverlapIndex) -> dict[str, Any]:
    return {
        "overlap": overlap_matrices(records, splits, twice.near, twice.overlapping),
        "leaked": leaked(records, splits, groups),
        "evenness": evenness(records, splits),
    }
