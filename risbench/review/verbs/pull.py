"""`risbench review pull`: what people did on the server comes back, exactly, once, and with every change noticed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from risbench.core.errors import printable
from risbench.core.progress import Progress
from risbench.core.storage import to_json, write_durably
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.client import NotThere, OutcomeUnknownError
from risbench.review.labelstudio.page import is_ours, projects_of
from risbench.review.labelstudio.reader import Authors, Reader, Shown
from risbench.review.labelstudio.studio import Studio
from risbench.review.store.answers import Answer, answers_in, read_answers, write_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.store.stored import PULL, Number, read_rows, read_value

# Asking again would not help, or take away what is not the person's own.
_NOT_ASKED_AGAIN: Final = ("not_theirs", "mask_unknown")


def pull(*, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Bring all new, changed and deleted answers to the desk; return how many of each, and what is quarantined.

    Only tasks that changed since the last pull are fetched. Two pulls at once: the second is told to wait. Of several annotations of one
    task the newest counts. An annotation that cannot be read goes to `review/quarantine.jsonl`, the others go on.

    Raises:
        BusyError: the server does not answer, or another run holds the workspace; what was brought is kept.
        MissingRequirementError: the token is refused.
    """
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review pull"):
        return pull_all(desk, Studio.of(desk), quiet)


def pull_all(desk: ReviewStore, studio: Studio, quiet: bool) -> dict[str, Any]:
    """Do what `pull` does; the caller holds the workspace."""
    items = {item.key: item for item in desk.queue()}
    shown, started = Shown(desk, items), desk.annotators()
    counts: Counter[str] = Counter(dict.fromkeys(("new", "changed", "deleted", "unchanged", "quarantined", "not_ours"), 0))
    gone: list[str] = []
    read: list[int] = []
    doubts: list[str] = []
    projects = [(person, number, title) for person in started for number, title in projects_of(desk, person)]
    authors = Authors.of(studio, started) if projects else Authors({}, {})
    with Progress("review pull", len(projects), quiet=quiet) as progress:
        for person, number, title in projects:
            try:
                found = studio.project(number)
                if is_ours(found, title):
                    read.append(number)
                    reader = Reader(desk, person, authors, items, shown)
                    doubts += _pull_project(reader, desk, studio, number, counts)
                else:
                    other = printable(found["title"])
                    gone.append(f"{person.name}: project {number} on the server is {other}, not theirs; their pulled answers are kept")
            except NotThere:
                gone.append(f"{person.name}: project {number} is gone from the server; their pulled answers are kept")
            progress.advance(1)
    if doubts:
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        raise OutcomeUnknownError(f"{doubts[0]}{more}; the others are pulled and nothing was given up: run the same command again")
    desk.note_pulled()
    answers = read_answers(desk)
    if counts["deleted"]:
        lost = f"gone from the server, or not readable any more: {counts['deleted']} answer{'' if counts['deleted'] == 1 else 's'}"
        gone.append(f"{lost}; what was in them is kept in {desk.root / 'deleted.jsonl'}")
    return {
        **counts,
        "projects": read,
        "answers": len(answers),
        "by_annotator": dict(sorted(Counter(answer.annotator for answer in answers).items())),
        "warnings": gone,
        "quarantine": str(desk.root / "quarantine.jsonl") if quarantine_rows(desk) else None,
    }


def _pull_project(reader: Reader, desk: ReviewStore, studio: Studio, project: int, counts: Counter[str]) -> list[str]:
    """Pull one project; return of every answer that the server counts and does not give what is odd: it is left as it was."""
    path, cursor_path = desk.root / "answers" / f"{project}.jsonl", desk.root / "answers" / f"{project}.cursor.json"
    known = {answer.task: answer for answer in answers_in(path)}
    cursor = read_cursor(cursor_path) if path.exists() else {}
    tasks = {task.id: task for task in studio.keys(project)}
    if known.keys() - tasks.keys():  # a task is gone: the second list must say so, too
        tasks = {task.id: task for task in studio.keys(project)}
    changed = [task for task in tasks.values() if cursor.get(str(task.id), ("", 0)) != (task.updated, task.annotations)]
    fetched, doubts = studio.annotations(project, [task for task in changed if task.annotations])
    changed = [task for task in changed if task.id not in doubts]
    fresh = {number: answer for number, answer in known.items() if number in tasks}
    deleted = [answer for number, answer in known.items() if number not in tasks]
    for task in changed:
        before = fresh.pop(task.id, None)
        after = reader.newest(task, fetched.get(task.id, []))
        if after is not None:
            fresh[task.id] = after
            counts["changed" if before else "new"] += 1
        elif before is not None:
            deleted.append(before)
    hidden = [answer for answer in deleted if _is_hidden(studio, answer, fetched.get(answer.task, ()))]
    for answer in hidden:
        deleted.remove(answer)
        fresh[answer.task] = answer
        doubts[answer.task] = (
            f"{studio.url}: annotation {answer.annotation} of {answer.annotator} is there, and the server's lists leave it out"
        )
    looked_at = {task.id for task in changed if task.id not in doubts}
    counts["unchanged"] += len(fresh.keys() - looked_at)
    for answer in deleted:
        desk.note("deleted.jsonl", {"project": project, **asdict(answer)})
    counts["deleted"] += len(deleted)
    write_answers(path, fresh.values())
    _quarantine(desk, project, reader, tasks.keys() - looked_at)
    counts["quarantined"] += len(reader.bad)
    counts["not_ours"] += reader.not_ours
    # the number of answers that came, not that the server counts: where they differ the task is asked for again
    came = {number: len(annotations) for number, annotations in fetched.items()}
    seen = {str(task.id): (task.updated, came.get(task.id, task.annotations)) for task in tasks.values() if task.id not in doubts}
    kept = {number: cursor[number] for task in doubts if (number := str(task)) in cursor}
    write_durably(cursor_path, to_json(seen | kept))
    return list(doubts.values())


