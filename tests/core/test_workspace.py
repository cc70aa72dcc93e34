from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from risbench.core.errors import BusyError, InputError, MissingRequirementError, printable
from risbench.core.storage import PartResult, StageRun, write_durably
from risbench.core.workspace import Settings, Workspace


def test_a_folder_without_settings_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="risbench ingest SOURCE"):
        Workspace.open(tmp_path)


def test_an_unknown_setting_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "risbench.toml").write_text('name = "x"\ncolour = 3\n')
    with pytest.raises(InputError, match="colour = 3"):
        Workspace.open(tmp_path)


def test_the_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path, Settings(name="x"))
    code = (
        "import sys\nfrom risbench.core.workspace import Workspace\n"
        "try:\n    with Workspace.open(sys.argv[1]).lock('export'): pass\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    with workspace.lock("ingest"):
        out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
        assert out.startswith(BusyError.__name__)
        assert f"pid {os.getpid()}" in out
        assert "risbench ingest" in out
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout == ""


def test_a_failed_write_leaves_the_old_file_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run.json"
    write_durably(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MissingRequirementError, match="disk is full .* the same command"):
        write_durably(target, b"new")
    assert target.read_bytes() == b"old"


def test_rows_that_do_not_add_up_stop_the_stage(tmp_path: Path) -> None:
    run = StageRun(tmp_path / "1-ingest", {"command": "ingest"})
    run.begin()
    run.write_part(0, "key", PartResult([]))
    with pytest.raises(AssertionError, match="do not reconcile"):
        run.finish(1, rows=3, before=PartResult([], [{"code": "x"}], []), extra={})
    assert not run.run_file.exists()


def test_a_part_counts_as_done_only_with_its_own_key(tmp_path: Path) -> None:
    run = StageRun(tmp_path / "1-ingest", {"command": "ingest"})
    run.begin()
    run.write_part(0, "key", PartResult([]))
    assert run.finished_part(0, "key")
    assert not run.finished_part(0, "another")
    assert not run.finished_part(1, "key")
    assert StageRun(tmp_path / "1-ingest", {"command": "ingest", "options": 2}).begin() is True
    assert not run.finished_part(0, "key")


def test_source_text_cannot_steer_the_terminal() -> None:
    shown = printable("red \x1b[31mplane\x07 \u202egnp.exe\n")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.startswith("red \\u{1b}[31mplane")
