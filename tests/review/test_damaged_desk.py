"""Damaged files of the desk: one line that names the file, never a traceback and never a wrong value."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from risbench.core.errors import InputError, MissingRequirementError, RisbenchError
from risbench.core.masks import encode_rle, mask_digest, mask_of
from risbench.core.workspace import Settings, Workspace, read_records
from risbench.formats.audit_sample import AuditSample
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.review.rules.plan import Item, Policy, make_key
from risbench.review.store.answers import Answer, write_answers
from risbench.review.store.review_store import Annotator, ReviewStore
from risbench.review.store.triage_votes import TriageVote
from risbench.review.verbs.audit import Drawn
from risbench.review.verbs.backup import backup, restore
from risbench.review.verbs.check import check_desk
from risbench.review.verbs.consensus import consensus
from risbench.review.verbs.push import push
from risbench.review.verbs.status import status
from tests.conftest import eval_row


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of six small records whose desk has every file that commands read."""
    from risbench.core.imagery import encode_png
    from tests.conftest import picture

    folder = tmp_path_factory.mktemp("desk")
    (folder / "source" / "Images").mkdir(parents=True)
    for index in range(2):
        (folder / "source" / "Images" / f"S{index:04d}_0000.png").write_bytes(encode_png(picture(index, 48, 48)))
    rows = [eval_row(f"S{k % 2:04d}_0000.png", k, f"{{<{20 + k}><24><{60 + k}><70>}}") for k in range(6)]
    (folder / "source" / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows))
    ingest(folder / "source", workspace=folder / "w", quiet=True)
    refine_masks(workspace=folder / "w", engine="box", workers=1, quiet=True)
    _fill(Workspace.open(folder / "w"))
    return folder / "w"


def _fill(workspace: Workspace) -> None:
    """Lay out a desk as a lab's looks after some days."""
    desk, records = ReviewStore(workspace), list(read_records(workspace.latest()))
    desk.secret()
    desk.save_annotators([Annotator("ana", "a@x", 1), Annotator("ben", "b@x", 2), Annotator("eva", "e@x", None, 3, 4, True, False, True)])
    desk.save_connection(url="http://127.0.0.1:9", public_url="http://127.0.0.1:9", database="sqlite", port=9, pid=1, images="/x")
    desk.note_pulled()
    (desk.root / "token").write_text("0" * 40 + "\n")
    (desk.root / "password").write_text("secret\n")
    items, answers, number = [], [], 0
    for index, record in enumerate(records):
        assert record.mask is not None
        digest = mask_digest(mask_of(record.mask))
        for project, name in ((1, "ana"), (2, "ben")):
            number += 1
            kind = "gold" if index == 5 else "task" if name == "ana" else "second"
            item = Item(make_key(desk.secret(), name, record.id, digest), record.id, digest, name, kind, 1, 0.5)  # type: ignore[arg-type]
            items.append(item)
            verdict = ("accept", "fix", "unsure", "reject")[number % 4]
            held = verdict != "reject"
            size, counts = encode_rle(mask_of(record.mask)) if held else (None, None)
            sentence = ("", "true and unique", "wrong")[number % 3]
            answers.append((project, Answer(item.key, record.id, name, number, number, "2026-11-30T10:00:00Z", verdict, sentence, "", size, counts, verdict == "fix", 5.0)))  # type: ignore[arg-type]  # fmt: skip
    desk.save_queue(items)
    for project in (1, 2):
        write_answers(desk.root / "answers" / f"{project}.jsonl", [answer for where, answer in answers if where == project])
        cursor = {str(answer.task): [answer.updated, 1] for where, answer in answers if where == project}
        (desk.root / "answers" / f"{project}.cursor.json").write_text(json.dumps(cursor))
    unusable = {
        "annotator": "ana",
        "project": 1,
        "task": 99,
        "annotation": 98,
        "updated": "2026",
        "record": "r",
        "code": "c",
        "reason": "x",
    }
    (desk.root / "quarantine.jsonl").write_text(json.dumps(unusable) + "\n")
    for record in records[:2]:
        assert record.mask is not None
        desk.note("triage.jsonl", asdict(TriageVote(record.id, mask_digest(mask_of(record.mask)), "ana", "s", False, 1.5)))
    (desk.root / "audit").mkdir()
    desk.note("audit/plan.jsonl", asdict(Item("k", records[0].id, "m", "eva", "audit", 1, 0.0)))
    drawn = Drawn(records[0].id, "m", 0.9, "small", "accepted", "a-1", "2026")
    desk.note("audit/drawn.jsonl", asdict(drawn))
    from risbench.formats.audit_sample import Audited

    (desk.root / "audit.json").write_bytes(AuditSample(6, 1, 0, (Audited(drawn.record, "m", 0.9, "small", "accepted", "a-1"),)).to_bytes())


