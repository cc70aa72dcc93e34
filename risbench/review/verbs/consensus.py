"""`risbench review consensus`: from everyone's answers to one decision a record, or to the list of what an expert must decide.

One answer decides by itself. Several must agree: on the verdict by majority, on the mask by a mean IoU that grows with the object's size;
then the mask is STAPLE's. What stays open goes to adjudication. No order of annotators, tasks or files changes a bit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from risbench.core.errors import InputError
from risbench.core.masks import decode_rle, encode_rle, mask_digest, mask_of
from risbench.core.progress import Progress
from risbench.core.record import UNDECIDED, Attributes, Expression, Mask, Record, Review, ReviewStatus
from risbench.core.storage import PartResult, StageRun, digest_of, versions
from risbench.core.workspace import INGEST, REVIEW, Workspace, read_records
from risbench.review.rules.agreement import agreement_wanted, mask_agreement
from risbench.review.rules.plan import OPINIONS_IF_UNSURE, Item
from risbench.review.rules.staple import majority, staple
from risbench.review.store.answers import Answer, check_size, read_answers
from risbench.review.store.review_store import ReviewStore, pseudonym
from risbench.review.store.triage_votes import TriageVote, read_triage_votes

PART_RECORDS: Final = 64
Why = Literal["unsure", "verdicts differ", "masks differ", "sentences differ"]


@dataclass(frozen=True)
class Decision:
    """What the answers to one record come to.

    `why` is set where an expert must decide, else `waits` where opinions are still to come. `performance` is STAPLE's word on everyone
    whose masks it joined: name, sensitivity, specificity.
    """

    status: ReviewStatus = "unreviewed"
    size: tuple[int, int] | None = None
    counts: str | None = None
    agreement: float | None = None
    sentence: str | None = None
    better: str = ""
    why: Why | None = None
    waits: bool = False
    performance: tuple[tuple[str, float, float], ...] = ()


def decide(answers: Sequence[Answer], expert: Answer | None = None, opinions_to_come: int = 0) -> Decision:
    """Return the decision of one record's answers (one a person, none of them to gold).

    An expert's word ends everything; of the sentence only if it says one. `opinions_to_come` counts items that are out and unanswered: a
    lone answer waits for them, and so does one that is unsure.
    """
    if expert is not None:
        said, reworded = _sentence(answers)
        sentence = expert.sentence or said
        if sentence is None and expert.verdict != "reject":
            return Decision(agreement=agreement_of(answers), why="sentences differ")  # the expert chose a mask and no sentence
        better = expert.better or (reworded if sentence == said else "")
        if expert.verdict == "reject":
            return Decision("rejected", sentence=sentence, better=better)
        return Decision("adjudicated", expert.size, expert.counts, agreement_of(answers), sentence, better)
    ordered = sorted(answers, key=lambda answer: (answer.verdict, answer.counts or "", answer.sentence, answer.better, answer.annotator))
    if not ordered:
        return Decision()
    if opinions_to_come and (len(ordered) == 1 or any(answer.verdict == "unsure" for answer in ordered)):
        return Decision(waits=True)
    if any(answer.verdict == "unsure" for answer in ordered):
        return Decision(agreement=agreement_of(ordered), why="unsure")
    sentence, better = _sentence(ordered)
    if sentence is None:
        return Decision(agreement=agreement_of(ordered), why="sentences differ")
    rejected = sum(answer.verdict == "reject" for answer in ordered)
    if 2 * rejected > len(ordered):
        return Decision("rejected", agreement=None, sentence=sentence, better=better)
    if rejected:
        return Decision(agreement=agreement_of(ordered), why="verdicts differ")
    return _agreed_mask(ordered, sentence, better)


def _agreed_mask(ordered: Sequence[Answer], sentence: str, better: str) -> Decision:
    """Return the decision of answers that all hold a mask."""
    first = ordered[0]
    if len(ordered) == 1:
        return Decision("corrected" if first.changed else "accepted", first.size, first.counts, None, sentence, better)
    if len({answer.counts for answer in ordered}) == 1:
        status: ReviewStatus = "corrected" if any(answer.changed for answer in ordered) else "accepted" if len(ordered) < 3 else "consensus"
        return Decision(status, first.size, first.counts, 1.0, sentence, better)
    masks = [decode_rle(answer.size, answer.counts) for answer in ordered if answer.size and answer.counts]
    agreement = mask_agreement(masks)
    area = float(np.median([np.count_nonzero(mask) for mask in masks]))
    if agreement.iou < agreement_wanted(area):
        return Decision(agreement=round(agreement.iou, 6), why="masks differ")
    most = majority(masks)
    found = staple(masks)
    likely = found.mask
    performance = tuple(zip((answer.annotator for answer in ordered), found.sensitivity, found.specificity, strict=True))
    # of two the majority is what both marked; STAPLE may come out empty where performances collapse
    final = likely if likely.any() else most
    if not final.any():
        return Decision(agreement=round(agreement.iou, 6), why="masks differ")
    size, counts = encode_rle(final)
    return Decision("consensus", size, counts, round(agreement.iou, 6), sentence, better, performance=performance)


def agreement_of(answers: Sequence[Answer]) -> float | None:
    """Return the mean IoU of all masks among answers; None with fewer than two."""
    masks = [mask for answer in answers if (mask := answer.mask()) is not None]
    return round(mask_agreement(masks).iou, 6) if len(masks) > 1 else None


def _sentence(answers: Sequence[Answer]) -> tuple[str | None, str]:
    """Return the majority's verdict on the sentence (None without one, "" where nobody judged it), and the better one that most gave.

    A better sentence counts from those whose verdict won, and from who wrote one and chose no verdict where nobody did.
    """
    votes = Counter(answer.sentence for answer in answers if answer.sentence)
    verdict, count = min(votes.items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))
    if 2 * count <= votes.total() and len(votes) > 1:
        return None, ""
    words = Counter(answer.better for answer in answers if answer.better and answer.sentence == verdict)
    return verdict, min(words, key=lambda text: (-words[text], text)) if words else ""


def consensus(*, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Decide all that the answers decide and write the review stage; return how many records have which status, and what is open.

    The masks of undecided records are those of the last refine round. The same answers give the same bytes.

    Raises:
        InputError: nothing has been refined or pulled.
    """
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review consensus"), Progress("review consensus", 0, quiet=quiet):
        source = _source(desk.workspace)
        records = _undecided(desk.workspace, list(read_records(source)))
        sizes = {record.id: (record.image.height, record.image.width) for record in records}
        for answer in read_answers(desk):
            if answer.record in sizes:
                check_size(answer, sizes[answer.record], "the image")
        decisions = decisions_of(desk)
        names = {person.name for person in desk.annotators()} | {answer.annotator for answer in read_answers(desk)}
        names |= {glance.person for glance in read_triage_votes(desk).values()}  # also of people who are not on the list any more
        reviewers = {name: pseudonym(desk, name) for name in names}
        votes, glances = _votes(desk, reviewers), read_triage_votes(desk)
        plan = {
            "command": "review consensus",
            "options": {},
            "inputs": {
                "records": digest_of([record.to_line() for record in records]),
                "decisions": digest_of({name: repr(replace(decision, performance=())) for name, decision in sorted(decisions.items())}),
                "votes": digest_of({name: repr(vote) for name, vote in sorted(votes.items())}),
                "triage": digest_of({name: repr(glance) for name, glance in sorted(glances.items())}),
            },
            "versions": versions(),
        }
        run = StageRun(desk.workspace.stage(REVIEW), plan)
        round_ = int(source.name.removeprefix("round-"))
        before = run.finished()
        decided = []
        for record in records:
            decision = decisions.get(record.id)
            if decision is None:
                decided.append(_glanced(record, glances.get(record.id), reviewers))
            else:
                decided.append(_decided(record, decision, *votes.get(record.id, ({}, ())), round_))
        if before is None or not run.same_plan(before):
            run.begin()
            parts = [decided[start : start + PART_RECORDS] for start in range(0, len(decided), PART_RECORDS)]
            for index, part in enumerate(parts):
                run.write_part(index, digest_of([record.id for record in part]), PartResult(list(part)))
            run.finish(len(parts), rows=len(decided), before=PartResult([]), extra={})
    open_ = Counter(decision.why for decision in decisions.values() if decision.why)
    return {
        "records": len(decided),
        "status": dict(sorted(Counter(record.review.status for record in decided).items())),
        "to_adjudicate": {str(why): count for why, count in sorted(open_.items(), key=str)},
        "waiting": sum(decision.waits for decision in decisions.values()),
        "answers_to_unknown_records": len(decisions.keys() - {record.id for record in decided}),
        "state": "up to date" if before is not None and run.same_plan(before) else "done",
    }


