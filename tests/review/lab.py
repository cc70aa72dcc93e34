"""A lab at the real server: workspaces of their own, people who log in as people do, and a network that fails."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import requests

from risbench.core.workspace import Workspace
from risbench.review.labelstudio.accounts import add_annotators
from risbench.review.store.review_store import ReviewStore, write_private

ACCEPT, FIX, REJECT, UNSURE = "accept", "fix", "reject", "unsure"
Region = dict[str, Any]


def fresh_workspace(host: Path, folder: Path) -> Path:
    """Return a copy of the host's workspace with an empty desk that knows the host's server; the server keeps reading the host's images."""
    shutil.copytree(host, folder, ignore=shutil.ignore_patterns("review", "3-review", ".lock"))
    theirs, mine = ReviewStore(Workspace.open(host)), ReviewStore(Workspace.open(folder))
    write_private(mine.root / "token", (theirs.root / "token").read_text().strip())
    mine.save_connection(**theirs.connection())
    return folder


def choice(name: str, value: str) -> Region:
    """Return a choice as the page submits it."""
    return {"id": name, "type": "choices", "from_name": name, "to_name": "image", "value": {"choices": [value]}}


def text(name: str, words: str) -> Region:
    """Return a text as the page submits it."""
    return {"id": name, "type": "textarea", "from_name": name, "to_name": "image", "value": {"text": [words]}}


class Person:
    """An annotator with a session of their own, as the browser has one."""

    def __init__(self, workspace: Path, name: str) -> None:
        card = dict(line.split(None, 1) for line in (workspace / "review" / "accounts" / f"{name}.txt").read_text().splitlines())
        self.login, self.password, self.page = card["login"], card["password"], card["address"]
        self.base = self.page.rpartition("/user/login")[0]
        self.workspace, self.name, self.session = workspace, name, requests.Session()
        self.session.trust_env = False
        self.session.get(self.page, timeout=60)
        form = {"csrfmiddlewaretoken": self.session.cookies["csrftoken"], "email": self.login, "password": self.password}
        answer = self.session.post(self.page, data=form, headers={"Referer": self.page}, allow_redirects=False, timeout=60)
        assert answer.status_code == 302, "the account does not work"

    @property
    def project(self) -> int:
        rows = json.loads((self.workspace / "review" / "annotators.json").read_text())
        return int(next(row["project"] for row in rows if row["name"] == self.name))

    def next(self) -> dict[str, Any] | None:
        """Return the task that the server hands out next."""
        answer = self.session.get(f"{self.base}/api/projects/{self.project}/next", timeout=120)
        return answer.json() if answer.status_code == 200 else None

    def send(self, method: str, path: str, body: Any) -> requests.Response:
        token = self.session.cookies.get("csrftoken", "")
        return self.session.request(method, self.base + path, json=body, headers={"X-CSRFToken": token, "Referer": self.base}, timeout=120)

    def answer(self, task: dict[str, Any], verdict: str, *more: Region, mask: list[Region] | None = None, seconds: float = 5.0) -> int:
        """Submit an answer; the shown regions stay unless `mask` takes the place of the brush."""
        shown = task["predictions"][0]["result"]
        kept = shown if mask is None else [region for region in shown if region["type"] != "brushlabels"] + mask
        body = {
            "result": [*kept, choice("verdict", verdict), *more],
            "lead_time": seconds,
            "parent_prediction": task["predictions"][0]["id"],
        }
        reply = self.send("POST", f"/api/tasks/{task['id']}/annotations/", body)
        assert reply.status_code == 201, reply.text[:300]
        return int(reply.json()["id"])

    def work(self, decide: Callable[[dict[str, Any]], tuple[str, dict[str, Any]]], most: int = 10_000) -> int:
        """Answer task after task."""
        for done in range(most):
            if (task := self.next()) is None:
                return done
            verdict, more = decide(task)
            self.answer(task, verdict, *more.pop("regions", ()), **more)
        return most


