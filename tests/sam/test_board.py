"""TensorBoard's log: a failed write of its thread ends the training with one error and no traceback."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from tensorboard.summary.writer.record_writer import RecordWriter

from risbench.learn.board import training_board


def test_a_log_that_cannot_be_written_is_one_error_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"), training_board(tmp_path, 1) as board:  # noqa: PT012 - the write comes later
        assert board is not None
        monkeypatch.setattr(RecordWriter, "write", full)
        board.add_scalar("loss", 1.0, 1)
    assert not told
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_of_another_thread_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    with training_board(tmp_path, 1):
        thread = threading.Thread(target=lambda: 1 // 0)
        thread.start()
        thread.join()
    assert [one.exc_type for one in told] == [ZeroDivisionError]


def test_no_log_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    with training_board(tmp_path / "log", 1, wanted=False) as board:
        assert board is None
    assert not (tmp_path / "log").exists()