def _source(workspace: Workspace) -> Path:
    rounds = workspace.finished_rounds()
    if not rounds:
        raise InputError(f"{workspace.root}: nothing is refined; run `risbench refine-masks` first")
    return rounds[-1]


def _undecided(workspace: Workspace, records: Sequence[Record]) -> list[Record]:
    """Return the records as they were before anybody decided on them, so that a decision that was taken back leaves nothing behind."""
    decided = {record.id for record in records if record.review.status not in UNDECIDED}
    before: dict[str, Record] = {}
    for folder in [*reversed(workspace.finished_rounds()), workspace.stage(INGEST)]:
        if not decided - before.keys():
            break
        for record in read_records(folder):
            if record.id in decided and record.id not in before and record.review.status in UNDECIDED:
                before[record.id] = record
    return [before.get(record.id, record) for record in records]


def decisions_of(desk: ReviewStore) -> dict[str, Decision]:
    """Return the decision of every record that someone answered or that an expert decided."""
    answers, queue = answers_by_record(desk), desk.queue()
    kinds = {item.key: item.kind for item in queue}
    experts = _one_each([answer for answer in read_answers(desk) if kinds.get(answer.key) == "expert"], by="record")
    to_come = _to_come(queue, {answer.key for group in answers.values() for answer in group}) + _to_be_asked(desk, queue, answers)
    last = {answer.record: answer for answer in experts}
    for name, group in answers.items():
        _check_sizes([*group, *([last[name]] if name in last else [])])
    return {name: decide(answers.get(name, []), last.get(name), to_come[name]) for name in sorted(answers.keys() | last.keys())}


