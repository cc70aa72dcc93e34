from __future__ import annotations

import pytest

from risbench.core.record import Mask
from risbench.core.risk import scores_better


def mask(**scores: float) -> Mask:
    return Mask(size=(1, 1), counts="01", engine="e", round=1, scores=scores)


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        ({"stability": 0.9, "jitter_agreement": 0.9}, {"stability": 0.8, "jitter_agreement": 0.9}, True),
        ({"stability": 0.8, "jitter_agreement": 0.9}, {"stability": 0.9, "jitter_agreement": 0.9}, False),
        ({"stability": 0.9}, {"stability": 0.9}, False),  # no better is no reason to look again
        ({"stability": 0.9, "predicted_iou": 0.1}, {"stability": 0.8, "vote_agreement": 0.99}, True),  # by what both say
        ({"stability": 0.9, "uncertainty": 0.9}, {"stability": 0.9, "uncertainty": 0.1}, False),
        ({"mask_box_agreement": 1.0, "jitter_agreement": 1.0}, {"stability": 0.2, "mask_box_agreement": 0.1}, False),  # a box fills its box
        ({"stability": 1.0}, {}, False),
        ({}, {}, False),
    ],
)
def test_a_mask_scores_better_by_the_scores_that_both_have(new: dict[str, float], old: dict[str, float], better: bool) -> None:
    assert scores_better(mask(**new), mask(**old)) is better
