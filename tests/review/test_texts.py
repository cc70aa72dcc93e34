"""What the review's commands print: right counts, right words, and nothing that is not so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risbench.cli.text_review import print_pull, print_status, print_triage
from risbench.core.record import Expression, Mask, Record
from risbench.review.labelstudio.accounts import pause_annotator
from risbench.review.labelstudio.page import AUDIT, PAGES, VERIFY, is_earlier_page, page_config
from risbench.review.rules.plan import Item, Policy
from risbench.review.store.answers import read_annotation
from risbench.review.store.review_store import Annotator, ReviewStore
from risbench.review.verbs.adjudicate import _said
from risbench.review.verbs.consensus import _decided, decide
from risbench.review.verbs.push import _newly_withdrawn, _warnings
from risbench.review.verbs.status import status
from tests.review.test_consensus import ROUND, answer
from tests.review.test_damaged_desk import whole as whole
from tests.review.test_pull_faults import annotation

GOLD = Item("g", "r1", "m", "ana", "gold", 1, 0.5)
TASK = Item("t", "r2", "m", "ana", "task", 1, 0.5)


def test_an_item_that_goes_out_again_is_not_one_withdrawn_less() -> None:
    gone, back = replace(TASK, key="b", withdrawn=True), replace(TASK, key="b")
    assert _newly_withdrawn([TASK, gone], [TASK, back]) == 0
    assert _newly_withdrawn([TASK, back], [replace(TASK, withdrawn=True), back]) == 1


def test_no_gold_says_whether_an_answer_is_known(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from risbench.core.workspace import Workspace

    desk = ReviewStore(Workspace.open(whole))
    monkeypatch.setattr("risbench.review.verbs.push.quarantine_rows", lambda desk: [])
    said = {known: _warnings(desk, [TASK], ["ana", "ben"], Policy(overlap=0), known, 0) for known in (0, 3)}
    assert said[0] == ["no gold: no answer is known yet (an expert's, of three who agree, or the source's own with --trust-source)"]
    assert said[3][0].startswith("no gold yet: 3 answers are known, but 3.0% of a person's tasks is under one")
    assert _warnings(desk, [TASK, GOLD], ["ana", "ben"], Policy(overlap=0), 3, 0) == []


def test_a_sentence_without_a_verdict_is_not_judged_anywhere() -> None:
    read = read_annotation(annotation(), np.pad(np.ones((16, 16), bool), 8))
    assert (read["verdict"], read["sentence"]) == ("accept", "")
    silent = [answer("a", ROUND, sentence=""), answer("b", ROUND, sentence="")]
    decision = decide(silent)
    assert (decision.status, decision.sentence, decision.better) == ("accepted", "", "")
    size, counts = decision.size, decision.counts
    assert size is not None
    assert counts is not None
    record = Record.model_construct(
        mask=Mask(size=size, counts=counts, engine="e", round=1), expression=Expression(text="It.", origin="x"), problems=()
    )
    kept = _decided(record, decision, {"accept": 2}, ("a-1",), 1).expression
    assert kept is not None
    assert (kept.is_true, kept.is_unique) == (None, None)
    assert _said(silent, [2]) == "masks: A by 2. verdicts: accept 2. sentence: not judged 2."
    # a better sentence that somebody writes without a verdict is not dropped
    better = decide([answer("a", ROUND, sentence="", better="The pier.")])
    assert (better.sentence, better.better) == ("", "The pier.")
    reworded = _decided(record, better, {"accept": 1}, ("a-1",), 1).expression
    assert reworded is not None
    assert (reworded.text, reworded.origin, reworded.is_true) == ("The pier.", "review", True)


def test_status_says_when_it_was_pulled_what_is_not_judged_and_who_is_an_expert(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = status(workspace=whole)
    assert found["sentences"]["not judged"] > 0
    assert found["pulled"] is not None
    assert 0 < found["annotators"]["ana"]["share_judged"] < 1
    print_status({**found, "pulled": (datetime.now(UTC) - timedelta(minutes=61)).strftime("%Y-%m-%dT%H:%M:%SZ")})
    text = capsys.readouterr().out
    assert "last pulled 61 minutes ago (20" in text
    assert "not judged" in text
    [row] = [line for line in text.splitlines() if line.strip().startswith("eva") and "expert" in line]
    assert "paused" not in row
    print_status({**found, "pulled": None})
    assert "never pulled: run `risbench review pull`" in capsys.readouterr().out


def test_an_expert_who_gets_tasks_is_none_any_more(whole: Path, tmp_path: Path) -> None:
    import shutil

    from risbench.core.workspace import Workspace

    shutil.copytree(whole, tmp_path / "w")
    desk = ReviewStore(Workspace.open(tmp_path / "w"))
    assert desk.annotator("eva").gets_no_work.startswith("annotator eva: is an expert, whom only `risbench review adjudicate` gives work")
    pause_annotator("eva", workspace=tmp_path / "w", paused=False)
    assert (desk.annotator("eva").is_expert, desk.annotator("eva").gets_no_work) == (False, "")
    pause_annotator("eva", workspace=tmp_path / "w")
    assert desk.annotator("eva").gets_no_work.startswith("annotator eva: is paused")
    old = Annotator("zoe", "z@x", None, 5, None, True)  # of a list without the word: only a project to decide in
    assert old.is_expert


def test_one_is_not_in_the_plural(capsys: pytest.CaptureFixture[str]) -> None:
    print_triage({"masks": 1, "sheets": 1, "url": "u"})
    counts: dict[str, Any] = dict.fromkeys(("new", "quarantined", "not_ours", "answers"), 1)
    print_pull({**counts, "changed": 0, "deleted": 0, "unchanged": 0, "by_annotator": {}, "quarantine": "q", "warnings": []})
    text = capsys.readouterr().out
    assert "1 mask on 1 sheet: u" in text
    assert "1 answer: 1 new" in text
    assert "1 annotation that cannot be used; see q" in text
    assert '=== 1 ? " sheet left" : " sheets left"' in (PAGES / "triage.html").read_text()


def test_a_page_of_an_earlier_version_is_known_and_one_that_people_changed_is_not() -> None:
    for page in (VERIFY, AUDIT):
        today = page_config(page)
        start, end = today.index("    .risbench .picture"), today.index("    .risbench .said")
        before = (
            "    .risbench .picture { flex: 0 0 auto; width: min(86vh, 660px); }\n"
            "    .risbench .side { flex: 1 1 0; min-width: 260px; max-width: 400px; }\n"
        )
        earlier = today[:start] + before + today[end:]
        assert is_earlier_page(earlier)
        assert is_earlier_page(earlier.replace("\n", "\r\n"))
        assert not is_earlier_page(today)
        assert not is_earlier_page(earlier.replace("accept", "agree").replace("drawn", "done"))


def test_every_page_shows_the_picture_through_the_mask() -> None:
    for name in ("verify.xml", "adjudicate.xml", "audit.xml"):
        assert ".konvajs-content canvas[style*='opacity'] { opacity: .35 !important; }" in (PAGES / name).read_text()
    assert "**Ctrl+H** hides mask and box" in (PAGES / "guidelines.md").read_text()