def _check_sizes(group: Sequence[Answer]) -> None:
    """Raise where the masks of one record differ in size."""
    first = next((answer for answer in group if answer.size is not None), None)
    for answer in group:
        if first is not None and first.size is not None:
            check_size(answer, first.size, f"{first.annotator}'s")


def answers_by_record(desk: ReviewStore) -> dict[str, list[Answer]]:
    """Return everyone's newest answer to every record; gold and experts' words are left out."""
    kinds = {item.key: item.kind for item in desk.queue()}
    found: dict[str, list[Answer]] = defaultdict(list)
    for answer in read_answers(desk):
        if kinds.get(answer.key) in ("task", "second"):
            found[answer.record].append(answer)
    return {name: _one_each(group) for name, group in found.items()}


def _to_come(items: Iterable[Item], answered: set[str]) -> Counter[str]:
    return Counter(item.record for item in items if item.kind in ("task", "second") and not item.withdrawn and item.key not in answered)


def _to_be_asked(desk: ReviewStore, queue: Iterable[Item], answers: Mapping[str, Sequence[Answer]]) -> Counter[str]:
    """Return how many opinions the next push will ask for: of what somebody was unsure of, while there are people who have not seen it."""
    able = {person.name for person in desk.annotators() if not person.paused}
    met: dict[str, set[str]] = defaultdict(set)
    opinions: Counter[str] = Counter()
    for item in queue:
        if not item.withdrawn and item.kind != "expert":
            met[item.record].add(item.annotator)
            opinions[item.record] += item.kind != "gold"
    unsure = [name for name, group in answers.items() if any(answer.verdict == "unsure" for answer in group)]
    return Counter({name: max(0, min(OPINIONS_IF_UNSURE - opinions[name], len(able - met[name]))) for name in unsure})


