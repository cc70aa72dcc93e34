"""Label Studio over HTTP: one call at a time, every outcome named. Who calls decides what may be sent twice.

A failed call is one of three: not done (an InputError or EnvironmentLacks), done or not, nobody knows (`Unknown`), or the server is
not there at all (TryAgainLater). Reading is tried again by itself; nothing that changes the server is.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import requests

from risbench.core.errors import EnvironmentLacks, InputError, TryAgainLater, printable
from risbench.review.desk import Desk

_READ_AGAIN_S: Final = (0.5, 1.0, 2.0, 4.0)
_PAGE: Final = 1000
_EXPORTED_AT_ONCE: Final = 50
_TIMEOUT_S: Final = 120.0
# Conditions on tasks: field, type and value, as the server's data manager takes them.
_DRAFTED: Final = (("draft_exists", "Boolean", "true"),)
_UNTOUCHED: Final = (("total_annotations", "Number", 0), ("cancelled_annotations", "Number", 0), ("draft_exists", "Boolean", "false"))


class Unknown(TryAgainLater):
    """The call was sent, and whether the server did it is not known."""


class NotThere(InputError):
    """What the call is about is not on the server (any more)."""


@dataclass(frozen=True)
class Task:
    """A task on the server, without its masks."""

    id: int
    key: str
    updated: str
    annotations: int
    drafted: bool


class Studio:
    """A Label Studio and the token to it. Neither token nor header is ever part of a message."""

    def __init__(self, url: str, token: str, *, remote: bool = False) -> None:
        """Know a server; `remote` is true of one that somebody else runs."""
        self.url, self._token, self.remote, self._session = url.rstrip("/"), token, remote, requests.Session()
        self._session.trust_env = False  # a proxy of the environment would see the token
        self._authorize()

    @classmethod
    def of(cls, desk: Desk) -> Studio:
        """Return the server that the desk is connected to.

        Raises:
            InputError: there was none yet.
        """
        found, path = desk.connection(), desk.root / "token"
        if "url" not in found or not path.exists():
            raise InputError(f"{desk.root}: no Label Studio is known here; start one with `risbench review serve` and leave it running")
        return cls(str(found["url"]), path.read_text().strip(), remote=found.get("database") == "remote")

    def _authorize(self) -> None:
        if self._token.count(".") != 2:
            self._session.headers["Authorization"] = f"Token {self._token}"
            return
        # a personal access token is a refresh token: it buys short-lived ones
        self._session.headers.pop("Authorization", None)
        try:
            found = self._once("POST", "/api/token/refresh/", {"json": {"refresh": self._token}})
        except _Unauthorized:
            raise self._refused() from None
        self._session.headers["Authorization"] = f"Bearer {found['access']}"

    def get(self, path: str, **params: Any) -> Any:
        """Return what the server answers to a question; a question may be asked again."""
        for pause in (*_READ_AGAIN_S, None):
            try:
                return self._call("GET", path, {"params": params})
            except TryAgainLater:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def change(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Return what the server answers to a change, sent once.

        Raises:
            Unknown: the change may have been made or not.
        """
        return self._call(method, path, {"json": body, "params": params})

    def _call(self, method: str, path: str, more: dict[str, Any]) -> Any:
        try:
            return self._once(method, path, more)
        except _Unauthorized:
            if self._token.count(".") == 2:
                self._authorize()
                try:
                    return self._once(method, path, more)
                except _Unauthorized:
                    pass
            raise self._refused() from None

    def _refused(self) -> EnvironmentLacks:
        if self.remote:
            return EnvironmentLacks(
                f"{self.url}: the access token is refused; set RISBENCH_LABEL_STUDIO_TOKEN to a valid one of its admin, "
                f"and run `risbench review connect {self.url}` again"
            )
        return EnvironmentLacks(f"{self.url}: the access token is refused; put a valid one into the file `token` of the review folder")

    def _to_do(self) -> str:
        if self.remote:
            return "is it running, and does this machine reach it? `risbench review connect URL` names another address"
        return "start it with `risbench review serve` and leave it running"

    def _once(self, method: str, path: str, more: dict[str, Any]) -> Any:
        what = f"{method} {path}"
        try:
            answer = self._session.request(method, self.url + path, timeout=(10, _TIMEOUT_S), allow_redirects=False, **more)
        except requests.exceptions.ConnectTimeout:
            raise TryAgainLater(f"{self.url}: does not answer; {self._to_do()}") from None
        except requests.ConnectionError as error:
            if "refused" in str(error) or "Name or service" in str(error) or "unreachable" in str(error):
                raise TryAgainLater(f"{self.url}: nobody is there; {self._to_do()}") from None
            raise Unknown(f"{self.url}: {what}: the connection broke; run the same command again") from None
        except requests.RequestException as error:
            raise Unknown(f"{self.url}: {what}: {type(error).__name__}; run the same command again") from None
        return _checked(answer, f"{self.url}: {what}")

    def keys(self, project: int, *, drafts: bool = False) -> list[Task]:
        """Return all tasks of a project, in the server's order; with `drafts` also whether someone has begun one.

        Raises:
            NotThere: the project is gone.
        """
        self.get(f"/api/projects/{project}/")  # of a project that is gone, the list of tasks says nothing
        begun = {row["id"] for row in self._rows(project, query=json.dumps({"filters": _filters(_DRAFTED)}))} if drafts else set()
        found = []
        for row in self._rows(project):
            answered = row["total_annotations"] + row["cancelled_annotations"]
            found.append(Task(row["id"], str(row["data"].get("key")), row["updated_at"], answered, row["id"] in begun))
        return sorted(found, key=lambda task: task.id)

    def _rows(self, project: int, **more: Any) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            answer = self.get("/api/tasks", project=project, fields="task_only", page=page, page_size=_PAGE, **more)
            yield from answer["tasks"]
            if page * _PAGE >= answer["total"] or not answer["tasks"]:
                return
            page += 1

    def add_tasks(self, project: int, tasks: Sequence[dict[str, Any]]) -> list[int]:
        """Send tasks with their predictions; return their ids.

        Raises:
            Unknown: none, some or all of them may be there.
        """
        answer = self.change("POST", f"/api/projects/{project}/import", list(tasks), return_task_ids="true")
        ids = answer.get("task_ids") if isinstance(answer, dict) else None
        if not isinstance(ids, list) or len(ids) != len(tasks):
            raise Unknown(f"{self.url}: project {project}: sent {len(tasks)} tasks, the server does not say that it has them all")
        return [int(value) for value in ids]

    def delete_tasks(self, project: int, ids: Sequence[int]) -> None:
        """Remove tasks that nobody has answered or begun by the time the server gets to them; one that is gone is no error."""
        for start in range(0, len(ids), _PAGE):
            chosen = list(ids[start : start + _PAGE])
            body = {"selectedItems": {"all": False, "included": chosen}, "filters": _filters(_UNTOUCHED)}
            self.change("POST", "/api/dm/actions", body, id="delete_tasks", project=project)

    def with_annotations(self, project: int, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield tasks with all that people submitted, a few in a call: an edited mask has 170 KB."""
        for start in range(0, len(ids), _EXPORTED_AT_ONCE):
            chosen = [str(value) for value in ids[start : start + _EXPORTED_AT_ONCE]]
            yield from self.get(f"/api/projects/{project}/export", exportType="JSON", download_all_tasks="true", **{"ids[]": chosen})

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
        found: dict[str, Any] = self.get(f"/api/projects/{number}/")
        return found

    def projects_named(self, title: str) -> list[int]:
        """Return the numbers of all projects with a title, oldest first."""
        found = self.get("/api/projects/", title=title, page_size=100, include="id,title")
        return sorted(int(row["id"]) for row in found["results"] if row["title"] == title)


def _filters(conditions: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    """Return conditions that must all hold."""
    items = [{"filter": f"filter:tasks:{name}", "operator": "equal", "type": kind, "value": value} for name, kind, value in conditions]
    return {"conjunction": "and", "items": items}


class _Unauthorized(Exception):
    pass


def _checked(answer: requests.Response, what: str) -> Any:
    """Return an answer's JSON, or raise what it means."""
    code = answer.status_code
    if code == 401:
        raise _Unauthorized
    if code == 404:
        raise NotThere(f"{what}: is not on the server")
    if code == 429 or code >= 500:
        raise Unknown(f"{what}: the server answered {code}; run the same command again")
    if not 200 <= code < 300:
        raise InputError(f"{what}: refused with {code}: {_reason(answer)}")
    if code == 204 or not answer.content:
        return None
    try:
        return answer.json()
    except requests.JSONDecodeError:
        raise Unknown(f"{what}: answered with something that is not JSON: {printable(answer.text, 60)}") from None


def _reason(answer: requests.Response) -> str:
    try:
        found = answer.json()
    except requests.JSONDecodeError:
        return printable(answer.text, 120)
    if not isinstance(found, dict):
        return printable(json.dumps(found), 200)
    return printable(json.dumps(found.get("validation_errors") or found.get("detail") or found), 300)
