"""`risbench review pull`: what people did on the server comes back, exactly, once, and with every change noticed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError, Refusal
from risbench.core.masks import mask_of
from risbench.core.progress import Progress
from risbench.core.record import Record
from risbench.core.storage import to_json, write_durably
from risbench.core.workspace import INGEST, Workspace, read_records
from risbench.review.answers import Answer, answers_in, read_annotation, read_answers, read_expert, write_answers
from risbench.review.desk import Annotator, Desk
from risbench.review.gold import mask_digest, spoil
from risbench.review.plan import Item
from risbench.review.studio import NotThere, Studio, Task


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
    projects = [
        (person, number) for person in desk.annotators() for number in (person.project, person.expert_project) if number is not None
    ]
    with Progress("review pull", len(projects), quiet=quiet) as progress:
        for person, number in projects:
            try:
                _pull_project(desk, studio, person, number, items, shown, counts)
            except NotThere:
                gone.append(f"{person.name}: project {number} is gone from the server; their pulled answers are kept")
            progress.advance(1)
    answers = read_answers(desk)
    return {
        **counts,
        "answers": len(answers),
        "by_annotator": dict(sorted(Counter(answer.annotator for answer in answers).items())),
        "warnings": gone,
        "quarantine": str(desk.root / "quarantine.jsonl") if (desk.root / "quarantine.jsonl").exists() else None,
    }


class Shown:
    """The masks that items showed, looked up in all rounds: an answer may be to a mask of an earlier one."""

    def __init__(self, desk: Desk, items: Mapping[str, Item]) -> None:
        self._workspace, self._items = desk.workspace, items
        self._stored: dict[tuple[str, int], Record] | None = None

    def mask(self, item: Item) -> NDArray[np.bool_]:
        """Return the mask (height, width) that an item showed.

        Raises:
            Refusal: no round holds it any more.
        """
        mask = self.unspoilt(item)
        found = spoil(mask, item.record) if item.wrong else mask
        if found is None or (item.kind != "expert" and mask_digest(found) != item.mask):  # an expert's key is of the candidates
            raise Refusal("mask_unknown", "mask", item.mask, f"no refine round holds the mask that was shown for {item.record}")
        return found

    def unspoilt(self, item: Item) -> NDArray[np.bool_]:
        """Return the mask (height, width) that the record of an item had; of gold the known answer.

        Raises:
            Refusal: no round holds it any more.
        """
        if self._stored is None:
            wanted = {item.record for item in self._items.values()}
            folders = [self._workspace.stage(INGEST), *self._workspace.finished_rounds(), self._workspace.latest()]
            self._stored = {
                (record.id, record.mask.round): record
                for folder in dict.fromkeys(folders)
                for record in read_records(folder)
                if record.mask is not None and record.id in wanted
            }
        record = self._stored.get((item.record, item.round))
        if record is None or record.mask is None:
            raise Refusal("mask_unknown", "mask", item.mask, f"no refine round holds the mask that was shown for {item.record}")
        return mask_of(record.mask)


def _pull_project(
    desk: Desk,
    studio: Studio,
    person: Annotator,
    project: int,
    items: Mapping[str, Item],
    shown: Shown,
    counts: Counter[str],
) -> None:
    path, cursor_path = desk.root / "answers" / f"{project}.jsonl", desk.root / "answers" / f"{project}.cursor.json"
    known = {answer.task: answer for answer in answers_in(path)}
    cursor: dict[str, Any] = json.loads(cursor_path.read_bytes()) if cursor_path.exists() and path.exists() else {}
    tasks = {task.id: task for task in studio.keys(project)}
    changed = [task for task in tasks.values() if cursor.get(str(task.id), [None, 0]) != [task.updated, task.annotations]]
    fetched = {row["id"]: row for row in studio.with_annotations(project, [task.id for task in changed if task.annotations])}
    bad: list[dict[str, Any]] = []
    fresh = dict(known)
    for number in known.keys() - tasks.keys():
        del fresh[number]
        counts["deleted"] += 1
    for task in changed:
        before = fresh.pop(task.id, None)
        after = _answer(task, fetched.get(task.id), person, items, shown, bad, counts)
        if after is not None:
            fresh[task.id] = after
            counts["changed" if before else "new"] += 1
        elif before is not None:
            counts["deleted"] += 1
    looked_at = {task.id for task in changed}
    counts["unchanged"] += len(fresh.keys() - looked_at)
    write_answers(path, fresh.values())
    _quarantine(desk, project, person, bad, looked_at | (known.keys() - tasks.keys()))
    counts["quarantined"] += len(bad)
    write_durably(cursor_path, to_json({str(task.id): [task.updated, task.annotations] for task in tasks.values()}))


def _answer(
    task: Task,
    row: Mapping[str, Any] | None,
    person: Annotator,
    items: Mapping[str, Item],
    shown: Shown,
    bad: list[dict[str, Any]],
    counts: Counter[str],
) -> Answer | None:
    """Return the newest readable answer to a task, or None."""
    item = items.get(task.key)
    annotations = sorted((row or {}).get("annotations", []), key=lambda one: (one["updated_at"], one["id"]))
    if item is None:
        counts["not_ours"] += len(annotations)
        return None
    for annotation in reversed(annotations):
        try:
            read = read_expert if item.kind == "expert" else read_annotation
            found = read(annotation, shown.mask(item))
        except Refusal as reason:
            bad.append(
                {
                    "task": task.id,
                    "annotation": annotation["id"],
                    "record": item.record,
                    "code": reason.code,
                    "reason": str(reason),
                }
            )
            continue
        return Answer(
            key=item.key,
            record=item.record,
            annotator=person.name,
            task=task.id,
            annotation=annotation["id"],
            updated=annotation["updated_at"],
            **found,
        )
    return None


def _quarantine(desk: Desk, project: int, person: Annotator, bad: Sequence[Mapping[str, Any]], looked_at: set[int]) -> None:
    """Bring the list of unreadable annotations up to date: what was looked at again is said anew."""
    path = desk.root / "quarantine.jsonl"
    try:
        old = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); remove it and run `risbench review pull` again") from None
    kept = [row for row in old if row["project"] != project or row["task"] not in looked_at]
    fresh = [{"annotator": person.name, "project": project, **row} for row in bad]
    rows = sorted([*kept, *fresh], key=lambda row: (row["annotator"], row["task"], row["annotation"]))
    if rows or path.exists():
        write_durably(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