def _one_each(answers: Sequence[Answer], by: Literal["annotator", "record"] = "annotator") -> list[Answer]:
    """Return the newest answer of everyone, or to every record."""
    newest: dict[str, Answer] = {}
    for answer in sorted(answers, key=lambda one: (one.updated, one.annotation)):
        newest[getattr(answer, by)] = answer
    return list(newest.values())


def _votes(desk: ReviewStore, reviewers: Mapping[str, str]) -> dict[str, tuple[dict[str, int], tuple[str, ...]]]:
    """Return of every record how often each verdict was given, and by whom."""
    kinds = {item.key: item.kind for item in desk.queue()}
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in read_answers(desk):
        if kinds.get(answer.key) in ("task", "second", "expert"):
            groups[answer.record].append(answer)
    given = {name: _one_each(group) for name, group in groups.items()}
    return {
        name: (
            dict(sorted(Counter(answer.verdict for answer in group).items())),
            tuple(sorted({reviewers[answer.annotator] for answer in group})),
        )
        for name, group in given.items()
    }


def _glanced(record: Record, glance: TriageVote | None, reviewers: Mapping[str, str]) -> Record:
    """Return a record that nobody answered: triaged where somebody let this very mask pass, else as it was before."""
    passed = glance is not None and not glance.doubted and record.mask is not None and glance.mask == mask_digest(mask_of(record.mask))
    if passed and glance is not None and record.review.status in UNDECIDED:
        review = Review(status="triaged", reviewers=(reviewers[glance.person],))
        return record.model_copy(update={"review": review})
    return record.model_copy(update={"review": Review()}) if record.review.status == "triaged" else record


def _decided(record: Record, decision: Decision, votes: dict[str, int], people: tuple[str, ...], round_: int) -> Record:
    """Return the record as the answers leave it; `round_` is the refine round of a mask that only people made."""
    review = Review(status=decision.status, votes=votes, agreement=decision.agreement, reviewers=people)
    update: dict[str, Any] = {"review": review}
    if decision.counts is not None and decision.size is not None:
        if record.mask is None or not _same(record.mask, decision):
            made = record.mask.round if record.mask else round_
            update["mask"] = Mask(size=decision.size, counts=decision.counts, engine="review", round=made)
        # that an engine found nothing is no matter any more
        update["problems"] = tuple(problem for problem in record.problems if problem.stage != "refine")
    if (decision.sentence or decision.better) and record.expression is not None:
        update["expression"] = _judged(record.expression, decision)
        if decision.better:
            update["attributes"] = _without_sentence(record.attributes)
    return record.model_copy(update=update)


def _without_sentence(attributes: Attributes) -> Attributes:
    """Return what is known of an object apart from a sentence that was replaced."""
    said = [name for name in Attributes.model_fields if (found := getattr(attributes, name)) is not None and found.origin == "sentence"]
    return attributes.model_copy(update=dict.fromkeys(said))


def _same(mask: Mask, decision: Decision) -> bool:
    return mask.size == decision.size and np.array_equal(mask_of(mask), decode_rle(mask.size, decision.counts or ""))


def _judged(expression: Expression, decision: Decision) -> Expression:
    """Return the sentence with the reviewers' verdict; a better one takes its place and is true and unique by their word."""
    if decision.better:
        return Expression(text=decision.better, origin="review", is_true=True, is_unique=True)
    return expression.model_copy(update={"is_true": decision.sentence != "wrong", "is_unique": decision.sentence == "true and unique"})
