"""Closed, full and broken standard streams: the command's work is done, and its exit code says so."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from risbench.core.streams import Output

RISBENCH = f"{sys.executable} -m risbench"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in bash, as a user types it."""
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        ("2>&-", 0, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">/dev/full", 4, "risbench: standard output cannot be written: No space left on device; the command's work is done\n"),
    ],
)
def test_a_command_does_its_work_whatever_its_streams_are(tmp_path: Path, streams: str, code: int, said: str) -> None:
    done = shell(f"{RISBENCH} weights list --json {streams}", tmp_path)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_reader_who_has_seen_enough_changes_no_exit_code(tmp_path: Path) -> None:
    for command, code in (("weights list", 0), ("ingest nothing -w w", 3), ("--help", 0)):
        done = shell(f"{RISBENCH} {command} 2>&1 | true; echo ${{PIPESTATUS[0]}}", tmp_path)
        assert done.stdout == f"{code}\n", (command, done.stderr)
    # a fault that a check found is told by the exit code, also where nobody reads what it was
    (tmp_path / "release").mkdir()
    done = shell(f"{RISBENCH} verify release >/dev/full; echo $?", tmp_path)
    assert done.stdout.strip() in ("3", "4")


def test_files_are_not_opened_where_a_stream_should_be(tmp_path: Path) -> None:
    code = (
        "from risbench.core.streams import safe_streams; safe_streams(); import os; "
        "file = open('made.txt', 'w'); print('printed'); import sys; print('told', file=sys.stderr); "
        "file.write(str(file.fileno())); file.close()"
    )
    done = shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', tmp_path)
    assert done.returncode == 0
    assert int((tmp_path / "made.txt").read_text()) > 2


def test_output_is_thrown_away_once_a_write_has_failed() -> None:
    reader, writer = os.pipe()
    stream = Output(writer)
    text = io.TextIOWrapper(io.BufferedWriter(stream), encoding="utf-8")
    os.close(reader)
    for _ in range(3):
        text.write("x" * 100_000)
        text.flush()
    assert stream.failure is None
    os.close(writer)
    text.write("more")
    text.flush()
    with open("/dev/full", "wb") as full:
        stream = Output(full.fileno())
        assert stream.write(b"abc") == 3
        assert stream.failure is not None
