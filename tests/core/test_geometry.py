from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risbench.core.errors import InvalidRowError
from risbench.core.geometry import (
    apply_affine,
    box_iou,
    box_mask,
    invert_affine,
    is_oriented,
    mask_bounds,
    polygon_mask,
    quad_from_flat,
    repair_box,
)

edges = st.floats(-400, 900, allow_nan=False)


@given(edges, edges, edges, edges, st.sampled_from([None, 0.01]))
def test_repairing_a_repaired_box_changes_nothing(a: float, b: float, c: float, d: float, quantum: float | None) -> None:
    try:
        box, _ = repair_box((a, b, c, d), 512, 300, quantum)
    except InvalidRowError:
        return
    again, repairs = repair_box(box, 512, 300, quantum)
    assert again == box
    assert repairs == ()
    assert 0 <= box[0] < box[2] <= 512
    assert 0 <= box[1] < box[3] <= 300


@pytest.mark.parametrize(
    ("box", "quantum", "expected", "rules"),
    [
        ((10, 10, 30, 40), None, (10, 10, 30, 40), []),
        ((30, 40, 10, 10), None, (10, 10, 30, 40), ["swapped"]),
        ((-20, 10, 30, 40), None, (0, 10, 30, 40), ["out_of_range"]),
        ((-20, -20, 120, 130), None, (0, 0, 100, 100), ["larger_than_image", "larger_than_image"]),
        ((50, 10, 50, 40), 0.01, (49.5, 10, 50.5, 40), ["no_area"]),
    ],
)
def test_each_repair_has_its_name(box: tuple, quantum: float | None, expected: tuple, rules: list[str]) -> None:
    repaired, repairs = repair_box(box, 100, 100, quantum)
    assert repaired == pytest.approx(expected)
    assert [repair.rule for repair in repairs] == rules


def test_a_box_without_area_is_refused_where_nothing_was_rounded() -> None:
    with pytest.raises(InvalidRowError, match="no_area: box = .* x side is 0 px"):
        repair_box((50, 10, 50, 40), 100, 100, None)


def test_a_box_beside_the_image_is_refused_with_the_bound() -> None:
    with pytest.raises(InvalidRowError, match="outside_image: .*100 x 100"):
        repair_box((150, 10, 170, 40), 100, 100, 0.01)


def test_polygon_and_box_agree_on_pixels() -> None:
    quad = quad_from_flat([10, 20, 40, 20, 40, 60, 10, 60])
    assert not is_oriented(quad)
    assert (polygon_mask(quad, 100, 100) == box_mask((10, 20, 40, 60), 100, 100)).all()
    assert box_mask((10, 20, 40, 60), 100, 100).sum() == 30 * 40
    assert mask_bounds(box_mask((10, 20, 40, 60), 100, 100)) == (10, 20, 40, 60)


def _is_inside(polygon: np.ndarray, x: float, y: float) -> bool:
    """Return whether a ray to the left crosses an odd number of edges."""
    crossed = 0
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (ay <= y) != (by <= y) and ax + (y - ay) * (bx - ax) / (by - ay) <= x:
            crossed += 1
    return crossed % 2 == 1


def test_a_turned_square_has_the_area_of_its_polygon() -> None:
    quad = quad_from_flat([50, 10, 90, 50, 50, 90, 10, 50])
    assert is_oriented(quad)
    assert polygon_mask(quad, 100, 100).sum() == pytest.approx(3200, rel=0.001)
    random = np.random.default_rng(0)
    for _ in range(20):
        bent = random.uniform(-20, 84, (int(random.integers(3, 9)), 2))
        inside = [[_is_inside(bent, x + 0.5, y + 0.5) for x in range(64)] for y in range(64)]
        assert (polygon_mask(bent, 64, 64) == np.array(inside)).all()


def test_a_box_thinner_than_a_pixel_still_covers_one() -> None:
    assert box_mask((10.1, 10.1, 10.2, 10.2), 50, 50).sum() == 1


@given(st.floats(0.2, 5), st.floats(-1, 1), st.floats(-50, 50), st.floats(-20, 20))
def test_an_affine_map_and_its_inverse_cancel(scale: float, shear: float, shift: float, x: float) -> None:
    affine = (scale, shear, shift, -shear, scale, 3.0)
    assert apply_affine(invert_affine(affine), *apply_affine(affine, x, 7.0)) == pytest.approx((x, 7.0), abs=1e-6)


def test_iou_of_boxes() -> None:
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (20, 0, 30, 10)) == 0
    assert np.isclose(box_iou((0, 0, 1, 1), (0, 0, 1, 1)), 1)
