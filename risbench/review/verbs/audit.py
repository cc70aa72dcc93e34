"""`risbench review audit-sample`: a random part of what is to be released, drawn anew by people who see no mask, says how good the rest is.

Everything lies in `review/audit/`, apart from the work on the masks: an audited record is decided by nothing that is drawn here, and the
assistant does not answer on these pages.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from risbench.core.errors import InputError, InvalidRowError, OptionError, printable
from risbench.core.geometry import size_of
from risbench.core.masks import mask_digest, mask_of
from risbench.core.metrics import mask_iou
from risbench.core.progress import Progress
from risbench.core.record import TRIAGED, Record
from risbench.core.releasable import reason_to_withhold
from risbench.core.storage import write_durably
from risbench.core.workspace import Workspace, read_records
from risbench.formats.audit_sample import AUDIT_FILE, Audited, AuditSample, summary_of
from risbench.formats.split_list import read_split_list
from risbench.review.labelstudio.client import NotThere, OutcomeUnknownError
from risbench.review.labelstudio.page import AUDIT, FIELDS, is_ours, project_title, task_of
from risbench.review.labelstudio.projects import Pusher, ensure_project
from risbench.review.labelstudio.reader import Authors, sorted_by_time
from risbench.review.labelstudio.studio import Studio
from risbench.review.rules.plan import Item, make_key
from risbench.review.store.answers import read_answers, read_audit
from risbench.review.store.review_store import Annotator, ReviewStore, pseudonym
from risbench.review.store.stored import read_rows, unique
from risbench.review.store.triage_votes import read_triage_votes

_PLAN: Final = "audit/plan.jsonl"
_DRAWN: Final = "audit/drawn.jsonl"


def audit_sample(
    auditors: Sequence[str],
    *,
    count: int = 300,
    split: Path | str | None = None,
    workspace: Path | str = ".",
    quiet: bool = False,
) -> dict[str, Any]:
    """Draw the sample, put it before people, read what they drew, and return what it says; the same call goes on and reads again.

    The sample is the first `count` by hash of the records that could be released now (`core/releasable`, which export asks, too), and of
    those once in it; `split`, a split list, narrows them to what a release with this list holds. So a larger one holds the smaller,
    and when more is reviewed some give way to others: what was drawn of those is kept, and does not count. Nobody draws what they
    have seen before: what all the auditors have seen is left out and counted. Without auditors it is only read what was drawn.
    `review/audit.json` keeps the result, and export puts it on the card.

    Raises:
        OptionError: the count cannot be.
        InputError: there is no such person or list, nothing to audit, or an auditor's project is gone or changed.
        BusyError: the server does not answer, or another run holds the workspace.
    """
    if count < 1:
        raise OptionError(f"--count {count}: must be at least 1")
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review audit-sample"):
        people = [desk.annotator(name).name for name in dict.fromkeys(auditors)]
        (desk.root / "audit").mkdir(exist_ok=True)
        before = read_plan(desk)
        if not people and not before:
            raise InputError(f"{desk.root / _PLAN}: no audit sample has been drawn yet; name who is to draw: audit-sample NAME...")
        records = _population(desk, split, before)
        plan, left_out = (before, _left_out(desk)) if not people else _planned(desk, before, records, people, count)
        write_durably(desk.root / _PLAN, "".join(json.dumps(asdict(item), sort_keys=True) + "\n" for item in plan.values()).encode())
        studio = Studio.of(desk)
        everyone = sorted({item.annotator for item in (*before.values(), *plan.values())})
        drawn, bad, gone = _pull(desk, studio, plan, everyone, quiet)
        sent = 0 if gone else _push(desk, studio, plan, everyone, drawn, quiet)
    drawn = {name: one for name, one in drawn.items() if name in plan}
    sample = AuditSample(len(records), len(plan), left_out, tuple(drawn.values()))
    glanced = 0 if split is not None else sum(record.review.status == TRIAGED for record in records.values())
    if glanced:
        told = "a release takes them in train only; give its split.csv with --split, so that the sample is of what it holds"
        gone = [*gone, f"{glanced:,} of {len(records):,} masks only passed on a triage sheet: {told}"]
    result = desk.workspace.root / AUDIT_FILE
    write_durably(result, sample.to_bytes())
    waiting = Counter(item.annotator for item in plan.values() if item.record not in drawn)
    return {
        "population": len(records),
        "sample": len(plan),
        "drawn": len(drawn),
        "waiting": dict(sorted(waiting.items())),
        "sent": sent,
        "unusable": bad,
        "left_out_as_seen": left_out,
        "warnings": gone,
        "result": summary_of(sample),
        "file": str(result),
    }


def _population(desk: ReviewStore, split: Path | str | None, before: Mapping[str, Item]) -> dict[str, Record]:
    """Return the records that could be released, by id, and those that were when they came into the sample.

    Raises:
        InputError: there is none, or the list cannot be read.
    """
    try:
        listed = read_split_list(Path(split)) if split is not None else None
    except OSError as error:
        raise InputError(f"--split {split}: cannot be read ({error.strerror})") from error
    able: dict[str, Record] = {}
    for record in read_records(desk.workspace.latest()):
        split_of = listed.of(record) if listed is not None else None
        if record.mask is None or record.expression is None or (listed is not None and split_of is None):
            continue
        if record.id in before or reason_to_withhold(record, split=split_of) is None:
            able[record.id] = record
    if not able and listed is not None:
        raise InputError(f"--split {split}: names no record with a reviewed mask; `risbench review status` says what is reviewed")
    if not able:
        raise InputError(f"{desk.workspace.root}: nothing to audit: no reviewed mask; `risbench review consensus` first")
    return able


def read_plan(desk: ReviewStore) -> dict[str, Item]:
    """Return the sample so far, by record.

    Raises:
        InputError: the file is damaged.
    """
    return {item.record: item for item in read_rows(desk.root / _PLAN, _ITEM, check=unique(lambda item: item.record, "record"))}


@dataclass(frozen=True)
class Drawn(Audited):
    """One drawing of the sample, and when it was submitted."""

    updated: str


def read_drawn(desk: ReviewStore) -> dict[str, Drawn]:
    """Return what was drawn, by record.

    Raises:
        InputError: the file is damaged.
    """
    return {row.record: row for row in read_rows(desk.root / _DRAWN, _DRAWING, check=unique(lambda row: row.record, "record"))}


_ITEM: Final = TypeAdapter(Item)
_DRAWING: Final = TypeAdapter(Drawn)


def _left_out(desk: ReviewStore) -> int:
    """Return how many were left out as seen when the sample was drawn."""
    sample = AuditSample.read(desk.workspace.root / AUDIT_FILE)
    return sample.seen_by_all if sample else 0


def _planned(
    desk: ReviewStore, before: Mapping[str, Item], records: Mapping[str, Record], people: Sequence[str], count: int
) -> tuple[dict[str, Item], int]:
    """Return the sample, each new record for who has least to draw of those who never saw it, and how many records all of them saw."""
    secret, seen = desk.secret(), _seen(desk)
    load = Counter(dict.fromkeys(people, 0))
    load.update(item.annotator for item in before.values() if item.annotator in load)
    plan: dict[str, Item] = {}
    for name in sorted(records, key=lambda name: make_key(secret, "audit sample", name)):
        if len(plan) >= count:
            break
        if name in before:
            plan[name] = before[name]
            continue
        able = [who for who in people if who not in seen[name]]
        if not able:
            continue
        who = min(able, key=lambda who: (load[who], who))
        load[who] += 1
        mask = records[name].mask
        assert mask is not None, "the population has masks"
        plan[name] = Item(make_key(secret, "audit", who, name), name, mask_digest(mask_of(mask)), who, "audit", mask.round, 0.0)
    return plan, sum(name not in before and seen[name].issuperset(people) for name in records)


def _seen(desk: ReviewStore) -> defaultdict[str, set[str]]:
    """Return who was shown each record, in the editor or on a sheet, answered or not."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for item in desk.queue():
        seen[item.record].add(item.annotator)
    for answer in read_answers(desk):
        seen[answer.record].add(answer.annotator)
    for glance in read_triage_votes(desk).values():
        seen[glance.record].add(glance.person)
    return seen


