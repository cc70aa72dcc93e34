"""Reads one person's annotations against the masks that were shown; what cannot be read goes on a list, and the others go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InvalidRowError, RisbenchError
from risbench.core.masks import mask_digest, mask_of
from risbench.core.record import Mask
from risbench.core.unexpected import ERRORS_LOG, Unexpected, refusal_of
from risbench.core.workspace import INGEST, read_records
from risbench.review.labelstudio.studio import Studio, Task
from risbench.review.rules.gold import corrupt
from risbench.review.rules.plan import Item
from risbench.review.store.answers import Answer, read_annotation, read_answers, read_expert
from risbench.review.store.review_store import Annotator, ReviewStore, append_lines


class Shown:
    """The masks that items showed, looked up in all rounds: an answer may be to a mask of an earlier one."""

    def __init__(self, desk: ReviewStore, items: Mapping[str, Item]) -> None:
        self._desk, self._workspace, self._items = desk, desk.workspace, items
        self._stored: dict[str, list[Mask]] | None = None

    def mask(self, item: Item) -> NDArray[np.bool_]:
        """Return the mask (height, width) that an item showed; of an expert's item any of the record, as its key is of the candidates.

        Raises:
            InvalidRowError: no round holds it any more.
        """
        mask = self.unspoilt(item)
        corrupted = corrupt(mask, item.record) if item.wrong else None
        return mask if corrupted is None else corrupted

    def unspoilt(self, item: Item) -> NDArray[np.bool_]:
        """Return the mask (height, width) that the record of an item had; of gold the known answer.

        Raises:
            InvalidRowError: no round holds it any more.
        """
        for stored in self._masks().get(item.record, []):
            mask = mask_of(stored)
            if item.kind == "expert":
                return mask
            shown = corrupt(mask, item.record) if item.wrong else mask
            if shown is not None and mask_digest(shown) == item.mask:
                return mask
        raise InvalidRowError("mask_unknown", "mask", item.mask, f"no refine round holds the mask that was shown for {item.record}")

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


@dataclass
class Reader:
    """Reads one person's annotations; what cannot be read, or is another's, goes on the list `bad`."""

    desk: ReviewStore
    person: Annotator
    authors: Authors
    items: Mapping[str, Item]
    shown: Shown
    bad: list[dict[str, Any]] = field(default_factory=list)
    not_ours: int = 0

    def newest(self, task: Task, annotations: Sequence[Any]) -> Answer | None:
        """Return the newest readable answer to a task, or None."""
        item = self.items.get(task.key)
        if item is None:
            self.not_ours += len(annotations)
            return None
        whole = []
        for annotation in annotations:
            if _is_whole(annotation):
                whole.append(annotation)
            else:
                reason = InvalidRowError(
                    "annotation_damaged", "annotation", annotation, "its number (id), text (updated_at) and author are expected"
                )
                self._refuse(task, item, annotation, reason)
        for annotation in sorted(whole, key=lambda one: (one["updated_at"], one["id"]), reverse=True):
            try:
                found = self._read(annotation, item)
            except InvalidRowError as reason:
                self._refuse(task, item, annotation, reason)
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

    def _refuse(self, task: Task, item: Item, annotation: Any, reason: InvalidRowError) -> None:
        known = annotation if isinstance(annotation, dict) else {}
        number, updated = known.get("id"), known.get("updated_at")
        self.bad.append(
            {
                "task": task.id,
                "annotation": number if type(number) is int and 0 <= number < 2**63 else None,
                "updated": updated if isinstance(updated, str) else None,
                "record": item.record,
                "code": reason.code,
                "reason": str(reason),
            }
        )

    def _read(self, annotation: Mapping[str, Any], item: Item) -> dict[str, Any]:
        """Return what an annotation says.

        Raises:
            InvalidRowError: it is another person's, was changed by one, or cannot be read; also for whatever error nobody thought of.
        """
        self.authors.check(annotation, self.person)
        shown = self.shown.mask(item)
        read = read_expert if item.kind == "expert" else read_annotation
        try:
            return read(annotation, shown)
        except (InvalidRowError, MemoryError):
            raise
        except RisbenchError as error:
            raise InvalidRowError("answer_damaged", "result", None, str(error)) from None
        except Exception as error:  # noqa: BLE001 (one odd answer never ends the pull; it is counted, named and logged)
            reason = refusal_of(error, f"annotation {annotation['id']} of {self.person.name}")
            if isinstance(reason, Unexpected):
                where = f"annotation {annotation['id']} of {self.person.name} [{reason.trace_id}]"
                append_lines(self.desk.root / ERRORS_LOG, [where, reason.trace])
            raise reason from None


@dataclass(frozen=True)
class Authors:
    """Who is who on the server: of every person the number of their account, of every account whose it is."""

    numbers: Mapping[str, int]
    names: Mapping[int, str]

    @classmethod
    def of(cls, studio: Studio, people: Sequence[Annotator]) -> Authors:
        """Ask the server; accounts of nobody on the desk are called by their email."""
        known, users = {person.email: person.name for person in people}, studio.users()
        numbers = {known[email]: number for email, number in users.items() if email in known}
        return cls(numbers, {number: known.get(email, email) for email, number in users.items()})

    def check(self, annotation: Mapping[str, Any], person: Annotator) -> None:
        """Pass what the person themselves submitted and nobody changed since.

        Raises:
            InvalidRowError: it is another person's, or another person changed it.
        """
        author, changed_by = _number_of(annotation["completed_by"]), _number_of(annotation.get("updated_by"))
        user = self.numbers.get(person.name, author)  # an account that was deleted is in no list of the server
        if author != user:
            raise InvalidRowError(
                "not_theirs", "completed_by", self._name(author), f"only {person.name} (user {user}) answers in their project"
            )
        if changed_by is not None and changed_by != user:
            mend = f"{person.name} opens the task, looks and presses Update, or `risbench review reask` asks again"
            raise InvalidRowError("changed_by_another", "updated_by", self._name(changed_by), f"{person.name} gave this answer; {mend}")

    def _name(self, user: int | None) -> str:
        return self.names.get(user, f"user {user}") if user is not None else "nobody"


def _number_of(user: Any) -> int | None:
    """Return the number of a user, whom the server gives as a number or as an object."""
    number = user.get("id") if isinstance(user, dict) else user
    return number if type(number) is int else None


def sorted_by_time(annotations: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return annotations, oldest first, and apart from them what lacks a number, an author or a time."""
    whole = [one for one in annotations if _is_whole(one)]
    return sorted(whole, key=lambda one: (one["updated_at"], one["id"])), [one for one in annotations if not _is_whole(one)]


def _is_whole(annotation: Any) -> bool:
    """Return whether an annotation has what tells one from another: a number, a time and an author."""
    if not isinstance(annotation, dict) or "completed_by" not in annotation:
        return False
    number, updated = annotation.get("id"), annotation.get("updated_at")
    return type(number) is int and 0 <= number < 2**63 and isinstance(updated, str) and bool(updated)
