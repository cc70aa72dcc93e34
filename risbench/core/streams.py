"""The standard streams of the command line: closed, full and broken ones never end a command's work, nor change what it is told to say.

A program may be started without some of its streams (cron, `2>&-`), write into a pipe whose reader has seen enough (`| head`), or into a
file on a full disk. What is printed comes after the work, so that none of these makes the work undone.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import Any, Final, TextIO

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_MODES: Final = {_STDIN: os.O_RDONLY, _STDOUT: os.O_WRONLY, _STDERR: os.O_WRONLY}


class Output(io.RawIOBase):
    """A standard stream to write to. Once a write fails the rest is thrown away; `failure` says why, None where the reader just left."""

    def __init__(self, number: int) -> None:
        """Write to the descriptor `number`."""
        super().__init__()
        self._number, self._gone = number, False
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        """Write bytes, or throw them away once that has failed; return how many."""
        view = memoryview(data).cast("B")
        while not self._gone:
            try:
                return os.write(self._number, view)
            except BlockingIOError:  # whoever shares the terminal or pipe has set it so: wait for room
                select.select([], [self._number], [])
            except BrokenPipeError:
                self._gone = True
            except OSError as error:
                self._gone, self.failure = True, error
        return len(view)


def safe_streams() -> Output:
    """Open the standard streams that are closed on /dev/null and have failed writes kept instead of raised; return standard output."""
    for number, mode in _MODES.items():
        try:
            os.fstat(number)
        except OSError:
            _open_at(number, mode)
    if sys.stdin is None:
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 - it is open as long as the process
    output, errors = Output(_STDOUT), Output(_STDERR)
    sys.stdout = _text(output, sys.stdout, "strict")
    sys.stderr = _text(errors, sys.stderr, "backslashreplace")
    return output


def _open_at(number: int, mode: int) -> None:
    opened = os.open(os.devnull, mode)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)  # a child without it would be where this process was


def _text(raw: Output, before: TextIO | None, errors: str) -> TextIO:
    """Return a text stream with the encoding of the one before; standard error and terminals are written line by line."""
    if before is not None:
        with contextlib.suppress(OSError, ValueError):
            before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors=getattr(before, "errors", None) or errors,
        line_buffering=raw.fileno() == _STDERR or raw.isatty(),
    )
