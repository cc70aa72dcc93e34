"""The one rule of which records may be released; export, the audit sample and the review's queue all ask it."""

from __future__ import annotations

from typing import Final

from risbench.core.mask_scores import CONFLICT
from risbench.core.record import REVIEWED, TRIAGED, Problem, Record, Split

# Problems that say "this mask is doubtful": a person who looks at the mask settles them. Any other stays until its cause is gone.
SETTLED_BY_REVIEW: Final[frozenset[str]] = frozenset({CONFLICT})


def blocking_problem(record: Record) -> Problem | None:
    """Return the first problem for which the record may not be released, None where there is none.

    A problem of `SETTLED_BY_REVIEW` blocks until a person has reviewed the mask; a mask that only passed on a triage sheet is not reviewed.
    """
    settled = SETTLED_BY_REVIEW if record.review.status in REVIEWED else frozenset[str]()
    return next((problem for problem in record.problems if problem.code not in settled), None)


def may_be_reviewed(record: Record) -> bool:
    """Return whether people can be shown the record: it has a mask and a sentence, and no problem that a review would not settle."""
    return (
        record.mask is not None and record.expression is not None and all(problem.code in SETTLED_BY_REVIEW for problem in record.problems)
    )


def reason_to_withhold(record: Record, *, split: Split | None = None, include_unreviewed: bool = False) -> str | None:
    """Return the code for which the record may not be released, None where it may.

    `split` is the split that it would be released in, None where that is not known yet. Of validation and test every mask is verified by
    itself, so one that only passed on a triage sheet is released in train alone. `include_unreviewed` also lets masks pass that no
    person has looked at.
    """
    problem = blocking_problem(record)
    if problem is not None:
        return problem.code
    if record.mask is None:
        return "no_mask"
    if record.review.status == "rejected":
        return "rejected"
    if record.expression is None:
        return "no_expression"
    if record.expression.is_true is False or record.expression.is_unique is False:
        return "sentence_refused_in_review"
    if include_unreviewed or record.review.status in REVIEWED:
        return None
    if record.review.status != TRIAGED:
        return "unreviewed"
    return "triaged_outside_train" if split not in (None, "train") else None
