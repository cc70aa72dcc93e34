"""Rows of one object, found without comparing each row with every other: 100,000 objects of an image take seconds.

The rule is plain: a row joins the first cluster with all of whose rows it agrees (`merge.same_object`). Here is how the clusters
that it may agree with are found. Boxes that overlap by .9 differ by little in place and size, and boxes that agree up to their
rounding by little in every number; so clusters are filed by the place of their first row's box, and a row looks into the few
places around its own. Nothing is decided here: what is found is compared in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from risbench.core.record import Box
from risbench.formats.source.rows import Row

# Of two boxes with an IoU of .9 the sides' ratio is .9 at least, and their edges lie less than .112 of the shorter side apart.
_REACH: Final = 0.115
_SHORTEST, _LONGEST = 0.885, 1.13
Owner = tuple[str, str]
Entry = tuple[str, Row]


@dataclass
class Cluster:
    """Rows of one object, each with its image's path; `distinct` holds one row of each kind that agrees with all that its like does."""

    number: int
    members: list[Entry] = field(default_factory=list)
    distinct: dict[Hashable, Row] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    def takes(self, row: Row, same_object: Callable[[Row, Row], bool]) -> bool:
        """Return whether a row agrees with all rows of the cluster."""
        if row.object_id is not None and self.owners.get(row.file, row.object_id) != row.object_id:
            return False
        return all(same_object(row, other) for other in self.distinct.values())

    def add(self, image: str, row: Row, kind: Hashable) -> None:
        """Add a row that agrees with all."""
        self.members.append((image, row))
        self.distinct.setdefault(kind, row)
        if row.object_id is not None:
            self.owners[row.file] = row.object_id


class ClusterIndex:
    """The clusters of rows with one image, sentence and number of boxes, in order of first sight; `coarsest` is their coarsest rounding."""

    def __init__(self, coarsest: float) -> None:
        self._coarsest = coarsest
        self._places: dict[Hashable, _Place] = {}

    def candidates(self, row: Row) -> Iterator[Cluster]:
        """Yield the clusters that may take a row, in order of first sight; those owned by another object of its file are left out."""
        found: dict[int, Cluster] = {}
        for place in _around(row, self._coarsest):
            if (there := self._places.get(place)) is not None:
                found.update((cluster.number, cluster) for cluster in there.open_to(row))
        for number in sorted(found):
            yield found[number]

    def add(self, cluster: Cluster, row: Row) -> None:
        """File a cluster under the box of its first row."""
        for place in _own(row, self._coarsest):
            self._places.setdefault(place, _Place()).add(cluster)


class _Place:
    """The clusters in one place; for each file those that hold none of its objects yet, and each object's own."""

    def __init__(self) -> None:
        self._all: list[Cluster] = []
        self._free: dict[str, list[Cluster]] = {}
        self._owned: dict[Owner, list[Cluster]] = {}
        self._filed: dict[str, int] = {}

    def add(self, cluster: Cluster) -> None:
        self._all.append(cluster)

    def open_to(self, row: Row) -> Iterable[Cluster]:
        if row.object_id is None:
            return self._all
        free = self._free.setdefault(row.file, [])
        free.extend(self._all[self._filed.get(row.file, 0) :])
        self._filed[row.file] = len(self._all)
        still = []
        for cluster in free:
            owner = cluster.owners.get(row.file)
            if owner is None:
                still.append(cluster)
            else:
                self._owned.setdefault((row.file, owner), []).append(cluster)
        self._free[row.file] = still
        return [*self._owned.get((row.file, row.object_id), ()), *still]


def kind_of(row: Row, category: str) -> Hashable:
    """Return what decides whom a row agrees with, besides its file's object: boxes with their rounding, class, and mask without boxes."""
    boxes = tuple((box.box, box.relative, box.quantum) for box in row.boxes)
    return boxes, category, row.mask if not row.boxes else None


def _exactly(row: Row) -> Hashable:
    """Return the place of the rows with the same first box, or without boxes with the same mask."""
    if not row.boxes:
        return "mask", row.mask
    return "same", row.boxes[0].relative, row.boxes[0].box


def _own(row: Row, coarsest: float) -> Iterator[Hashable]:
    """Yield the places where a row's cluster is filed."""
    yield _exactly(row)
    if not row.boxes:
        return
    first = row.boxes[0]
    if coarsest:
        yield "rounded", first.relative, tuple(math.floor(value / (2 * coarsest)) for value in clipped(first.box))
    width, height = first.box[2] - first.box[0], first.box[3] - first.box[1]
    if width > 0 and height > 0:
        levels = _level(width), _level(height)
        yield "near", first.relative, levels, tuple(math.floor(first.box[axis] / 2.0 ** levels[axis]) for axis in (0, 1))


def _around(row: Row, coarsest: float) -> Iterator[Hashable]:
    """Yield every place in which a box that agrees with a row's first may be filed."""
    yield _exactly(row)
    if not row.boxes:
        return
    first = row.boxes[0]
    if coarsest:
        reach = 1.02 * coarsest
        spans = [_cells(value - reach, value + reach, 2 * coarsest) for value in clipped(first.box)]
        for cells in product(*spans):
            yield "rounded", first.relative, cells
    left, top = first.box[:2]
    width, height = first.box[2] - left, first.box[3] - top
    if width <= 0 or height <= 0:
        return
    reach_x, reach_y = _REACH * width, _REACH * height
    for across, down in product(_levels(width), _levels(height)):
        columns = _cells(left - reach_x, left + reach_x, 2.0**across)
        for cell in product(columns, _cells(top - reach_y, top + reach_y, 2.0**down)):
            yield "near", first.relative, (across, down), cell


def clipped(box: Box) -> tuple[float, ...]:
    """Return a box of shares cut to the image: some forms are clipped and some are not."""
    return tuple(min(1.0, max(0.0, value)) for value in box)


def _level(length: float) -> int:
    return math.frexp(length)[1]


def _levels(length: float) -> range:
    return range(_level(length * _SHORTEST), _level(length * _LONGEST) + 1)


def _cells(low: float, high: float, size: float) -> range:
    return range(math.floor(low / size), math.floor(high / size) + 1)