FILES = (
    "secret", "connection.json", "token", "password", "annotators.json", "queue.jsonl", "answers/1.jsonl", "answers/2.cursor.json",
    "quarantine.jsonl", "triage.jsonl", "audit/plan.jsonl", "audit/drawn.jsonl", "audit.json", "pulled.json",
)  # fmt: skip
ODD: tuple[Any, ...] = (None, True, -1, 0, 10**30, 1e308, "", "x", [], {}, [[]], {"a": 1}, "\x1b[2J", "\ud800", "9" * 5000)


def _mutated(data: bytes, draw: random.Random) -> bytes:
    """Return a file's bytes with one thing wrong: a value, a key, a line, a bit, the end."""
    way = draw.choice(("value", "value", "value", "value", "key", "bit", "cut", "twice", "junk", "deep"))
    if way == "bit":
        place = draw.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
    if way == "cut":
        return data[: draw.randrange(len(data))]
    if way == "junk":
        return draw.choice((b"", b"\xff\xfe\x00", b"null", b"[]", b"{}", b"5", b"\n\n", b'"x"', b"NaN"))
    if way == "deep":
        return b"[" * 100_000
    lines = data.decode().split("\n")
    filled = [index for index, line in enumerate(lines) if line]
    if way == "twice" or data[:1] not in b"{[":
        return data + data
    whole_file = data.lstrip()[:1] in b"[{" and len(filled) > 1 and not lines[0].endswith("}")
    index = draw.choice(filled)
    value = json.loads(data if whole_file else lines[index])
    parents = list(_parents(value))
    if not parents:
        return b"[]"
    parent, key = draw.choice(parents)
    if way == "key" and isinstance(parent, dict):
        parent[draw.choice(("other", "", "id"))] = parent.pop(key)
    else:
        parent[key] = draw.choice(ODD)
    if whole_file:
        return json.dumps(value).encode()
    lines[index] = json.dumps(value)
    return "\n".join(lines).encode()


