"""`risbench review pull`: what people did on the server comes back, exactly, once, and with every change noticed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError, Refusal, printable
from risbench.core.masks import mask_digest, mask_of
from risbench.core.progress import Progress
from risbench.core.record import Mask
from risbench.core.storage import to_json, write_durably
from risbench.core.workspace import INGEST, Workspace, read_records
from risbench.review.answers import Answer, answers_in, read_annotation, read_answers, read_expert, write_answers
from risbench.review.desk import Annotator, Desk
from risbench.review.gold import spoil
from risbench.review.page import is_ours, projects_of
from risbench.review.plan import Item
from risbench.review.studio import NotThere, Studio, Task, Unknown

# Asking again would not help, or take away what is not the person's own.
_NOT_ASKED_AGAIN: Final = ("not_theirs", "mask_unknown")


def pull(*, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Bring all new, changed and deleted answers to the desk; return how many of each, and what is quarantined.

    Only tasks that changed since the last pull are fetched. Two pulls at once: the second is told to wait. Of several annotations of one
    task the newest counts. An annotation that cannot be read goes to `review/quarantine.jsonl`, the others go on.

    Raises:
        TryAgainLater: the server does not answer, or another run holds the workspace; what was brought is kept.
        EnvironmentLacks: the token is refused.
    """
    desk = Desk(Workspace.open(workspace))
    with desk.workspace.lock("review pull"):
        return pull_all(desk, Studio.of(desk), quiet)


def pull_all(desk: Desk, studio: Studio, quiet: bool) -> dict[str, Any]:
    """Do what `pull` does; the caller holds the workspace."""
    items = {item.key: item for item in desk.queue()}
    shown = Shown(desk, items)
    counts: Counter[str] = Counter(dict.fromkeys(("new", "changed", "deleted", "unchanged", "quarantined", "not_ours"), 0))
    gone: list[str] = []
    read: list[int] = []
    projects = [(person, number, title) for person in desk.annotators() for number, title in projects_of(desk, person)]
    ids = {user["email"]: user["id"] for user in studio.get("/api/users/")} if projects else {}
    with Progress("review pull", len(projects), quiet=quiet) as progress:
        for person, number, title in projects:
            try:
                found = studio.project(number)
                if is_ours(found, title):
                    read.append(number)
                    _pull_project(_Reader(person, ids.get(person.email), items, shown), desk, studio, number, counts)
                else:
                    other = printable(found["title"])
                    gone.append(f"{person.name}: project {number} on the server is {other}, not theirs; their pulled answers are kept")
            except NotThere:
                gone.append(f"{person.name}: project {number} is gone from the server; their pulled answers are kept")
            progress.advance(1)
    answers = read_answers(desk)
    if counts["deleted"]:
        lost = f"{counts['deleted']} answers are gone from the server, or cannot be read any more"
        gone.append(f"{lost}; what they said is kept in {desk.root / 'deleted.jsonl'}")
    return {
        **counts,
        "projects": read,
        "answers": len(answers),
        "by_annotator": dict(sorted(Counter(answer.annotator for answer in answers).items())),
        "warnings": gone,
        "quarantine": str(desk.root / "quarantine.jsonl") if quarantine_rows(desk) else None,
    }


class Shown:
    """The masks that items showed, looked up in all rounds: an answer may be to a mask of an earlier one."""

    def __init__(self, desk: Desk, items: Mapping[str, Item]) -> None:
        self._desk, self._workspace, self._items = desk, desk.workspace, items
        self._stored: dict[str, list[Mask]] | None = None

    def mask(self, item: Item) -> NDArray[np.bool_]:
        """Return the mask (height, width) that an item showed; of an expert's item any of the record, as its key is of the candidates.

        Raises:
            Refusal: no round holds it any more.
        """
        mask = self.unspoilt(item)
        spoilt = spoil(mask, item.record) if item.wrong else None
        return mask if spoilt is None else spoilt

    def unspoilt(self, item: Item) -> NDArray[np.bool_]:
        """Return the mask (height, width) that the record of an item had; of gold the known answer.

        Raises:
            Refusal: no round holds it any more.
        """
        for stored in self._masks().get(item.record, []):
            mask = mask_of(stored)
            if item.kind == "expert":
                return mask
            shown = spoil(mask, item.record) if item.wrong else mask
            if shown is not None and mask_digest(shown) == item.mask:
                return mask
        raise Refusal("mask_unknown", "mask", item.mask, f"no refine round holds the mask that was shown for {item.record}")

    def _masks(self) -> dict[str, list[Mask]]:
        """Return every mask that the records of all items ever had, by record."""
        if self._stored is None:
            wanted, self._stored = {item.record for item in self._items.values()}, {}
            folders = [self._workspace.stage(INGEST), *self._workspace.finished_rounds(), self._workspace.latest()]
            for folder in dict.fromkeys(folders):
                for record in read_records(folder):
                    if record.mask is not None and record.id in wanted:
                        self._stored.setdefault(record.id, []).append(record.mask)
            for answer in read_answers(self._desk):  # a corrected mask is shown to the next one, whatever review makes of it
                if answer.record in wanted and answer.size is not None and answer.counts is not None:
                    mask = Mask(size=answer.size, counts=answer.counts, engine="review", round=0)
                    self._stored.setdefault(answer.record, []).append(mask)
            self._stored = {name: list({mask.counts: mask for mask in masks}.values()) for name, masks in self._stored.items()}
        return self._stored


