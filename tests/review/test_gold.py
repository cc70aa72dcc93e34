"""Which answers are known, masks that are wrong on purpose, and how doubtful a mask is."""

from __future__ import annotations

import numpy as np
import pytest

from risbench.core.masks import encode_rle
from risbench.core.metrics import mask_iou
from risbench.core.record import Category, Expression, ImageRef, Mask, Placement, Record, Review, Source, Target
from risbench.core.risk import WEIGHTS, risk_terms, risks
from risbench.review.rules.gold import CORRUPTED_IOU, corrupt, known_answer

GOOD = {"stability": 0.95, "jitter_agreement": 0.95, "mask_box_agreement": 0.95, "predicted_iou": 0.95}


def block(rows: tuple[int, int], columns: tuple[int, int], side: int = 512) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask


def plain_record(name: str = "r") -> Record:
    return Record(
        id=name,
        source=Source(dataset="test", file="test.json", source_key=name),
        image=ImageRef(path=f"images/{name}.png", width=512, height=512, sha256="0", source_path="p", scene="s", perceptual_hash="0" * 16),
        placement=Placement(fit="keep", source_width=512, source_height=512, affine=(1, 0, 0, 0, 1, 0)),
        category=Category(name="ship", source_name="ship"),
        expression=Expression(text=f"The ship {name}.", origin="source"),
        targets=(Target(box=(10, 10, 60, 60), box_given=(10, 10, 60, 60), box_precision="exact"),),
    )


def masked(record: Record, mask: np.ndarray, scores: dict[str, float], **more: object) -> Record:
    size, counts = encode_rle(mask)
    return record.model_copy(update={"mask": Mask(size=size, counts=counts, engine="builtin", round=1, scores=scores), **more})


def test_only_experts_three_who_agree_and_a_trusted_source_are_known() -> None:
    record = masked(plain_record(), block((10, 60), (10, 60)), GOOD)
    given = masked(plain_record(), block((10, 60), (10, 60)), {})
    assert given.mask is not None
    given = given.model_copy(update={"mask": given.mask.model_copy(update={"engine": "source"})})
    for status, people, known in (
        ("unreviewed", 0, False), ("triaged", 1, False), ("accepted", 1, False), ("corrected", 1, False), ("rejected", 3, False),
        ("consensus", 2, False), ("consensus", 3, True), ("adjudicated", 1, True),
    ):  # fmt: skip
        review = Review(status=status, reviewers=tuple(f"r{index}" for index in range(people)))  # type: ignore[arg-type]
        assert known_answer(record.model_copy(update={"review": review})) is known, status
    assert not known_answer(given)
    assert known_answer(given, trust_source=True)
    assert given.expression is not None
    untrue = given.expression.model_copy(update={"is_true": False})
    assert not known_answer(given.model_copy(update={"expression": untrue}), trust_source=True)


@pytest.mark.parametrize("side_px", [8, 20, 80, 300])
def test_a_spoilt_mask_is_plainly_wrong_and_the_same_every_time(side_px: int) -> None:
    mask = block((100, 100 + side_px), (90, 90 + side_px))
    seen = set()
    for name in map(str, range(20)):
        wrong = corrupt(mask, name)
        assert wrong is not None
        assert CORRUPTED_IOU[0] <= mask_iou(wrong, mask) <= CORRUPTED_IOU[1]
        assert np.array_equal(wrong, corrupt(mask, name))
        seen.add(wrong.tobytes())
    assert len(seen) > 5
    assert corrupt(block((0, 5), (0, 5)), "small") is None


def test_what_engines_doubt_in_pieces_or_odd_is_riskier() -> None:
    whole = block((10, 60), (10, 60))
    split = whole.copy()
    split[30:40] = False
    plain = [masked(plain_record(f"plain{index}"), whole, GOOD) for index in range(25)]
    odd = {
        "unstable": masked(plain_record("unstable"), whole, {**GOOD, "stability": 0.4}),
        "jittery": masked(plain_record("jittery"), whole, {**GOOD, "jitter_agreement": 0.4}),
        "off the box": masked(plain_record("off the box"), whole, {**GOOD, "mask_box_agreement": 0.2}),
        "in pieces": masked(plain_record("in pieces"), split, GOOD),
        "huge": masked(plain_record("huge"), block((0, 400), (0, 400)), GOOD),
    }
    found = risks([*plain, *odd.values()])
    assert all(0 <= value <= 1 for value in found.values())
    assert all(found[name] > found["plain0"] for name in odd)
    assert found == risks([*reversed(plain), *odd.values()])
    terms = risk_terms([*plain, *odd.values()])
    assert {name for values in terms.values() for name in values} <= WEIGHTS.keys()
    assert risks([plain_record()]) == {}