def _parents(value: Any) -> Any:
    """Yield every place of a JSON tree as (container, key)."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _parents(value[key])


def test_whatever_is_damaged_commands_give_values_or_one_line(whole: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    shutil.copytree(whole, workspace)
    opened, draw, refused, messages = Workspace.open(workspace), random.Random(16), 0, set()
    commands: tuple[Callable[[], Any], ...] = (
        lambda: check_desk(opened, "review"),
        lambda: status(workspace=workspace),
        lambda: push(workspace=workspace, policy=Policy(overlap=0.5), dry_run=True, quiet=True),
        lambda: consensus(workspace=workspace, quiet=True),
    )
    for command in commands:
        command()  # whole, it is read
    for name in [name for name in FILES for _ in range(9)]:
        path = workspace / "review" / name
        before = path.read_bytes()
        path.write_bytes(_mutated(before, draw))
        for command in (commands[0], draw.choice(commands[1:])):
            try:
                command()
            except RisbenchError as error:
                refused += 1
                text = str(error)
                assert text.isprintable(), ascii(text)
                assert len(text) < 1000, text[:1000]
                messages.add(text)
        path.write_bytes(before)
    assert refused > len(FILES) * 6
    assert any("answers/1.jsonl: line " in text and ": is damaged (" in text for text in messages)


def test_a_damaged_file_is_named_with_its_line_its_field_and_what_to_do(whole: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    shutil.copytree(whole, workspace)
    review = workspace / "review"

    def said(name: str, before: str, after: str) -> str:
        text = (review / name).read_text()
        assert before in text
        (review / name).write_text(text.replace(before, after, 1))
        with pytest.raises(RisbenchError) as caught:
            check_desk(Workspace.open(workspace), "review")
        (review / name).write_text(text)
        return str(caught.value)

    assert "queue.jsonl: line 1: is damaged (risk = 7.5: " in said("queue.jsonl", '"risk": 0.5', '"risk": 7.5')
    assert "; remove it and run `risbench review pull` again" in said("answers/1.jsonl", '"annotation": 1', '"annotation": "1"')
    assert "annotators.json: is damaged (annotator ana is there a second time)" in said("annotators.json", '"ben"', '"ana"')
    assert "answers/1.jsonl: line 1: is damaged (mask: " in said("answers/1.jsonl", '"counts": "', '"counts": "0')
    assert "secret: is damaged (hexadecimal digits were expected)" in said("secret", "", "no ")
    hidden = said("connection.json", "http://127.0.0.1:9", "http://me:hunter2@127.0.0.1:9")
    assert "holds a user name or a password" in hidden
    assert "hunter2" not in hidden
    (review / "secret").unlink()
    with pytest.raises(InputError, match="secret: is missing, and every task was named with it"):
        consensus(workspace=workspace)
    (review / "queue.jsonl").unlink()
    (review / "queue.jsonl").mkdir()
    with pytest.raises(MissingRequirementError, match="queue.jsonl: cannot be read: Is a directory"):
        ReviewStore(Workspace.open(workspace)).queue()


def test_answers_whose_masks_are_not_of_their_records_size_are_named(whole: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    shutil.copytree(whole, workspace)
    path = workspace / "review" / "answers" / "1.jsonl"
    path.write_text(path.read_text().replace('"size": [48, 48]', '"size": [24, 96]'))
    for command, other in ((status, "ana's 96 x 24"), (consensus, "the image 48 x 48")):
        with pytest.raises(InputError, match=rf"record .*'s mask is .* pixels, {other}; the answers in review/answers are damaged"):
            command(workspace=workspace)


def test_restore_puts_no_damaged_desk_back_and_backup_says_that_it_holds_one(whole: Path, tmp_path: Path) -> None:
    workspace, other = tmp_path / "w", tmp_path / "other"
    shutil.copytree(whole, workspace)
    shutil.copytree(whole, other)
    (tmp_path / ".tmp.b.zip").touch(mode=0o666)  # laid out beforehand, for all to read
    (tmp_path / ".tmp.b.zip").chmod(0o666)
    assert backup(tmp_path / "b.zip", workspace=workspace)["warnings"] == []
    assert (tmp_path / "b.zip").stat().st_mode & 0o777 == 0o600
    assert restore(tmp_path / "b.zip", workspace=other, replace=True)["files"] > 10
    queue = workspace / "review" / "queue.jsonl"
    queue.write_text(queue.read_text().replace('"kind": "task"', '"kind": "tusk"', 1))
    [warning] = backup(tmp_path / "c.zip", workspace=workspace)["warnings"]
    assert "queue.jsonl: line 1: is damaged (kind = tusk" in warning
    (other / ".tmp.review").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"c\.zip: queue\.jsonl: line 1: is damaged \(kind = tusk.*\); take another backup"):
        restore(tmp_path / "c.zip", workspace=other, replace=True)
    assert not (tmp_path / "elsewhere").exists()
    assert not (other / ".tmp.review").exists()
    check_desk(Workspace.open(other), "review")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("backup.json", "[" * 100_000)
    with pytest.raises(InputError, match="is no backup, or a damaged one"):
        restore(tmp_path / "d.zip", workspace=other, replace=True)


def test_what_a_killed_backup_left_is_in_no_backup_and_gone_after_the_next(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", Settings(name="x"))
    left = workspace.root / "review" / ".tmp.backup"
    left.mkdir(parents=True)
    (left / "label_studio.sqlite3").write_text("a copy of everybody's answers")
    ReviewStore(workspace).save_annotators([])
    backup(tmp_path / "b.zip", workspace=workspace.root)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert not [name for name in archive.namelist() if "tmp" in name]
    assert not left.exists()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite3.SQLITE_IOERR, MissingRequirementError),
        (sqlite3.SQLITE_FULL, MissingRequirementError),
        (sqlite3.SQLITE_CANTOPEN, MissingRequirementError),
        (None, InputError),
    ],
    ids=["input or output", "full", "cannot open", "no database"],
)
def test_a_database_that_cannot_be_copied_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None, kind: type[Exception]
) -> None:
    workspace = Workspace.create(tmp_path / "w", Settings(name="x"))
    (workspace.root / "review" / "server").mkdir(parents=True)
    (workspace.root / "review" / "server" / "label_studio.sqlite3").write_text("no database at all, only a text of some length" * 40)
    if error is not None:
        failure = sqlite3.OperationalError("disk I/O error")
        failure.sqlite_errorcode = error

        def fail(*_: Any) -> None:
            raise failure

        monkeypatch.setattr(sqlite3, "connect", fail)
    with pytest.raises(kind, match=r"label_studio\.sqlite3: (is damaged|cannot be copied)"):
        backup(tmp_path / "b.zip", workspace=workspace.root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w"]
