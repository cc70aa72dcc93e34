"""How doubtful a mask is, between 0 (safe) and 1: the order in which people see masks, and who gets a second opinion."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import cv2
import numpy as np

from risbench.core.mask_scores import CONFLICT
from risbench.core.masks import mask_of
from risbench.core.record import REVIEWED, Mask, Record

# Scores of the engines (docs/record.md): what a good mask has, and from where on nothing more is gained.
_GOOD_IS_HIGH: Final = ("predicted_iou", "stability", "mask_box_agreement", "jitter_agreement", "plain_agreement", "vote_agreement")
# An area that differs from its class's median by this factor is as odd as can be.
_ODD_FACTOR: Final = 8.0
_ENOUGH_OF_A_CLASS: Final = 20
_ALIKE: Final = 0.8
# How much each term says. The first five: a logistic regression on the built-in model's masks of NWPU VHR-10, rounded
# (experiments/risk_order.py); on those boxes `odd_area` and `alike` said nothing. The rest, by judgement. What an engine does
# not report has no say.
WEIGHTS: Final[Mapping[str, float]] = {
    "stability": 1.0,
    "jitter_agreement": 1.0,
    "mask_box_agreement": 0.6,
    "pieces": 0.5,
    "predicted_iou": 0.2,
    "plain_agreement": 0.5,
    "vote_agreement": 1.0,
    "uncertainty": 0.5,
    "prompted_again": 0.5,
    "odd_area": 0.05,
    "alike": 0.02,
    "given": 0.2,
}
# A mask of the source bears no engine's word of how sure it was: half of the doubt that such a word can raise is left.
_GIVEN_DOUBT: Final = 0.5


def risks(records: Sequence[Record]) -> dict[str, float]:
    """Return the risk, 0 to 1, of every record that has a mask; the records are judged among each other.

    A mask that contradicts its given box (problem `mask_box_conflict`) comes before all others.
    """
    terms = risk_terms(records)
    conflicts = {record.id for record in records if _contradicts(record)}
    return {name: 1.0 if name in conflicts else _together(values) for name, values in terms.items()}


def _contradicts(record: Record) -> bool:
    return record.review.status not in REVIEWED and any(problem.code == CONFLICT for problem in record.problems)


def _together(terms: Mapping[str, float]) -> float:
    total = sum(WEIGHTS[name] for name in terms)
    return round(sum(WEIGHTS[name] * value for name, value in terms.items()) / total, 6)


def risk_terms(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return every record's terms, each 0 to 1 where 1 is worst."""
    masked = {record.id: record for record in records if record.mask is not None}
    areas = {name: _pieces_and_area(record) for name, record in masked.items()}
    usual = _usual_areas((record.category.name, areas[name][1]) for name, record in masked.items())
    alike = _alike(masked.values())
    found = {}
    for name, record in masked.items():
        assert record.mask is not None, "chosen above"
        terms = _score_terms(record.mask.scores)
        pieces, area = areas[name]
        terms["pieces"] = 1 - 1 / pieces
        if record.category.name in usual:
            terms["odd_area"] = min(abs(np.log(area / usual[record.category.name])) / np.log(_ODD_FACTOR), 1.0)
        terms["alike"] = float(name in alike)
        if record.mask.engine == "source":
            terms["given"] = _GIVEN_DOUBT
        found[name] = terms
    return found


def _score_terms(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the terms of a mask's own scores."""
    terms = {key: 1 - min(max(value, 0.0), 1.0) for key, value in scores.items() if key in _GOOD_IS_HIGH}
    if "uncertainty" in scores:
        terms["uncertainty"] = min(max(scores["uncertainty"], 0.0), 1.0)
    if "prompted_again" in scores:
        terms["prompted_again"] = min(scores["prompted_again"] / 3, 1.0)
    return terms


def scores_better(new: Mask, old: Mask) -> bool:
    """Return whether a mask is less doubtful than another of the same object, by the scores that both have.

    Two masks can be compared only where both engines say how stable they are: agreement with the box alone is best of the box itself.
    """
    fresh, before = _score_terms(new.scores), _score_terms(old.scores)
    both = fresh.keys() & before.keys()
    return "stability" in both and _together({key: fresh[key] for key in both}) < _together({key: before[key] for key in both})


def _pieces_and_area(record: Record) -> tuple[int, float]:
    """Return of how many pieces and holes the mask is made beyond one per target (at least 1), and its area in pixels."""
    assert record.mask is not None, "the caller chose records with a mask"
    mask = mask_of(record.mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 2, 1.0
    crop = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1).astype(np.uint8)
    parts = cv2.connectedComponents(crop, connectivity=8)[0] - 1
    holes = cv2.connectedComponents(1 - crop, connectivity=4)[0] - 2
    return max(1, parts - len(record.targets) + 1) + max(0, holes), float(np.count_nonzero(mask))


def _usual_areas(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    by_class: dict[str, list[float]] = defaultdict(list)
    for name, area in pairs:
        by_class[name].append(area)
    return {name: float(np.median(areas)) for name, areas in by_class.items() if len(areas) >= _ENOUGH_OF_A_CLASS}


def _alike(records: Iterable[Record]) -> set[str]:
    """Return the records whose sentence says nearly the same as another one's of the same class in the same image."""
    groups: dict[tuple[str, str], list[tuple[str, frozenset[str]]]] = defaultdict(list)
    for record in records:
        words = frozenset(re.findall(r"[a-z0-9]+", record.expression.text.lower())) if record.expression else frozenset()
        groups[record.image.path, record.category.name].append((record.id, words))
    found = set()
    for members in groups.values():
        for index, (name, words) in enumerate(members):
            for other, others in members[:index]:
                if len(words & others) >= _ALIKE * max(1, len(words | others)):
                    found |= {name, other}
    return found
