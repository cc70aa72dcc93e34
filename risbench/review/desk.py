"""The review desk: the folder `review/` of a workspace, where everything lies that people's work needs besides the records.

secret            the key of all opaque names (0600)
connection.json   which server, and where its token lies
token             the admin's access token (0600)
password          the admin's password (0600)
annotators.json   names, emails, their projects on the server
accounts/         a card with login and password for each of them (0600)
queue.jsonl       every item ever planned
journal.jsonl     what was sent, before and after
answers/          what came back, one file a project
quarantine.jsonl  answers that cannot be used, and why
reasked.jsonl     what was in answers that could not be used and were asked again
deleted.jsonl     what was in answers that are gone from the server, or cannot be read any more
audit/            the audit sample: who draws which record, and what they drew
audit.json        what it came to
triage.jsonl      the reviewers' glances at sheets
push.unfinished   there while a plan is being brought to the server
assist/           the lock of the one assistant
server/           Label Studio's own data (0700)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import InputError, printable
from risbench.core.storage import explain_os_error, to_json, write_durably
from risbench.core.workspace import Workspace
from risbench.review.plan import Item

DESK: Final = "review"


@dataclass(frozen=True)
class Annotator:
    """One person: the name the lab uses, what they log in with, their projects on the server, whether they get new work,
    and whether what they alone answered is asked of somebody else."""

    name: str
    email: str
    project: int | None = None
    expert_project: int | None = None
    audit_project: int | None = None
    paused: bool = False
    recheck: bool = False


class Desk:
    """A workspace's review folder."""

    def __init__(self, workspace: Workspace) -> None:
        """Open the folder, and make it where it is missing.

        Raises:
            EnvironmentLacks: it cannot be made.
        """
        self.workspace = workspace
        self.root = workspace.root / DESK
        try:
            self.root.mkdir(mode=0o700, exist_ok=True)
            (self.root / "answers").mkdir(exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.root) from error

    def secret(self) -> bytes:
        """Return the key of opaque names; it is made at the first call."""
        path = self.root / "secret"
        if not path.exists():
            write_private(path, secrets.token_hex(32))
        return bytes.fromhex(path.read_text().strip())

    def annotators(self) -> list[Annotator]:
        """Return the people, by name."""
        return [Annotator(**row) for row in self._json("annotators.json", [])]

    def save_annotators(self, people: Iterable[Annotator]) -> None:
        """Store the people."""
        write_durably(self.root / "annotators.json", to_json([asdict(person) for person in sorted(people, key=lambda one: one.name)]))

    def change_annotator(self, name: str, **values: Any) -> Annotator:
        """Store one person's new values.

        Raises:
            InputError: there is no such person.
        """
        changed = replace(self.annotator(name), **values)
        self.save_annotators(changed if person.name == name else person for person in self.annotators())
        return changed

    def annotator(self, name: str) -> Annotator:
        """Return a person.

        Raises:
            InputError: there is no such person.
        """
        people = {person.name: person for person in self.annotators()}
        if name not in people:
            known = ", ".join(people) or "nobody yet: `risbench review annotators add NAME`"
            raise InputError(f"annotator {printable(name)}: is not known here; there are {known}")
        return people[name]

    def queue(self) -> list[Item]:
        """Return every item ever planned."""
        path = self.root / "queue.jsonl"
        if not path.exists():
            return []
        items = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                items.append(Item(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}: line {number}: is damaged ({error}); restore the desk from a backup") from None
        return items

    def save_queue(self, items: Iterable[Item]) -> None:
        """Store the plan."""
        lines = "".join(json.dumps(asdict(item), sort_keys=True) + "\n" for item in items)
        write_durably(self.root / "queue.jsonl", lines.encode())

    def connection(self) -> dict[str, Any]:
        """Return where the server is; empty before there was one."""
        found: dict[str, Any] = self._json("connection.json", {})
        return found

    def save_connection(self, **values: Any) -> None:
        """Store where the server is."""
        write_durably(self.root / "connection.json", to_json(self.connection() | values))

    def note(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a line to one of the desk's diaries, so that it survives us."""
        append_lines(self.root / name, [json.dumps(row, sort_keys=True)])

    def _json(self, name: str, default: Any) -> Any:
        path = self.root / name
        if not path.exists():
            return default
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path}: is damaged ({error}); restore the desk from a backup") from None


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Add whole lines; one that a kill cut off is taken away first, so that it spoils no other. Two at once wait for each other."""
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(("\n".join(lines) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def pseudonym(desk: Desk, name: str) -> str:
    """Return what a person is called in records and on the server."""
    return "a-" + hashlib.sha256(desk.secret() + name.encode()).hexdigest()[:8]


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, not even for a moment."""
    temporary = path.with_name(f".tmp.{path.name}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