def _is_hidden(studio: Studio, answer: Answer, fetched: Sequence[Any]) -> bool:
    """Return whether an answer that no list has any more is there all the same: each is looked for by itself before it is given up."""
    came = any(isinstance(one, dict) and one.get("id") == answer.annotation for one in fetched)  # it came, and cannot be read any more
    return not came and studio.has_annotation(answer.annotation)


def reask(*, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Ask again what was answered with something that cannot be used: these answers are kept in `review/reasked.jsonl` and taken off the
    server, which then hands their tasks to the same people again.

    Left alone and counted: answers that somebody else gave in a person's project, those whose shown mask is lost (asked again it would be
    no better), and all in projects that are not ours.

    Raises:
        BusyError: the server does not answer, or another run holds the workspace; the same command goes on.
    """
    desk = ReviewStore(Workspace.open(workspace))
    with desk.workspace.lock("review reask"):
        studio = Studio.of(desk)
        found = pull_all(desk, studio, quiet)  # whoever has mended theirs meanwhile is not asked again
        known = [row for row in quarantine_rows(desk) if row["project"] in found["projects"] and row["annotation"] is not None]
        able = [row for row in known if row["code"] not in _NOT_ASKED_AGAIN]
        rows = [row for row in able if _take_off(desk, studio, row)]
        if rows:
            found = pull_all(desk, studio, quiet)
    return {
        "reasked": len(rows),
        "by_annotator": dict(sorted(Counter(row["annotator"] for row in rows).items())),
        "reasons": dict(sorted(Counter(row["code"] for row in rows).items())),
        "kept": str(desk.root / "reasked.jsonl") if rows else None,
        "left": dict(sorted(Counter(row["code"] for row in quarantine_rows(desk)).items())),
        "warnings": found["warnings"],
    }


def _take_off(desk: ReviewStore, studio: Studio, row: Mapping[str, Any]) -> bool:
    """Keep an unusable answer here and delete it there; return False where it is gone, another's, or mended since it was pulled."""
    try:
        answer = studio.get(f"/api/annotations/{row['annotation']}/")
    except NotThere:
        return False
    there = (answer.get("task"), answer.get("updated_at")) if isinstance(answer, dict) else None
    if there != (row["task"], row.get("updated")):
        return False
    desk.note("reasked.jsonl", {**row, "answer": answer})
    try:
        studio.delete_annotation(row["annotation"])
    except OutcomeUnknownError:  # the server may fail over an answer of odd shape, before or after it is gone
        return not studio.has_annotation(row["annotation"])
    return True


@dataclass(frozen=True)
class Unusable:
    """One annotation that stands on the server and cannot be used."""

    annotator: str
    project: Number
    task: Number
    annotation: Number | None
    record: str
    code: str
    reason: str
    updated: str | None = None


_UNUSABLE: Final = TypeAdapter(Unusable)
_CURSOR: Final = TypeAdapter(dict[str, tuple[str, int]])


def read_cursor(path: Path) -> dict[str, tuple[str, int]]:
    """Return of every task of a project when it was changed and how many answers it had, as they were last pulled.

    Raises:
        InputError: the file is damaged.
    """
    return read_value(path, _CURSOR, b"{}", PULL)


def quarantine_rows(desk: ReviewStore) -> list[dict[str, Any]]:
    """Return the annotations that stand on the server and cannot be used.

    Raises:
        InputError: the list is damaged.
    """
    return [asdict(row) for row in read_rows(desk.root / "quarantine.jsonl", _UNUSABLE, PULL)]


def _quarantine(desk: ReviewStore, project: int, reader: Reader, untouched: Set[int]) -> None:
    """Bring the list of unusable annotations up to date: only what is on the server as it was before is kept."""
    kept = [row for row in quarantine_rows(desk) if row["project"] != project or row["task"] in untouched]
    fresh = [{"annotator": reader.person.name, "project": project, **row} for row in reader.bad]
    rows = sorted([*kept, *fresh], key=lambda row: (row["annotator"], row["task"], row["annotation"] or 0))
    if rows or (desk.root / "quarantine.jsonl").exists():
        write_durably(desk.root / "quarantine.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
