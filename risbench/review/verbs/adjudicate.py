"""`risbench review adjudicate`: what the answers leave open goes before an expert, with everyone's mask over the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from risbench.core.masks import mask_of
from risbench.core.progress import Progress
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records
from risbench.formats.brush import encode_brush
from risbench.review.labelstudio.page import ADJUDICATE, task_of
from risbench.review.labelstudio.projects import Pusher, ensure_project
from risbench.review.labelstudio.studio import Studio
from risbench.review.rules.plan import Item, make_key
from risbench.review.store.answers import CANDIDATES, NOT_JUDGED, Answer, read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.consensus import agreement_of, answers_by_record, decisions_of
from risbench.review.verbs.pull import pull_all


def adjudicate(expert: str, *, take_over: str | None = None, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Put every record that the answers leave open before an expert, in a project of its own; withdraw what is decided meanwhile.

    At most four candidates are shown, those that most people gave first. What this expert answered before, or another expert has, is left
    out and counted; `take_over` names another expert whose unanswered items this one gets. The same call goes on after any failure.

    Raises:
        InputError: there is no such person, or their project was deleted or changed on the server.
        BusyError: the server does not answer.
    """
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review adjudicate"):
        person, studio = desk.annotator(expert), Studio.of(desk)
        pull_all(desk, studio, quiet)
        records = {record.id: record for record in read_records(desk.workspace.latest())}
        answers = answers_by_record(desk)
        open_ = {name: why for name, why in _open(desk).items() if name in records}
        if take_over is not None:
            _withdraw(desk, studio, take_over, quiet)
        others = {item.record for item in desk.queue() if item.kind == "expert" and not item.withdrawn and item.annotator != expert}
        own = {name for name in open_ if any(answer.annotator == expert for answer in answers[name])}
        waits = sum(decision.waits for decision in decisions_of(desk).values())
        skipped = {
            "wait for further opinions first": waits,
            "answered by this expert before": len(own),
            "before another expert": len(open_.keys() & others - own),
        }
        open_ = {name: why for name, why in open_.items() if name not in own | others}
        items = _planned(desk, expert, open_, records, answers)
        desk.save_queue(items)
        answered = {answer.key for answer in read_answers(desk)}
        wanted = sorted(
            (item for item in items if item.kind == "expert" and item.annotator == expert and not item.withdrawn),
            key=lambda item: (-item.risk, item.record),
        )
        project = ensure_project(desk, studio, person, ADJUDICATE)
        with Progress("review adjudicate", len(wanted), quiet=quiet) as progress:
            counts = Pusher(
                desk, studio, project, lambda item: expert_task(records[item.record], answers[item.record], item.key), progress
            ).bring(wanted, answered)
    return {"expert": expert, "open": dict(sorted(Counter(open_.values()).items())), "skipped": skipped, **counts, "state": "pushed"}


def _open(desk: ReviewStore) -> dict[str, str]:
    return {name: str(decision.why) for name, decision in decisions_of(desk).items() if decision.why}


def _withdraw(desk: ReviewStore, studio: Studio, expert: str, quiet: bool) -> None:
    """Take back what an expert has not answered, in the plan and on the server."""
    person = desk.annotator(expert)
    answered = {answer.key for answer in read_answers(desk)}
    theirs = [item for item in desk.queue() if item.kind == "expert" and item.annotator == expert]
    back = {item.key for item in theirs if item.key not in answered}
    desk.save_queue(replace(item, withdrawn=True) if item.key in back else item for item in desk.queue())
    if person.expert_project is not None:
        with Progress("review adjudicate", 0, quiet=quiet) as progress:
            project = ensure_project(desk, studio, person, ADJUDICATE)
            kept = [item for item in theirs if item.key not in back and not item.withdrawn]
            Pusher(desk, studio, project, lambda item: {}, progress).bring(kept, answered)


def _planned(
    desk: ReviewStore, expert: str, open_: Mapping[str, str], records: Mapping[str, Record], answers: Mapping[str, Sequence[Answer]]
) -> list[Item]:
    """Return the queue with an item for every open record, and without those that are open no more."""
    answered = {answer.key for answer in read_answers(desk)}
    wanted = {}
    for name in sorted(open_):
        mask = records[name].mask
        risk = 1 - min((agreement_of(answers[name]) or 0.0), 1.0)
        key = make_key(desk.secret(), "expert", expert, name, *sorted(f"{answer.annotator} {answer.counts}" for answer in answers[name]))
        wanted[key] = Item(key, name, "", expert, "expert", mask.round if mask else 0, round(risk, 6))
    kept = []
    for item in desk.queue():
        if item.key in wanted:
            item = wanted.pop(item.key)
        elif item.kind == "expert" and item.annotator == expert and item.key not in answered:
            item = replace(item, withdrawn=True)
        kept.append(item)
    return [*kept, *wanted.values()]


def expert_task(record: Record, answers: Sequence[Answer], key: str) -> dict[str, Any]:
    """Return the task that shows a record with the candidates, each a label of its own, and how people voted; nobody is named."""
    votes = Counter(answer.counts for answer in answers if answer.counts is not None)
    chosen = sorted(votes, key=lambda counts: (-votes[counts], counts or ""))[: len(CANDIDATES)]
    masks = {answer.counts: answer.mask() for answer in answers}
    assert record.mask is not None, "only records with a mask are asked about"
    task = task_of(record, mask_of(record.mask), key)
    regions = task["predictions"][0]["result"]
    brush = next(region for region in regions if region["type"] == "brushlabels")
    shown = []
    for letter, counts in zip(CANDIDATES, chosen, strict=False):
        mask = masks[counts]
        value = {"format": "rle", "rle": encode_brush(np.asarray(mask)), "brushlabels": [letter]}
        shown.append({**brush, "id": f"candidate{letter}", "from_name": "candidates", "value": value})
    task["predictions"][0]["result"] = [*shown, *(region for region in regions if region is not brush)]
    task["data"]["votes"] = _said(answers, [votes[counts] for counts in chosen])
    return task


def _said(answers: Sequence[Answer], votes: Sequence[int]) -> str:
    """Return everyone's verdicts in one line."""
    masks = ", ".join(f"{letter} by {count}" for letter, count in zip(CANDIDATES, votes, strict=False)) or "none"
    verdicts = ", ".join(f"{name} {count}" for name, count in sorted(Counter(answer.verdict for answer in answers).items()))
    sentences = ", ".join(f"{name} {count}" for name, count in sorted(Counter(answer.sentence or NOT_JUDGED for answer in answers).items()))
    better = "; ".join(sorted({answer.better for answer in answers if answer.better}))
    return f"masks: {masks}. verdicts: {verdicts}. sentence: {sentences}." + (f" better: {better}" if better else "")