def _push(
    desk: ReviewStore, studio: Studio, plan: Mapping[str, Item], people: Sequence[str], drawn: Mapping[str, Audited], quiet: bool
) -> int:
    """Bring every auditor's project to what they are to draw; return how many tasks were sent."""
    records = {record.id: record for record in read_records(desk.workspace.latest()) if record.id in plan}
    sent = 0
    with Progress("review audit-sample", len(plan), quiet=quiet) as progress:
        for name in people:
            mine = [item for item in plan.values() if item.annotator == name and item.record in records]
            project = ensure_project(desk, studio, desk.annotator(name), AUDIT)
            answered = {item.key for item in mine if item.record in drawn}
            pusher = Pusher(desk, studio, project, lambda item: _task(records[item.record], item.key), progress, shows_masks=False)
            sent += pusher.bring(sorted(mine, key=lambda item: item.key), answered)["sent"]
    return sent


def _task(record: Record, key: str) -> dict[str, Any]:
    """Return the task that shows a record's image and sentence and nothing else."""
    assert record.mask is not None, "the population has masks"
    shown = task_of(record, mask_of(record.mask), key)["data"]
    return {"data": {name: shown[name] for name in ("image", "expression", "key")}}


def _pull(
    desk: ReviewStore, studio: Studio, plan: Mapping[str, Item], people: Sequence[str], quiet: bool
) -> tuple[dict[str, Audited], int, list[str]]:
    """Return what was drawn, by record, how many answers cannot be used, and whose project is gone (what they drew before is kept).

    A drawing is compared once, with the mask of that time: who mends what the sample found does not make the rest any better.
    """
    before, authors = read_drawn(desk), Authors.of(studio, desk.annotators())
    records = {record.id: record for record in read_records(desk.workspace.latest()) if record.id in plan}
    fresh = {name: row for name, row in before.items() if name not in plan}
    bad = 0
    gone: list[str] = []
    with Progress("review audit-sample: read", len(people), quiet=quiet) as progress:
        for name in people:
            person = desk.annotator(name)
            number: int | None = getattr(person, FIELDS[AUDIT][0])
            mine = {item.key: item for item in plan.values() if item.annotator == name}
            try:
                there = number is not None and is_ours(studio.project(number), project_title(desk, person, AUDIT))
            except NotThere:
                there = False
            if number is None or not there:
                kept = {item.record: before[item.record] for item in mine.values() if item.record in before}
                fresh.update(kept)
                if number is not None:
                    told = f"annotators renew {name}` gives them another"
                    gone.append(f"{name}: project {number} is gone from the server; {len(kept)} drawings of theirs are kept; `{told}")
            else:
                reader = _Drawings(desk, studio, authors, records, before, fresh)
                unusable = reader.read(person, number, mine)
                bad += len(unusable)
                gone += unusable
            progress.advance(1)
    rows = [asdict(row) for _, row in sorted(fresh.items())]
    write_durably(desk.root / _DRAWN, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
    found = {row["record"]: Audited(**{key: row[key] for key in row if key != "updated"}) for row in rows}
    return found, bad, gone


@dataclass
class _Drawings:
    """Reads what auditors drew into `fresh`; `before` is what was read of earlier pulls."""

    desk: ReviewStore
    studio: Studio
    authors: Authors
    records: Mapping[str, Record]
    before: Mapping[str, Drawn]
    fresh: dict[str, Drawn]

    def read(self, person: Annotator, project: int, mine: Mapping[str, Item]) -> list[str]:
        """Add one auditor's drawings; return of each that cannot be used why not."""
        tasks = {task.id: task for task in self.studio.keys(project) if task.annotations and task.key in mine}
        unusable = []
        found, doubts = self.studio.annotations(project, tasks.values())
        if doubts:
            raise OutcomeUnknownError(f"{next(iter(doubts.values()))}; nothing was given up, run the same command again")
        for number, answers in found.items():
            record = self.records.get(mine[tasks[number].key].record)
            whole, damaged = sorted_by_time(answers)
            unusable += [f"{person.name}: task {number}: {printable(one)}: is no answer" for one in damaged]
            if record is None or record.mask is None or not whole:
                continue
            try:
                self.fresh[record.id] = self._drawn(record, mask_of(record.mask), whole[-1], person)
            except InvalidRowError as reason:
                unusable.append(f"{person.name}: annotation {whole[-1]['id']}: {reason}")
        return unusable

    def _drawn(self, record: Record, released: NDArray[np.bool_], annotation: Mapping[str, Any], person: Annotator) -> Drawn:
        """Return a drawing as compared with the mask that is to be released.

        Raises:
            InvalidRowError: it cannot be used.
        """
        known = self.before.get(record.id)
        if known is not None and known.updated == annotation["updated_at"]:
            return known
        self.authors.check(annotation, person)
        drawn = read_audit(annotation, released.shape)
        iou = None if drawn is None else round(mask_iou(drawn, released), 4)
        size = size_of(float(np.count_nonzero(released)))
        auditor, status = pseudonym(self.desk, person.name), record.review.status
        return Drawn(record.id, mask_digest(released), iou, size, status, auditor, annotation["updated_at"])
