"""Progress on standard error: a bar on a terminal, elsewhere a line every half minute, so that a log of nohup or Slurm shows life."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

T = TypeVar("T")
EVERY_S: Final = 30.0


class Lines:
    """What a log is told of some work: how much is done, how fast, and how long the rest takes at that rate."""

    def __init__(self, label: str, total: int, *, of_bytes: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now; `total` is 0 where nobody knows it. `clock` gives seconds."""
        self._label, self._total, self._of_bytes, self._clock = label, total, of_bytes, clock
        self._began = clock()
        self._done = self._before = 0

    def advance(self, steps: int) -> None:
        """Count what was done now."""
        self._done += steps

    def skip(self, steps: int) -> None:
        """Count what an earlier run had done: it says nothing about the rate."""
        self._done += steps
        self._before += steps

    def line(self) -> str:
        """Return how the work stands."""
        passed, made = self._clock() - self._began, self._done - self._before
        parts = [f"{self._label}: {self._counted()}"]
        if made and passed > 0:
            parts.append(self._rate(made / passed))
        if made and 0 < self._done < self._total:
            parts.append(f"{duration((self._total - self._done) * passed / made)} left")
        elif not made:
            parts.append(f"for {duration(passed)}")
        return ", ".join(parts)

    def last_line(self, *, whole: bool) -> str:
        """Return how the work ended: to its end, or not."""
        passed = duration(self._clock() - self._began)
        return f"{self._label}: {self._counted()}, {'done' if whole else 'ended before its end'} after {passed}"

    def _counted(self) -> str:
        done = f"{self._done / 1e6:,.1f}" if self._of_bytes else f"{self._done:,}"
        if not self._total:
            return f"{done} MB" if self._of_bytes else f"{done} done"
        total = f"{self._total / 1e6:,.1f} MB" if self._of_bytes else f"{self._total:,}"
        return f"{done} of {total} ({100 * self._done // self._total} %)"

    def _rate(self, a_second: float) -> str:
        if self._of_bytes:
            return f"{a_second / 1e6:.1f} MB a second"
        return f"{a_second:,.1f} a second" if a_second >= 1 else f"{1 / a_second:,.1f} s each"


def duration(seconds: float) -> str:
    """Return a time in words that are short: 40 s, 12 min, 3 h 05 min."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """The progress of some work on standard error; nothing at all with `quiet`.

    On a terminal it is a bar. Elsewhere it is a line after every 30 seconds, and one at the end where there was any. The lines come from
    a thread of their own, so that one long step does not look like a process that hangs. Nothing of it goes into a file of ours.
    """

    def __init__(self, label: str, total: int, *, quiet: bool = False, of_bytes: bool = False) -> None:
        """Begin with nothing done of `total`, which is 0 where nobody knows it."""
        terminal = _is_terminal()
        self._bar: RichProgress | None = None
        if terminal and not quiet:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn() if of_bytes else MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task(label, total=total or None)
        self._lines = None if quiet or terminal else Lines(label, total, of_bytes=of_bytes)
        self._ended = threading.Event()
        self._told = False
        self._teller = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        if self._lines is not None:
            self._teller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._lines is not None:
            self._ended.set()
            self._teller.join()
            if self._told:
                _print(self._lines.last_line(whole=kind is None))

    def advance(self, steps: int) -> None:
        """Move on by what was done now."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], steps)
        if self._lines is not None:
            self._lines.advance(steps)

    def skip(self, steps: int) -> None:
        """Move on by what an earlier run had done."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], steps)
        if self._lines is not None:
            self._lines.skip(steps)

    def counting(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items, each counted as it goes by."""
        for item in items:
            yield item
            self.advance(1)

    def _tell(self) -> None:
        assert self._lines is not None, "only then it is started"
        while not self._ended.wait(EVERY_S):
            self._told = _print(self._lines.line()) or self._told


def _print(line: str) -> bool:
    """Print a line on standard error; return whether it could be: a log that cannot be written must not end the work."""
    try:
        sys.stderr.write(f"risbench: {line}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # full, broken, closed, or not there at all
        return False
    return True


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False
