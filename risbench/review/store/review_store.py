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
pulled.json       when `pull` last went through
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, TypeAdapter

from risbench.core.errors import InputError, printable
from risbench.core.storage import create_new, explain_os_error, to_json, write_durably
from risbench.core.workspace import Workspace
from risbench.review.labelstudio.client import check_url
from risbench.review.rules.plan import Item
from risbench.review.store.stored import RESTORE, Number, Text, damaged, read_rows, read_text, read_value, unique

DESK: Final = "review"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Annotator:
    """One person: the name the lab uses, what they log in with, their projects on the server, whether they get no new work,
    whether what they alone answered is asked of somebody else, and whether they are an expert, who gets no tasks."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Text
    email: Text
    project: Number | None = None
    expert_project: Number | None = None
    audit_project: Number | None = None
    paused: bool = False
    recheck: bool = False
    expert: bool | None = None  # older lists do not say

    @property
    def is_expert(self) -> bool:
        """Return whether they get no tasks because they decide on those of others; in older lists their projects tell it."""
        return self.expert if self.expert is not None else self.paused and self.expert_project is not None and self.project is None

    @property
    def gets_no_work(self) -> str:
        """Return why they get no new work, and what changes that; empty where they do."""
        resume = f"`risbench review annotators pause {self.name} --resume` gives them tasks"
        if self.is_expert:
            return f"annotator {self.name}: is an expert, whom only `risbench review adjudicate` gives work; {resume}"
        return f"annotator {self.name}: is paused; {resume}" if self.paused else ""


@dataclass(frozen=True)
class Connection:
    """Where the server is; what else the file holds is of another version and left alone."""

    url: str | None = None
    public_url: str | None = None
    port: int | None = None
    pid: int | None = None
    images: str | None = None
    database: Literal["sqlite", "postgres", "remote"] | None = None


@dataclass(frozen=True)
class Pulled:
    """When the last pull went through, as ISO 8601 in UTC."""

    at: str


_ANNOTATORS: Final = TypeAdapter(list[Annotator])
_ITEM: Final = TypeAdapter(Item)
_CONNECTION: Final = TypeAdapter(Connection)
_PULLED: Final = TypeAdapter(Pulled)


class ReviewStore:
    """A workspace's review folder."""

    def __init__(self, workspace: Workspace, folder: str = DESK) -> None:
        """Open the folder, and make it where it is missing.

        Raises:
            MissingRequirementError: it cannot be made.
        """
        self.workspace = workspace
        self.root = workspace.root / folder
        try:
            self.root.mkdir(mode=0o700, exist_ok=True)
            (self.root / "answers").mkdir(exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, self.root) from error

    def secret(self) -> bytes:
        """Return the key of opaque names; it is made at the first call.

        Raises:
            InputError: it is damaged, or gone while there is work that was named with it.
        """
        path = self.root / "secret"
        if not path.exists():
            if any((self.root / name).exists() for name in ("queue.jsonl", "audit/plan.jsonl")):
                raise InputError(f"{path}: is missing, and every task was named with it; {RESTORE}")
            write_private(path, secrets.token_hex(32))
        text = read_text(path)
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if not key:
            raise damaged(path, None, "hexadecimal digits were expected", RESTORE)
        return key

    def token(self) -> str:
        """Return the access token of the server's admin; empty where there is none.

        Raises:
            InputError: the file holds no line of text.
        """
        return read_text(self.root / "token", "put a valid token into it, in one line")

    def annotators(self) -> list[Annotator]:
        """Return the people, by name.

        Raises:
            InputError: the list is damaged.
        """
        path = self.root / "annotators.json"
        people = read_value(path, _ANNOTATORS, b"[]")
        same = unique(lambda name: name, "annotator")
        for person in people:
            if (wrong := same(person.name)) is not None:
                raise damaged(path, None, wrong, RESTORE)
        return people

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
        """Return every item ever planned.

        Raises:
            InputError: the list is damaged.
        """
        return read_rows(self.root / "queue.jsonl", _ITEM, check=unique(lambda item: item.key, "key"))

    def save_queue(self, items: Iterable[Item]) -> None:
        """Store the plan."""
        lines = "".join(json.dumps(asdict(item), sort_keys=True) + "\n" for item in items)
        write_durably(self.root / "queue.jsonl", lines.encode())

    def connection(self) -> dict[str, Any]:
        """Return where the server is; empty before there was one.

        Raises:
            InputError: the file is damaged.
            OptionError: an address in it holds a password.
        """
        found = {name: value for name, value in asdict(read_value(self._connection, _CONNECTION, b"{}")).items() if value is not None}
        for name in ("url", "public_url"):
            if name in found:
                check_url(found[name])
        return found

    def save_connection(self, **values: Any) -> None:
        """Store where the server is."""
        write_durably(self._connection, to_json(self.connection() | values))

    @property
    def _connection(self) -> Path:
        return self.root / "connection.json"

    def pulled(self) -> str | None:
        """Return when the last pull went through, as ISO 8601 in UTC; None before the first.

        Raises:
            InputError: the file is damaged.
        """
        found = read_value(self.root / "pulled.json", _PULLED, b'{"at": ""}', "remove it")
        try:
            return datetime.fromisoformat(found.at).astimezone(UTC).strftime(_TIME) if found.at else None
        except (ValueError, OverflowError):
            raise damaged(self.root / "pulled.json", None, f"at = {printable(found.at, 60)}: is no time", "remove it") from None

    def note_pulled(self) -> None:
        """Store that a pull went through now."""
        write_durably(self.root / "pulled.json", to_json({"at": datetime.now(UTC).strftime(_TIME)}))

    def note(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a line to one of the desk's diaries, so that it survives us."""
        append_lines(self.root / name, [json.dumps(row, sort_keys=True)])


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


def pseudonym(desk: ReviewStore, name: str) -> str:
    """Return what a person is called in records and on the server."""
    return "a-" + hashlib.sha256(desk.secret() + name.encode()).hexdigest()[:8]


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, not even for a moment."""
    temporary = path.with_name(f".tmp.{path.name}")
    try:
        with os.fdopen(create_new(temporary, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise explain_os_error(error, path) from error
