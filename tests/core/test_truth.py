"""One rule matches boxes with true objects, and all three callers use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from risbench.core.truth import MARGIN, MIN_IOU, NO_OVERLAP, SAME_OBJECT, TWO_OVERLAP, match_box, match_boxes

Box = tuple[float, float, float, float]
PACKAGE = Path(__file__).parents[2] / "risbench"


def shifted(share: float) -> Box:
    """Return the box (0, 0, 100, 100) moved aside so that it has the IoU `share` with it."""
    left = 100 * (1 - share) / (1 + share)
    return (left, 0, left + 100, 100)


@pytest.mark.parametrize(
    ("overlaps", "expected"),
    [((0.9,), 0), ((0.31,), 0), ((0.29,), NO_OVERLAP), ((), NO_OVERLAP), ((0.8, 0.65), 0), ((0.65, 0.8), 1), ((0.8, 0.75), TWO_OVERLAP), ((0.25, 0.24), NO_OVERLAP)],
)  # fmt: skip
def test_a_box_means_the_object_it_overlaps_enough_and_clearly_more_than_the_next(overlaps: tuple[float, ...], expected: object) -> None:
    match = match_box((0, 0, 100, 100), [(key, shifted(share)) for key, share in enumerate(overlaps)])
    assert (match.key if isinstance(expected, int) else match.reason) == expected
    assert (match.key is None) == bool(match.reason)
    assert [overlap for _, overlap in match.best] == pytest.approx(sorted(overlaps, reverse=True)[:2])


def test_the_order_of_the_objects_decides_nothing() -> None:
    objects = [("a", shifted(0.5)), (3, shifted(0.9)), ("b", shifted(0.4))]
    assert match_box((0, 0, 100, 100), objects) == match_box((0, 0, 100, 100), objects[::-1])


def test_two_targets_of_one_record_never_mean_the_same_object() -> None:
    found = match_boxes([shifted(0.9), shifted(0.8), (500, 0, 600, 100)], [("only", (0, 0, 100, 100)), ("other", (500, 0, 600, 100))])
    assert [match.reason for match in found] == [SAME_OBJECT, SAME_OBJECT, ""]
    assert found[2].key == "other"


def test_nobody_else_matches_boxes_by_a_rule_of_their_own() -> None:
    assert (MIN_IOU, MARGIN) == (0.3, 0.1)
    callers = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "core.truth import" in path.read_text()}
    assert callers == {"formats/truth.py", "inspect/audit.py", "adapt/link_isaid.py"}
    for name in ("inspect/audit.py", "adapt/link_isaid.py", "formats/truth.py"):
        assert "box_iou" not in (PACKAGE / name).read_text(), name
    assert "truth.matches(record)" in (PACKAGE / "adapt/adapter_data.py").read_text()
