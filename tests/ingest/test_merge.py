"""Merging rows of one object gives what comparing every row with every other gave, in seconds where that took hours."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from risbench.formats.source.rows import GivenBox, GivenMask, Row
from risbench.ingest.merge import merge_rows, same_object
from risbench.ingest.sentences import normalise

Rows = list[tuple[str, Row]]


def plain_clusters(rows: Rows) -> list[list[Row]]:
    """The rule itself: a row joins the first cluster of its image, sentence and number of boxes with all of whose rows it agrees."""
    groups: dict[Any, list[list[Row]]] = {}
    clusters: list[list[Row]] = []
    for image, row in rows:
        group = groups.setdefault((image, normalise(row.sentence or ""), len(row.boxes)), [])
        home = next((cluster for cluster in group if all(same_object(row, other) for other in cluster)), None)
        if home is None:
            home = []
            group.append(home)
            clusters.append(home)
        home.append(row)
    return clusters


def made_clusters(rows: Rows) -> list[list[str]]:
    candidates, _ = merge_rows(rows)
    return [sorted([candidate.row.source_key, *(other.source_key for other in candidate.merged)]) for _, candidate in candidates]


def row(number: int, boxes: tuple[GivenBox, ...], **more: Any) -> Row:
    given = {"file": "a.json", "category": "ship", "image": "a.png", "dataset": "", "locator": "", **more}
    return Row(source_key=str(number), boxes=boxes, **given)


coordinate = st.one_of(st.integers(0, 12).map(float), st.sampled_from([0.3, 0.95, 1.02, 9.9, 10.05, 11.0, 0.105, 0.11, -0.02]))
box = st.builds(
    lambda sides, relative, quantum: GivenBox(
        tuple(value / (12 if relative else 1) for value in sides), "exact", relative, quantum=quantum
    ),
    st.tuples(coordinate, coordinate, coordinate, coordinate),
    st.booleans(),
    st.sampled_from([None, None, 0.01, 0.05, 0.001]),
)
mask = st.sampled_from([None, GivenMask(path="m.png"), GivenMask(polygons=((0.0, 0.0, 1.0, 0.0, 1.0, 1.0),))])


@st.composite
def near_rows(draw: Any) -> Rows:
    """Rows that are copies of few boxes, some moved a little, of few files and objects: many agree, many nearly."""
    bases = draw(st.lists(box, min_size=1, max_size=4))
    made = []
    for number in range(draw(st.integers(1, 14))):
        first = draw(st.sampled_from(bases))
        shift = draw(st.sampled_from([0.0, 0.0, 0.004, 0.01, 0.0101, 0.05, 0.3, 0.5, 1.0]))
        moved = GivenBox(
            (first.box[0] + shift, *first.box[1:]), "exact", first.relative, quantum=draw(st.sampled_from([first.quantum, None]))
        )
        boxes = draw(st.sampled_from([(moved,), (moved,), (moved, first), ()]))
        made.append(
            (
                draw(st.sampled_from(["a.png", "a.png", "b.png"])),
                row(
                    number,
                    boxes,
                    file=draw(st.sampled_from(["a.json", "b.json"])),
                    category=draw(st.sampled_from(["ship", "ship", "Ship", "vehicle", ""])),
                    object_id=draw(st.sampled_from([None, None, "1", "2", "3"])),
                    sentence=draw(st.sampled_from([None, "the left ship", "The left ship."])),
                    mask=draw(mask),
                ),
            )
        )
    return made


@settings(max_examples=400, deadline=None)
@given(near_rows())
def test_the_clusters_are_those_of_comparing_every_row_with_every_other(rows: Rows) -> None:
    assert made_clusters(rows) == [sorted(member.source_key for member in cluster) for cluster in plain_clusters(rows)]


@settings(max_examples=300, deadline=None)
@given(st.lists(box, min_size=2, max_size=12))
def test_boxes_of_any_kind_even_turned_about_give_the_same_clusters(boxes: list[GivenBox]) -> None:
    rows = [("a.png", row(number, (one,))) for number, one in enumerate(boxes)]
    assert made_clusters(rows) == [sorted(member.source_key for member in cluster) for cluster in plain_clusters(rows)]


def test_ten_thousand_objects_of_one_image_take_seconds_however_alike_they_are() -> None:
    place = [(float(number % 120) * 4, float(number // 120) * 4) for number in range(10_000)]
    apart = [("a.png", row(number, (GivenBox((x, y, x + 3, y + 3), "exact", False),))) for number, (x, y) in enumerate(place)]
    same = [("a.png", row(number, (GivenBox((1.0, 1.0, 9.0, 9.0), "exact", False),), object_id=str(number))) for number in range(10_000)]
    copies = [("a.png", row(number, (GivenBox((1.0, 1.0, 9.0, 9.0), "exact", False),))) for number in range(10_000)]
    began = time.process_time()
    assert [len(merge_rows(rows)[0]) for rows in (apart, same, copies)] == [10_000, 10_000, 1]
    assert time.process_time() - began < 6
