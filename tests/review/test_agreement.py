from __future__ import annotations

from itertools import permutations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from risbench.core.metrics import mask_iou
from risbench.review.rules.agreement import agreement_wanted, kappa, mask_agreement, nominal_alpha, pixel_alpha, verdict_alpha
from risbench.review.rules.staple import majority, staple

Mask = NDArray[np.bool_]


def disc(x: float, y: float, radius: float, side: int = 64) -> Mask:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def noisy(truth: Mask, sensitivity: float, specificity: float, seed: int) -> Mask:
    random = np.random.default_rng(seed).random(truth.shape)
    return np.where(truth, random < sensitivity, random >= specificity)


def test_krippendorffs_own_example_of_nominal_data() -> None:
    """Krippendorff, Computing Krippendorff's alpha reliability (2011), C: four observers, missing values, alpha = .743."""
    a, b = [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3]
    c, d = [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]
    counts = np.array([[sum(row == value for row in unit) for value in range(1, 6)] for unit in zip(a, b, c, d, strict=True)])
    assert nominal_alpha(counts) == pytest.approx(0.743, abs=5e-4)


def test_cohens_own_kind_of_example() -> None:
    """Two people, 50 items, 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed .7, by chance .5, kappa .4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(first, second) == pytest.approx(0.4)
    assert kappa(["yes"] * 4, ["yes"] * 4) is None
    assert kappa([], []) is None


def test_agreement_of_the_same_and_of_strangers() -> None:
    one, other = disc(20, 20, 10), disc(45, 45, 8)
    same, strangers = mask_agreement([one, one, one]), mask_agreement([one, other])
    assert (same.iou, same.boundary_iou, same.alpha) == (1.0, 1.0, 1.0)
    assert strangers.iou == 0
    assert strangers.alpha < 0
    assert mask_agreement([one & False, one & False]).iou == 1.0
    assert pixel_alpha([one, noisy(one, 0.5, 0.5, 1)]) < 0.35
    assert verdict_alpha([{"accept": 2}, {"accept": 2}, {"fix": 2}]) == 1.0
    assert verdict_alpha([{"accept": 1, "fix": 1}] * 4) < 0


def test_small_objects_need_agree_less() -> None:
    wanted = [agreement_wanted(side**2) for side in (1, 8, 16, 24, 40, 400)]
    assert wanted == sorted(wanted)
    assert wanted[0] == 0.5
    assert wanted[-1] == 0.85
    for side in (16, 24):  # a square drawn a pixel smaller all around is just good enough
        square = np.zeros((64, 64), bool)
        square[5 : 5 + side, 5 : 5 + side] = True
        smaller = cv2.erode(square.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        assert mask_iou(square, smaller) >= agreement_wanted(side**2) - 1e-9


def test_staple_finds_the_truth_and_who_is_good_at_it() -> None:
    truth = disc(32, 32, 14)
    skills = [(0.97, 0.99), (0.95, 0.98), (0.9, 0.97), (0.6, 0.85)]
    masks = [noisy(truth, *skill, seed) for seed, skill in enumerate(skills)]
    found = staple(masks)
    assert mask_iou(found.mask, truth) > mask_iou(majority(masks), truth)
    assert mask_iou(found.mask, truth) > 0.95
    assert found.sensitivity == pytest.approx([skill[0] for skill in skills], abs=0.05)
    assert found.specificity == pytest.approx([skill[1] for skill in skills], abs=0.05)


def test_staple_agrees_with_simpleitk() -> None:
    sitk = pytest.importorskip("SimpleITK", reason="the peer is not installed")
    truth = disc(24, 24, 16, 48)
    masks = [noisy(truth, 0.9, 0.9, 1), noisy(truth, 0.85, 0.95, 2), noisy(truth, 0.7, 0.8, 3)]
    for mask in masks:  # its window is then the whole image in both
        mask[0, 0] = mask[-1, -1] = True
    peer = sitk.STAPLEImageFilter()
    peer.SetForegroundValue(1.0)
    theirs = sitk.GetArrayFromImage(peer.Execute([sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]))
    ours = staple(masks)
    assert np.abs(ours.probability - theirs).max() < 0.01
    assert ours.sensitivity == pytest.approx(peer.GetSensitivity(), abs=0.01)
    assert ours.specificity == pytest.approx(peer.GetSpecificity(), abs=0.01)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=4, unique=True))
def test_the_order_of_annotators_changes_no_bit(seeds: list[int]) -> None:
    masks = [noisy(disc(20, 20, 9, 40), 0.9, 0.95, seed) for seed in seeds]
    first = staple(masks)
    for order in permutations(range(len(masks))):
        turned = [masks[index] for index in order]
        again = staple(turned)
        assert again.probability.tobytes() == first.probability.tobytes()
        assert again.sensitivity == tuple(first.sensitivity[index] for index in order)
        assert mask_agreement(turned) == mask_agreement(masks)
        assert np.array_equal(majority(turned), majority(masks))


def test_masks_of_nothing_and_of_everything() -> None:
    empty, full = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    assert not staple([empty, empty]).mask.any()
    assert staple([full, full, full]).mask.all()
    assert staple([full]).mask.all()
    assert np.isfinite(staple([empty, full, empty]).probability).all()
    with pytest.raises(ValueError, match="two or more masks"):
        mask_agreement([full])