def brush(task: dict[str, Any], rle: list[int]) -> Region:
    """Return a brush region of a task's image."""
    shown = next(region for region in task["predictions"][0]["result"] if region["type"] == "brushlabels")
    return {**shown, "id": "drawn", "value": {"format": "rle", "rle": rle, "brushlabels": ["object"]}}


def people(workspace: Path, *names: str) -> dict[str, Person]:
    """Add annotators and log them in."""
    add_annotators(names, workspace=workspace)
    return {name: Person(workspace, name) for name in names}


def keys_on_server(workspace: Path, person: Person) -> list[str]:
    """Return the keys of all tasks in a person's project, asked of the server by other means than risbench's."""
    token = (workspace / "review" / "token").read_text().strip()
    answer = requests.get(
        f"{person.base}/api/projects/{person.project}/export",
        params={"exportType": "JSON_MIN", "download_all_tasks": "true"},
        headers={"Authorization": f"Token {token}"},
        timeout=120,
    )
    answer.raise_for_status()
    return [row["key"] for row in answer.json()]


@dataclass
class Faults:
    """How often a proxy fails, and what it did."""

    share: float
    random: np.random.Generator
    counts: dict[str, int]
    only: str = ""


WAYS = ("refused", "500 before", "500 after commit", "429", "reset after commit", "html", "empty ids", "cut body", "slow then reset")


@contextmanager
def failing_proxy(  # noqa: C901 (the handler's functions count, too)
    target: str, share: float, seed: int = 0, only: str = "", ways: Sequence[str] = WAYS
) -> Iterator[tuple[str, Faults]]:
    """Run a proxy to `target` that fails a share of calls in every way that networks do: before and after the server did the work.

    `only` bounds it to paths that match a pattern.
    """
    faults = Faults(share, np.random.default_rng(seed), {}, only)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, BrokenPipeError):
                self.close_connection = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            way = ""
            with lock:
                if (not only or re.search(only, self.path)) and faults.random.random() < faults.share:
                    way = str(faults.random.choice(ways))
                    faults.counts[way] = faults.counts.get(way, 0) + 1
            if way == "refused":
                return self._drop()
            if way in ("500 before", "429"):
                return self._reply(int(way[:3]), b'{"detail": "no"}', "application/json")
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection", "accept-encoding")}
            answer = requests.request(self.command, target + self.path, data=body, headers=headers, timeout=300, allow_redirects=False)
            if way == "slow then reset":
                time.sleep(1.0)
            if way in ("reset after commit", "slow then reset"):
                return self._drop()
            if way == "500 after commit":
                return self._reply(500, b"Internal Server Error", "text/plain")
            if way == "html":
                return self._reply(200, b"<html><body>Please log in</body></html>", "text/html")
            content = answer.content
            if way == "empty ids" and b'"task_ids"' in content:
                content = json.dumps({**answer.json(), "task_ids": []}).encode()
            if way == "cut body" and len(content) > 4:
                self._reply(answer.status_code, content, "application/json", cut=True)
                return self._drop()
            return self._reply(answer.status_code, content, answer.headers.get("Content-Type", "application/json"))

        def _reply(self, code: int, content: bytes, kind: str, cut: bool = False) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)

        def _drop(self) -> None:
            self.close_connection = True
            self.connection.close()

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve  # noqa: N815 (the names that http.server calls)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def rewriting_proxy(target: str, rewrite: Callable[[str, Any], Any], sent: Callable[[str, Any], Any] | None = None) -> Iterator[str]:
    """Run a proxy to `target` that hands on what `rewrite(path, answer)` makes of every JSON answer to a question, and what
    `sent(path, body)` makes of every JSON body that is posted."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection", "accept-encoding")}
            if sent is not None and self.command == "POST":
                body = json.dumps(sent(self.path, json.loads(body))).encode()
                headers["Content-Length"] = str(len(body))
            answer = requests.request(self.command, target + self.path, data=body, headers=headers, timeout=300, allow_redirects=False)
            content = answer.content
            if self.command == "GET" and answer.ok:
                content = json.dumps(rewrite(self.path, answer.json())).encode()
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 (the names that http.server calls)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
