"""Whether a desk is whole: every file of it that a command reads is read once."""

from __future__ import annotations

from risbench.core.workspace import Workspace
from risbench.formats.audit_sample import AuditSample
from risbench.review.store.answers import read_answers
from risbench.review.store.review_store import ReviewStore
from risbench.review.store.stored import read_text
from risbench.review.store.triage_votes import read_triage_votes
from risbench.review.verbs.audit import read_drawn, read_plan
from risbench.review.verbs.pull import quarantine_rows, read_cursor


def check_desk(workspace: Workspace, folder: str) -> None:
    """Read all of a desk's files; `folder` is the desk's, in the workspace.

    Raises:
        InputError: a file is damaged; the message names it, and the line.
        OptionError: an address in it holds a password.
    """
    desk = ReviewStore(workspace, folder)
    desk.annotators()
    if desk.queue() or (desk.root / "secret").exists():
        desk.secret()
    for name in ("token", "password"):
        read_text(desk.root / name)
    desk.connection()
    desk.pulled()
    read_answers(desk)
    for path in sorted((desk.root / "answers").glob("*.cursor.json")):
        read_cursor(path)
    quarantine_rows(desk)
    read_triage_votes(desk)
    read_plan(desk)
    read_drawn(desk)
    AuditSample.read(desk.root / "audit.json")