def _pull_project(reader: _Reader, desk: Desk, studio: Studio, project: int, counts: Counter[str]) -> None:
    path, cursor_path = desk.root / "answers" / f"{project}.jsonl", desk.root / "answers" / f"{project}.cursor.json"
    known = {answer.task: answer for answer in answers_in(path)}
    cursor: dict[str, Any] = json.loads(cursor_path.read_bytes()) if cursor_path.exists() and path.exists() else {}
    tasks = {task.id: task for task in studio.keys(project)}
    changed = [task for task in tasks.values() if cursor.get(str(task.id), [None, 0]) != [task.updated, task.annotations]]
    fetched = {row["id"]: row for row in studio.with_annotations(project, [task.id for task in changed if task.annotations])}
    fresh = {number: answer for number, answer in known.items() if number in tasks}
    deleted = [answer for number, answer in known.items() if number not in tasks]
    for task in changed:
        before = fresh.pop(task.id, None)
        after = reader.newest(task, fetched.get(task.id))
        if after is not None:
            fresh[task.id] = after
            counts["changed" if before else "new"] += 1
        elif before is not None:
            deleted.append(before)
    looked_at = {task.id for task in changed}
    counts["unchanged"] += len(fresh.keys() - looked_at)
    for answer in deleted:
        desk.note("deleted.jsonl", {"project": project, **asdict(answer)})
    counts["deleted"] += len(deleted)
    write_answers(path, fresh.values())
    _quarantine(desk, project, reader, tasks.keys() - looked_at)
    counts["quarantined"] += len(reader.bad)
    counts["not_ours"] += reader.not_ours
    write_durably(cursor_path, to_json({str(task.id): [task.updated, task.annotations] for task in tasks.values()}))


@dataclass
class _Reader:
    """Reads one person's annotations; what cannot be read, or is another's, goes on the list."""

    person: Annotator
    user: int | None
    items: Mapping[str, Item]
    shown: Shown
    bad: list[dict[str, Any]] = field(default_factory=list)
    not_ours: int = 0

    def newest(self, task: Task, row: Mapping[str, Any] | None) -> Answer | None:
        """Return the newest readable answer to a task, or None."""
        item = self.items.get(task.key)
        annotations = sorted((row or {}).get("annotations", []), key=lambda one: (one["updated_at"], one["id"]))
        if item is None:
            self.not_ours += len(annotations)
            return None
        for annotation in reversed(annotations):
            try:
                found = self._read(annotation, item)
            except Refusal as reason:
                where = {"task": task.id, "annotation": annotation["id"], "updated": annotation["updated_at"], "record": item.record}
                self.bad.append({**where, "code": reason.code, "reason": str(reason)})
                continue
            return Answer(
                key=item.key,
                record=item.record,
                annotator=self.person.name,
                task=task.id,
                annotation=annotation["id"],
                updated=annotation["updated_at"],
                **found,
            )
        return None

    def _read(self, annotation: Mapping[str, Any], item: Item) -> dict[str, Any]:
        if self.user is not None and annotation["completed_by"] != self.user:
            raise Refusal(
                "not_theirs", "completed_by", annotation["completed_by"], f"only user {self.user} answers in {self.person.name}'s project"
            )
        read = read_expert if item.kind == "expert" else read_annotation
        return read(annotation, self.shown.mask(item))


def reask(*, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Ask again what was answered with something that cannot be used: these answers are kept in `review/reasked.jsonl` and taken off the
    server, which then hands their tasks to the same people again.

    Left alone and counted: answers that somebody else gave in a person's project, those whose shown mask is lost (asked again it would be
    no better), and all in projects that are not ours.

    Raises:
        TryAgainLater: the server does not answer, or another run holds the workspace; the same command goes on.
    """
    desk = Desk(Workspace.open(workspace))
    with desk.workspace.lock("review reask"):
        studio = Studio.of(desk)
        found = pull_all(desk, studio, quiet)  # whoever has mended theirs meanwhile is not asked again
        able = [row for row in quarantine_rows(desk) if row["project"] in found["projects"] and row["code"] not in _NOT_ASKED_AGAIN]
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


def _take_off(desk: Desk, studio: Studio, row: Mapping[str, Any]) -> bool:
    """Keep an unusable answer here and delete it there; return False where it is gone, another's, or mended since it was pulled."""
    try:
        answer = studio.get(f"/api/annotations/{row['annotation']}/")
    except NotThere:
        return False
    if (answer["task"], answer["updated_at"]) != (row["task"], row.get("updated")):
        return False
    desk.note("reasked.jsonl", {**row, "answer": answer})
    try:
        studio.delete_annotation(row["annotation"])
    except Unknown:  # the server may fail over an answer of odd shape, before or after it is gone
        return not studio.has_annotation(row["annotation"])
    return True


def quarantine_rows(desk: Desk) -> list[dict[str, Any]]:
    """Return the annotations that stand on the server and cannot be used.

    Raises:
        InputError: the list is damaged.
    """
    path = desk.root / "quarantine.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); remove it and run `risbench review pull` again") from None


def _quarantine(desk: Desk, project: int, reader: _Reader, untouched: Set[int]) -> None:
    """Bring the list of unusable annotations up to date: only what is on the server as it was before is kept."""
    kept = [row for row in quarantine_rows(desk) if row["project"] != project or row["task"] in untouched]
    fresh = [{"annotator": reader.person.name, "project": project, **row} for row in reader.bad]
    rows = sorted([*kept, *fresh], key=lambda row: (row["annotator"], row["task"], row["annotation"]))
    if rows or (desk.root / "quarantine.jsonl").exists():
        write_durably(desk.root / "quarantine.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
