"""One rule of what may be released; its callers ask nothing else."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from risbench.core.record import REVIEWED, TRIAGED, UNDECIDED, Expression, Record, Review, ReviewStatus
from risbench.core.releasable import blocking_problem, may_be_reviewed, reason_to_withhold
from tests.record import a_record

PACKAGE = Path(__file__).parents[2] / "risbench"


def with_status(status: ReviewStatus) -> Record:
    return a_record().model_copy(update={"review": Review(status=status)})


def test_every_status_is_reviewed_undecided_or_rejected() -> None:
    assert {*REVIEWED, *UNDECIDED, "rejected"} == set(get_args(ReviewStatus))
    assert TRIAGED in UNDECIDED


@pytest.mark.parametrize("status", get_args(ReviewStatus))
def test_what_a_status_allows(status: ReviewStatus) -> None:
    record = with_status(status)
    expected = {
        "rejected": ("rejected",) * 3,
        "unreviewed": ("unreviewed", "unreviewed", None),
        "triaged": (None, "triaged_outside_train", None),
    }
    found = (
        reason_to_withhold(record, split="train"),
        reason_to_withhold(record, split="val"),
        reason_to_withhold(record, split="test", include_unreviewed=True),
    )
    assert found == expected.get(status, (None, None, None))
    assert reason_to_withhold(record) == found[0], "without a split the kindest one counts"


def test_a_mask_that_contradicts_its_box_is_released_only_when_a_person_reviewed_it() -> None:
    for status in get_args(ReviewStatus):
        record = with_status(status).with_problem("ingest", "mask_box_conflict", "IoU .1")
        assert may_be_reviewed(record)
        wanted = None if status in REVIEWED else "mask_box_conflict"
        assert reason_to_withhold(record, include_unreviewed=True) == wanted


def test_no_review_settles_another_problem() -> None:
    record = with_status("accepted").with_problem("ingest", "mask_box_conflict", "").with_problem("refine", "empty_mask", "")
    assert reason_to_withhold(record) == "empty_mask"
    assert not may_be_reviewed(record)
    problem = blocking_problem(record)
    assert problem is not None
    assert problem.stage == "refine"


def test_without_mask_sentence_or_with_a_refused_one_nothing_is_released() -> None:
    record = with_status("accepted")
    told = Expression(text="it", origin="x", is_true=False)
    assert reason_to_withhold(record.model_copy(update={"mask": None})) == "no_mask"
    assert reason_to_withhold(record.model_copy(update={"expression": None})) == "no_expression"
    assert reason_to_withhold(record.model_copy(update={"expression": told})) == "sentence_refused_in_review"
    assert not may_be_reviewed(record.model_copy(update={"expression": None}))


def test_no_other_module_writes_the_statuses_out() -> None:
    """Two lists of statuses are two rules: what is released and what is audited would part ways."""

    def lists(path: Path) -> bool:
        trees = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Tuple | ast.Set | ast.List))
        texts = ({part.value for part in node.elts if isinstance(part, ast.Constant)} for node in trees)
        return any(len(found & {*UNDECIDED, *REVIEWED}) > 1 for found in texts)

    assert [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "record.py" and lists(path)] == []
