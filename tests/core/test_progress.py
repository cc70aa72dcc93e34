"""Progress where there is no terminal: lines that a log can show, and none where none are wanted."""

from __future__ import annotations

import contextlib
import io
import sys
import threading

import pytest

from risbench.core import progress
from risbench.core.progress import Lines, Progress, duration


class Clock:
    """A clock that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_says_how_much_is_done_how_fast_and_how_long_the_rest_takes() -> None:
    clock = Clock()
    lines = Lines("refine-masks (grabcut)", 1000, clock=clock)
    lines.skip(100)  # an interrupted run had done these: they say nothing about the rate
    assert lines.line() == "refine-masks (grabcut): 100 of 1,000 (10 %), for 0 s"
    clock.now += 30
    lines.advance(60)
    assert lines.line() == "refine-masks (grabcut): 160 of 1,000 (16 %), 2.0 a second, 7 min left"
    clock.now += 420
    lines.advance(840)
    assert lines.line() == "refine-masks (grabcut): 1,000 of 1,000 (100 %), 2.0 a second"
    assert lines.last_line(whole=True) == "refine-masks (grabcut): 1,000 of 1,000 (100 %), done after 8 min"
    assert "ended before its end after 8 min" in lines.last_line(whole=False)


def test_bytes_slow_steps_and_unknown_totals_are_told_in_their_own_words() -> None:
    clock = Clock()
    fetched, slow, unknown = (
        Lines("fetch x", 375_000_000, of_bytes=True, clock=clock),
        Lines("train", 4, clock=clock),
        Lines("serve", 0, clock=clock),
    )
    clock.now += 60
    fetched.advance(60_000_000)
    slow.advance(1)
    assert fetched.line() == "fetch x: 60.0 of 375.0 MB (16 %), 1.0 MB a second, 5 min left"
    assert slow.line() == "train: 1 of 4 (25 %), 60.0 s each, 3 min left"
    assert unknown.line() == "serve: 0 done, for 60 s"
    assert [duration(seconds) for seconds in (0, 119, 120, 7200, 11_100)] == ["0 s", "119 s", "2 min", "2 h 00 min", "3 h 05 min"]


def told_by(monkeypatch: pytest.MonkeyPatch, *, quiet: bool, beats: int) -> str:
    """Return what a progress writes whose half minutes pass as fast as they can be waited for."""
    monkeypatch.setattr(progress, "EVERY_S", 0.001)
    stream, enough = io.StringIO(), threading.Event()
    plain = progress._print

    def counted(line: str) -> bool:
        done = plain(line)
        if stream.getvalue().count("4 of 10") >= beats:
            enough.set()
        return done

    monkeypatch.setattr(progress, "_print", counted)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("export", 10, quiet=quiet) as bar:
        bar.advance(4)
        assert enough.wait(0.05 if quiet or not beats else 10) or quiet or not beats
    return stream.getvalue()


def test_lines_come_from_time_alone_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told_by(monkeypatch, quiet=False, beats=3).splitlines()
    assert all(line.startswith("risbench: export: 4 of 10 (40 %)") for line in lines[-4:])  # before them, nothing may be done yet
    assert len(lines) >= 4
    assert "done after" in lines[-1]


def test_quiet_and_what_takes_less_than_half_a_minute_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told_by(monkeypatch, quiet=True, beats=1) == ""
    monkeypatch.undo()
    with Progress("export", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", [None, "closed", "full"])
def test_a_log_that_cannot_be_written_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.001)
    broken = io.StringIO()
    if stream == "closed":
        broken.close()
    opened = open("/dev/full", "w") if stream == "full" else None  # noqa: SIM115 - it is closed below
    monkeypatch.setattr(sys, "stderr", opened or (None if stream is None else broken))
    with Progress("export", 10) as bar:
        bar.advance(10)
        threading.Event().wait(0.02)
    assert progress._print("x") is False
    monkeypatch.undo()
    if opened is not None:
        with contextlib.suppress(OSError):
            opened.close()


def test_items_are_counted_as_they_go_by() -> None:
    with Progress("read", 0) as bar:
        items = bar.counting(iter("abc"))
        assert next(items) == "a"
        assert list(items) == ["b", "c"]
        assert bar._lines is not None
        assert bar._lines.line().startswith("read: 3 done")
