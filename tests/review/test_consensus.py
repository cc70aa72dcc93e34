from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from risbench.core.masks import decode_rle, encode_rle
from risbench.core.metrics import mask_iou
from risbench.review.store.answers import Answer
from risbench.review.verbs.consensus import decide

Mask = NDArray[np.bool_]


def disc(x: float, y: float, radius: float, side: int = 96) -> Mask:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def answer(who: str, mask: Mask | None, verdict: str = "accept", **more: object) -> Answer:
    size, counts = encode_rle(mask) if mask is not None else (None, None)
    base = Answer(f"key-{who}", "r", who, 1, 1, "2026", verdict, "true and unique", "", size, counts, verdict == "fix", 5.0)  # type: ignore[arg-type]
    return replace(base, **more)  # type: ignore[arg-type]


ROUND = disc(40, 40, 20)


def test_one_answer_decides_by_itself() -> None:
    assert decide([answer("a", ROUND)]).status == "accepted"
    assert decide([answer("a", disc(40, 40, 22), "fix")]).status == "corrected"
    assert decide([answer("a", None, "reject")]).status == "rejected"
    nothing = decide([])
    assert (nothing.status, nothing.why, nothing.waits) == ("unreviewed", None, False)


def test_an_opinion_that_is_out_is_waited_for() -> None:
    waiting = decide([answer("a", ROUND)], opinions_to_come=1)
    assert (waiting.status, waiting.waits) == ("unreviewed", True)


def test_unsure_waits_for_two_more_and_then_goes_to_the_expert() -> None:
    unsure = answer("a", ROUND, "unsure")
    assert decide([unsure], opinions_to_come=2).waits
    assert decide([unsure, answer("b", ROUND)], opinions_to_come=1).waits
    done = decide([unsure, answer("b", ROUND), answer("c", ROUND)])
    assert (done.why, done.waits, done.status) == ("unsure", False, "unreviewed")
    assert decide([unsure]).why == "unsure"  # nobody else to ask


def test_masks_that_agree_become_one_and_those_that_do_not_go_to_the_expert() -> None:
    near = decide([answer("a", ROUND), answer("b", disc(41, 40, 20), "fix"), answer("c", disc(40, 41, 20), "fix")])
    assert near.status == "consensus"
    assert near.agreement is not None
    assert near.agreement > 0.9
    assert near.size is not None
    assert mask_iou(decode_rle(near.size, near.counts or ""), ROUND) > 0.93
    far = decide([answer("a", ROUND), answer("b", disc(52, 40, 20), "fix")])
    assert (far.why, far.counts) == ("masks differ", None)


def test_what_would_do_for_a_small_object_does_not_for_a_large_one() -> None:
    small = [answer("a", disc(20, 20, 5)), answer("b", disc(21, 20, 5), "fix")]
    large = [answer("a", disc(48, 48, 40)), answer("b", disc(56, 48, 40), "fix")]
    ious = [mask_iou(*(one.mask() for one in pair)) for pair in (small, large)]  # type: ignore[arg-type]
    assert abs(ious[0] - ious[1]) < 0.05
    assert decide(small).status == "consensus"
    assert decide(large).why == "masks differ"


def test_verdicts_and_sentences_go_by_majority_or_to_the_expert() -> None:
    yes, no = answer("a", ROUND), answer("b", None, "reject")
    assert decide([yes, no]).why == "verdicts differ"
    assert decide([no, answer("c", None, "reject"), yes]).status == "rejected"
    ambiguous = {"sentence": "ambiguous"}
    assert decide([yes, answer("b", ROUND, **ambiguous)]).why == "sentences differ"
    agreed = decide([yes, answer("b", ROUND, **ambiguous), answer("c", ROUND, better="The left one.", **ambiguous)])
    assert (agreed.sentence, agreed.better) == ("ambiguous", "The left one.")


def test_an_experts_word_ends_everything() -> None:
    differ = [answer("a", ROUND), answer("b", None, "reject")]
    final = decide(differ, answer("x", disc(44, 40, 20), "fix", sentence="wrong"))
    assert (final.status, final.sentence, final.why) == ("adjudicated", "wrong", None)
    assert decide(differ, answer("x", None, "reject")).status == "rejected"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["accept", "fix", "reject", "unsure"]),
            st.sampled_from([(40, 40, 20), (41, 40, 20), (42, 41, 19), (60, 50, 20), (40, 40, 21)]),
            st.sampled_from(["true and unique", "ambiguous", "wrong"]),
            st.sampled_from(["", "One.", "Two."]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_order_of_answers_never_changes_a_bit(rows: list[tuple[str, tuple[int, int, int], str, str]]) -> None:
    answers = [
        answer(f"p{index}", None if verdict == "reject" else disc(*circle), verdict, sentence=sentence, better=better)
        for index, (verdict, circle, sentence, better) in enumerate(rows)
    ]
    decisions = {repr(decide(list(order))) for order in permutations(answers)}
    assert len(decisions) == 1


def test_no_empty_mask_is_ever_a_decision() -> None:
    for masks in ([disc(10, 10, 3), disc(80, 80, 3)], [disc(10, 10, 1), disc(12, 10, 1), disc(80, 80, 1)]):
        found = decide([answer(str(index), mask, "fix") for index, mask in enumerate(masks)])
        assert found.counts is None or decode_rle(found.size, found.counts).any()  # type: ignore[arg-type]
        assert found.why == "masks differ"


def test_a_sentence_that_people_judged_differently_needs_the_experts_word() -> None:
    differ = [answer("a", ROUND), answer("b", ROUND, sentence="wrong")]
    assert decide(differ).why == "sentences differ"
    blank = decide(differ, answer("x", ROUND, "fix", sentence=""))
    assert (blank.status, blank.why) == ("unreviewed", "sentences differ")
    assert decide(differ, answer("x", ROUND, "fix", sentence="wrong")).sentence == "wrong"


def test_who_says_nothing_of_the_sentence_has_no_vote_on_it() -> None:
    silent = [answer("a", None, "reject", sentence=""), answer("b", None, "reject", sentence="")]
    assert decide([*silent, answer("c", ROUND, sentence="wrong")]).sentence == "wrong"
    assert decide(silent).sentence == ""


def test_an_expert_who_says_nothing_of_the_sentence_leaves_it_to_the_others() -> None:
    wrong = {"sentence": "wrong", "better": "The red one."}
    differ = [answer("a", ROUND, **wrong), answer("b", disc(60, 40, 20), "fix", **wrong)]
    final = decide(differ, answer("x", ROUND, "fix", sentence=""))
    assert (final.status, final.sentence, final.better) == ("adjudicated", "wrong", "The red one.")


def test_a_rewording_counts_only_from_those_whose_verdict_won() -> None:
    most = decide([answer("a", ROUND), answer("b", ROUND), answer("c", ROUND, sentence="ambiguous", better="The left one.")])
    assert (most.sentence, most.better) == ("true and unique", "")
