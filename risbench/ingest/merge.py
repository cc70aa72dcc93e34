"""The forms of one object become one row with the best box; exact and near copies of a row become one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from risbench.core.geometry import box_iou
from risbench.core.record import SourceRow
from risbench.formats.source.rows import GivenBox, Row, SetAside
from risbench.ingest.clusters import Cluster, ClusterIndex, clipped, kind_of
from risbench.ingest.sentences import normalise

_TIERS: Final = {"exact": 0, "corner": 1, "coord": 2, "token": 3}
_ORIGINS: Final = {"eval:question": 0, "annotation:referring_sentence": 1, "train:conversation": 2}


@dataclass(frozen=True)
class Candidate:
    """One triplet to be: the row that speaks for it, and the further rows that say the same."""

    row: Row
    merged: tuple[SourceRow, ...] = ()


def merge_rows(rows: Iterable[tuple[str, Row]]) -> tuple[list[tuple[str, Candidate]], list[SetAside]]:
    """Merge rows, each given with its image's path; return candidates in order of first sight, and what was merged.

    Rows are one triplet where image and sentence agree and their boxes agree as far as their rounding lets them.
    """
    rows = list(rows)
    coarsest = max((box.quantum or 0.0 for _, row in rows for box in row.boxes[:1]), default=0.0)
    groups: dict[tuple[str, str, int], ClusterIndex] = {}
    clusters: list[Cluster] = []
    for image, row in rows:
        key = (image, normalise(row.sentence or ""), len(row.boxes))
        group = groups.setdefault(key, ClusterIndex(coarsest))
        cluster = next((one for one in group.candidates(row) if one.takes(row, same_object)), None)
        if cluster is None:
            cluster = Cluster(len(clusters))
            clusters.append(cluster)
            group.add(cluster, row)
        cluster.add(image, row, kind_of(row, normalise(row.category)))
    candidates: list[tuple[str, Candidate]] = []
    aside: list[SetAside] = []
    for cluster in clusters:
        image = cluster.members[0][0]
        members = [row for _, row in cluster.members]
        if len(members) == 1:
            candidates.append((image, Candidate(members[0])))
            continue
        candidate, merged = _merge(members)
        candidates.append((image, candidate))
        aside.extend(merged)
    return candidates, aside


def same_object(a: Row, b: Row) -> bool:
    """Return whether two rows with one image, sentence and number of boxes are of one object."""
    if a.category and b.category and normalise(a.category) != normalise(b.category):
        return False
    if a.mask != b.mask and not (a.boxes and b.boxes):
        return False
    if a.file == b.file and a.object_id is not None and b.object_id is not None and a.object_id != b.object_id:
        return False
    return all(_boxes_agree(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))


def _boxes_agree(a: GivenBox, b: GivenBox) -> bool:
    """Return whether two boxes can be one: equal up to the coarser one's rounding, or overlapping by .9."""
    if a.relative != b.relative:
        return False
    step = max(a.quantum or 0.0, b.quantum or 0.0)
    if step and all(abs(x - y) <= 1.01 * step for x, y in zip(clipped(a.box), clipped(b.box), strict=True)):
        return True
    return a.box == b.box or box_iou(a.box, b.box) >= 0.9


def _merge(rows: list[Row]) -> tuple[Candidate, list[SetAside]]:
    speaker = min(rows, key=lambda row: (_ORIGINS.get(row.sentence_origin, 3), row.file, row.source_key))
    boxed = min(rows, key=lambda row: tuple(_TIERS[box.precision] for box in row.boxes))
    fields: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: _ORIGINS.get(row.sentence_origin, 3) != 1):
        for kind, value in row.fields.items():
            fields.setdefault(kind, value)
    best = replace(
        speaker,
        boxes=boxed.boxes,
        category=speaker.category or next((row.category for row in rows if row.category), ""),
        object_id=speaker.object_id or next((row.object_id for row in rows if row.object_id), None),
        fields=fields,
        mask=speaker.mask or next((row.mask for row in rows if row.mask), None),
        licence=speaker.licence or next((row.licence for row in rows if row.licence), None),
        flagged=all(row.flagged for row in rows),
    )
    others = [row for row in rows if row is not speaker]
    aside = []
    for row in others:
        same_form = (row.file, row.sentence_origin) == (speaker.file, speaker.sentence_origin)
        code = "duplicate_row" if same_form else "merged_form"
        detail = f"same sentence and object as {speaker.file} {speaker.locator}"
        aside.append(SetAside(row.file, row.source_key, row.locator, code, detail))
    merged = tuple(SourceRow(file=row.file, source_key=row.source_key) for row in others)
    return Candidate(best, merged), aside
