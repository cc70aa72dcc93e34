"""Whole groups of scenes to train, val and test: sizes as asked, classes, sizes and attributes even.

Greedy as in iterative stratification (Sechidis et al. 2011): groups in order of size go where their strata are missed most. Then the sizes
are settled by moving small groups, and swaps of groups of one size even the strata out. Everything depends on record ids, scenes and the
seed only, never on order.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.record import SPLITS, Record, Split
from risbench.core.strata import strata_of

# A value that fewer of the records have cannot change a split's shares by one in a hundred.
_COMMON_FROM: Final = 0.01
_MOST_SWAPS: Final = 3000
_LOOKED_AT: Final = 48
Counts = NDArray[np.float64]


def assign_scenes(records: Sequence[Record], groups: Mapping[str, str], targets: tuple[int, int, int], seed: int) -> dict[str, Split]:
    """Return scene to split with sizes as near to `targets` (triplets) as whole groups allow, strata even.

    `groups` names the group of every scene (scene_groups); a group is never parted.
    """
    names, sizes, contents = _contents(records, groups)
    share = np.array(targets, dtype=np.float64) / max(1, sum(targets))
    wanted = share[:, None] * contents.sum(axis=0)[None, :]
    order = sorted(range(len(names)), key=lambda index: (-sizes[index], _drawn(seed, names[index])))
    chosen = np.zeros(len(names), np.int64)
    have, room = np.zeros_like(wanted), np.array(targets, np.int64)
    scale = 1 / np.maximum(wanted, 1)
    for index in order:
        count = contents[index]
        cost = ((2 * (have - wanted) + count) * count * scale).sum(axis=1).round(9)
        # A split that still has room for the whole group comes first, then the one whose strata miss it most.
        best = max(range(3), key=lambda split: (targets[split] > 0, room[split] >= sizes[index], -cost[split], int(room[split]), -split))
        chosen[index] = best
        have[best] += count
        room[best] -= sizes[index]
    drawn = [_drawn(seed, name) for name in names]
    _settle(chosen, sizes, targets, drawn)
    _fill(chosen, sizes, targets, drawn)
    _even_out(chosen, sizes, contents, wanted, drawn)
    split_of = {name: SPLITS[int(split)] for name, split in zip(names, chosen, strict=True)}
    return {scene: split_of[group] for scene, group in groups.items() if group in split_of}


def _contents(records: Sequence[Record], groups: Mapping[str, str]) -> tuple[list[str], NDArray[np.int64], Counts]:
    """Return the groups that have records, how many each has, and how many of every common stratum (groups, strata)."""
    of = [strata_of(record) for record in records]
    counts = Counter(stratum for strata in of for stratum in strata)
    rare = _COMMON_FROM * len(records)
    columns = {name: index for index, name in enumerate(sorted(name for name in counts if name[0] != "attribute" or counts[name] >= rare))}
    names = sorted({groups[record.image.scene] for record in records})
    rows = {name: index for index, name in enumerate(names)}
    sizes, contents = np.zeros(len(names), np.int64), np.zeros((len(names), len(columns)))
    for record, strata in zip(records, of, strict=True):
        row = rows[groups[record.image.scene]]
        sizes[row] += 1
        contents[row, [columns[name] for name in strata if name in columns]] += 1
    return names, sizes, contents


def _settle(chosen: NDArray[np.int64], sizes: NDArray[np.int64], targets: tuple[int, int, int], drawn: Sequence[str]) -> None:
    """Move small groups from the split that has most too many to the one that has most too few, as long as that brings both nearer."""
    totals = [int(sizes[chosen == split].sum()) for split in range(3)]
    for _ in range(3 * len(chosen)):
        gaps = [totals[split] - targets[split] for split in range(3)]
        over, under = int(np.argmax(gaps)), int(np.argmin(gaps))
        reach = min(gaps[over], -gaps[under])
        if reach <= 0 or targets[under] == 0:
            return
        movable = np.flatnonzero((chosen == over) & (sizes <= 2 * reach - 1))
        if not len(movable):
            return
        nearest = movable[np.abs(sizes[movable] - reach) == np.abs(sizes[movable] - reach).min()]
        group = min(nearest.tolist(), key=lambda index: drawn[index])
        chosen[group] = under
        totals[over] -= int(sizes[group])
        totals[under] += int(sizes[group])


def _fill(chosen: NDArray[np.int64], sizes: NDArray[np.int64], targets: tuple[int, int, int], drawn: Sequence[str]) -> None:
    """Give a split that is to hold something and has no group the smallest group of the split that can best spare one."""
    for empty in (split for split in range(3) if targets[split] > 0):
        if (chosen == empty).any():
            continue
        spare = [split for split in range(3) if np.count_nonzero(chosen == split) > 1]
        if not spare:
            return
        giver = max(spare, key=lambda split: (int(sizes[chosen == split].sum()) - targets[split], -split))
        group = min(np.flatnonzero(chosen == giver).tolist(), key=lambda index: (int(sizes[index]), drawn[index]))
        chosen[group] = empty


def _even_out(chosen: NDArray[np.int64], sizes: NDArray[np.int64], contents: Counts, wanted: Counts, drawn: Sequence[str]) -> None:
    """Swap groups of one size between two splits while that makes the chi-square of the strata smaller.

    Only the groups that promise most are looked at, so that a swap costs the same in a large data set.
    """
    scale = 1 / np.maximum(wanted, 1)
    have = np.array([contents[chosen == split].sum(axis=0) for split in range(3)])
    place = np.argsort(np.argsort(np.array(drawn)))
    by_size = {int(size): np.flatnonzero(sizes == size) for size in np.unique(sizes)}
    swaps, better = 0, True
    while better and swaps < _MOST_SWAPS:
        better = False
        for (a, b), members in ((pair, members) for pair in combinations(range(3), 2) for members in by_size.values()):
            one, other = members[chosen[members] == a], members[chosen[members] == b]
            if not len(one) or not len(other):
                continue
            pull = 2 * ((have[a] - wanted[a]) * scale[a] - (have[b] - wanted[b]) * scale[b])
            one, other = _first(one, contents[one] @ -pull, place), _first(other, contents[other] @ pull, place)
            step = contents[other][None, :, :] - contents[one][:, None, :]
            change = (step @ pull + (step**2) @ (scale[a] + scale[b])).round(9)
            at = int(np.argmin(change))
            if change.flat[at] < -1e-6:
                i, j = int(one[at // len(other)]), int(other[at % len(other)])
                chosen[i], chosen[j] = b, a
                have[a] += contents[j] - contents[i]
                have[b] -= contents[j] - contents[i]
                swaps, better = swaps + 1, True


def _first(members: NDArray[np.int64], cost: Counts, place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of least cost; among equals the seed decides."""
    order = np.lexsort((place[members], cost.round(9)))
    return np.asarray(members[order[:_LOOKED_AT]], dtype=np.int64)


def _drawn(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def evenness(records: Sequence[Record], splits: Mapping[str, Split]) -> dict[str, dict[str, Any]]:
    """Return per kind of stratum the largest difference between a value's share in a split and in all: how much, of what, where.

    `splits` is by record id. The difference is of shares: .004 says that a class that 10 % of all triplets have is of 9.6 or 10.4 % of
    those of a split.
    """
    whole: Counter[tuple[str, str]] = Counter()
    parts: dict[Split, Counter[tuple[str, str]]] = defaultdict(Counter)
    totals: Counter[Split] = Counter(splits[record.id] for record in records)
    for record in records:
        strata = strata_of(record)
        whole.update(strata)
        parts[splits[record.id]].update(strata)
    worst: dict[str, dict[str, Any]] = {}
    for (kind, value), count in sorted(whole.items()):
        for split in SPLITS:
            if totals[split]:
                difference = abs(parts[split][kind, value] / totals[split] - count / len(records))
                if kind not in worst or difference > worst[kind]["largest_difference"]:
                    worst[kind] = {"largest_difference": difference, "of": value, "in": split}
    return {kind: {**row, "largest_difference": round(row["largest_difference"], 5)} for kind, row in worst.items()}
