"""What risbench asks of Label Studio: tasks, answers, projects and accounts, each answer checked before anybody relies on it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from risbench.core.errors import InputError
from risbench.review.labelstudio.client import Client, NotThere, OutcomeUnknownError
from risbench.review.store.review_store import ReviewStore

_PAGE: Final = 1000
_EXPORTED_AT_ONCE: Final = 50
_LOOK_AGAIN_S: Final = (0.5, 1.0)
# Conditions on tasks: field, type and value, as the server's data manager takes them.
_DRAFTED: Final = (("draft_exists", "Boolean", "true"),)
_UNTOUCHED: Final = (("total_annotations", "Number", 0), ("cancelled_annotations", "Number", 0), ("draft_exists", "Boolean", "false"))


@dataclass(frozen=True)
class Task:
    """A task on the server, without its masks; `shown` says how many predictions it has, so whether it shows a mask."""

    id: int
    key: str
    updated: str
    annotations: int
    drafted: bool
    shown: int = 1


class Studio(Client):
    """A Label Studio, by what is asked of it."""

    @classmethod
    def of(cls, desk: ReviewStore) -> Studio:
        """Return the server that the desk is connected to.

        Raises:
            InputError: there was none yet.
        """
        found = desk.connection()
        if "url" not in found or not (desk.root / "token").exists():
            raise InputError(f"{desk.root}: no Label Studio is known here; start one with `risbench review serve` and leave it running")
        return cls(str(found["url"]), desk.token(), remote=found.get("database") == "remote")

    def keys(self, project: int, *, drafts: bool = False) -> list[Task]:
        """Return all tasks of a project, in the server's order; with `drafts` also whether someone has begun one.

        Raises:
            NotThere: the project is gone.
        """
        self.get(f"/api/projects/{project}/")  # of a project that is gone, the list of tasks says nothing
        begun = {row["id"] for row in self._rows(project, query=json.dumps({"filters": _filters(_DRAFTED)}))} if drafts else set()
        found, where = [], f"GET /api/tasks of project {project}"
        for row in self._rows(project):
            number = self.value(row, "id", int, where)
            data, updated = self.value(row, "data", dict, where), self.value(row, "updated_at", str, where)
            answered = self.value(row, "total_annotations", int, where) + self.value(row, "cancelled_annotations", int, where)
            shown = row.get("total_predictions", 1)  # a server that does not say is believed
            found.append(Task(number, str(data.get("key")), updated, answered, number in begun, shown if isinstance(shown, int) else 1))
        return sorted(found, key=lambda task: task.id)

    def _rows(self, project: int, **more: Any) -> list[dict[str, Any]]:
        """Return all rows of a list of tasks; a list that is shorter than the server says it is, is asked for again.

        Raises:
            OutcomeUnknownError: it stays shorter.
        """
        for pause in (*_LOOK_AGAIN_S, None):
            rows, total = self._pages(project, more)
            if len(rows) >= total:
                return list(rows.values())
            if pause is not None:
                time.sleep(pause)  # somebody may have removed tasks between two pages
        raise OutcomeUnknownError(
            f"{self.url}: project {project}: the server lists {len(rows)} tasks and says that there are {total}; run the same command again"
        )

    def _pages(self, project: int, more: dict[str, Any]) -> tuple[dict[int, dict[str, Any]], int]:
        """Return the rows of all pages, by number, and how many there are by the last page's word."""
        rows: dict[int, dict[str, Any]] = {}
        page, where = 1, f"GET /api/tasks of project {project}"
        while True:
            answer = self.get("/api/tasks", project=project, fields="task_only", page=page, page_size=_PAGE, **more)
            there, total = self.value(answer, "tasks", list, where), self.value(answer, "total", int, where)
            rows |= {self.value(row, "id", int, where): row for row in there}
            if page * _PAGE >= total or not there:
                return rows, total
            page += 1

    def users(self) -> dict[str, int]:
        """Return the number of every account, by its email."""
        where, rows = "GET /api/users/", self.get("/api/users/")
        if not isinstance(rows, list):
            raise self.odd(where, "a list of users is expected", rows)
        return {self.value(row, "email", str, where): self.value(row, "id", int, where) for row in rows}

    def add_tasks(self, project: int, tasks: Sequence[dict[str, Any]]) -> list[int]:
        """Send tasks with their predictions; return their ids.

        Raises:
            OutcomeUnknownError: none, some or all of them may be there.
        """
        answer = self.change("POST", f"/api/projects/{project}/import", list(tasks), return_task_ids="true")
        ids = answer.get("task_ids") if isinstance(answer, dict) else None
        if not isinstance(ids, list) or len(ids) != len(tasks):
            raise OutcomeUnknownError(
                f"{self.url}: project {project}: sent {len(tasks)} tasks, the server does not say that it has them all"
            )
        return [int(value) for value in ids]

    def delete_tasks(self, project: int, ids: Sequence[int]) -> None:
        """Remove tasks that nobody has answered or begun by the time the server gets to them; one that is gone is no error."""
        for start in range(0, len(ids), _PAGE):
            chosen = list(ids[start : start + _PAGE])
            body = {"selectedItems": {"all": False, "included": chosen}, "filters": _filters(_UNTOUCHED)}
            self.change("POST", "/api/dm/actions", body, id="delete_tasks", project=project)

    def annotations(self, project: int, tasks: Iterable[Task]) -> tuple[dict[int, list[Any]], dict[int, str]]:
        """Return all that people submitted to these tasks, by task, and of each task whose answers did not all come what is odd.

        A few tasks in a call, as an edited mask has 170 KB. What the export leaves out, of whole tasks or of answers that the list has
        counted, is asked for once more and then task by task: fewer answers are believed only where both say the same.
        """
        wanted = {task.id: task.annotations for task in tasks}
        found: dict[int, list[Any]] = {}
        doubts: dict[int, str] = {}
        for start in range(0, len(wanted), _EXPORTED_AT_ONCE):
            chunk = list(wanted)[start : start + _EXPORTED_AT_ONCE]
            rows = self._export(project, chunk)
            if short := [task for task in chunk if len(rows.get(task, ())) < wanted[task]]:
                time.sleep(_LOOK_AGAIN_S[0])
                again = self._export(project, short)
                rows |= {task: there for task, there in again.items() if len(there) >= len(rows.get(task, ()))}
            for task in chunk:
                there = rows.get(task)
                if there is None or len(there) < wanted[task]:
                    there = self._fewer(task, there, wanted[task])
                if there is not None:
                    found[task] = there
                else:
                    doubts[task] = f"{self.url}: task {task}: answers by the server's list: {wanted[task]}, and its export has fewer"
        return found, doubts

    def _export(self, project: int, tasks: Sequence[int]) -> dict[int, list[Any]]:
        """Return what the export says of tasks, by task; it may leave some out."""
        where = f"GET /api/projects/{project}/export"
        chosen = {"ids[]": [str(task) for task in tasks]}
        rows = self.get(f"/api/projects/{project}/export", exportType="JSON", download_all_tasks="true", **chosen)
        if not isinstance(rows, list):
            raise self.odd(where, "a list of tasks is expected", rows)
        found = {self.value(row, "id", int, where): row.get("annotations") for row in rows}
        return {number: annotations for number, annotations in found.items() if number in tasks and isinstance(annotations, list)}

    def _fewer(self, task: int, exported: list[Any] | None, counted: int) -> list[Any] | None:
        """Return the answers to a task of which the export has fewer than were counted, as one may have been taken back; None in doubt."""
        try:
            there = self.get(f"/api/tasks/{task}/annotations/")
        except NotThere:
            return None
        if isinstance(there, list) and (len(there) >= counted or (exported is not None and _numbers(there) == _numbers(exported))):
            return there
        return None

    def delete_annotation(self, number: int) -> None:
        """Remove an answer, and its task is asked again; one that is gone is no error."""
        with contextlib.suppress(NotThere):
            self.change("DELETE", f"/api/annotations/{number}/")

    def has_annotation(self, number: int) -> bool:
        """Return whether an answer is there."""
        try:
            self.get(f"/api/annotations/{number}/")
        except NotThere:
            return False
        return True

    def project(self, number: int) -> dict[str, Any]:
        """Return a project's settings.

        Raises:
            NotThere: the project is gone.
        """
        found, where = self.get(f"/api/projects/{number}/"), f"GET /api/projects/{number}/"
        for name in ("title", "label_config"):
            self.value(found, name, str, where)
        return dict(found)

    def projects_named(self, title: str) -> list[int]:
        """Return the numbers of all projects with a title, oldest first."""
        where = "GET /api/projects/"
        rows = self.value(self.get("/api/projects/", title=title, page_size=100, include="id,title"), "results", list, where)
        return sorted(self.value(row, "id", int, where) for row in rows if self.value(row, "title", str, where) == title)

    def invitation(self) -> str:
        """Return the token behind which people sign up."""
        where = "GET /api/invite"
        return self.value(self.get("/api/invite"), "invite_url", str, where).partition("token=")[2]

    def version(self) -> str:
        """Return the server's version."""
        return self.value(self.get("/api/version"), "release", str, "GET /api/version")

    def storages(self, project: int) -> set[str]:
        """Return the folders that a project may show files of."""
        where, rows = "GET /api/storages/localfiles/", self.get("/api/storages/localfiles/", project=project)
        if not isinstance(rows, list):
            raise self.odd(where, "a list of storages is expected", rows)
        return {self.value(row, "path", str, where) for row in rows}

    def make_project(self, settings: dict[str, Any]) -> int:
        """Make a project and return its number.

        Raises:
            OutcomeUnknownError: it may have been made or not.
        """
        return self.value(self.change("POST", "/api/projects/", settings), "id", int, "POST /api/projects/")


def _numbers(annotations: Sequence[Any]) -> set[Any]:
    return {str(one.get("id")) for one in annotations if isinstance(one, dict)}


def _filters(conditions: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    """Return conditions that must all hold."""
    items = [{"filter": f"filter:tasks:{name}", "operator": "equal", "type": kind, "value": value} for name, kind, value in conditions]
    return {"conjunction": "and", "items": items}
