"""An exception that nobody foresaw, in one row, file or image: a refusal like any other, with the traceback for whoever mends it."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from risbench.core.errors import InvalidRowError, RisbenchError, printable
from risbench.core.reading import explain_read_error, is_system_failure
from risbench.core.storage import sha256_of

READER_ERROR: Final = "reader_error"
ERRORS_LOG: Final = "errors.log"
_FRAMES: Final = (8, 20)
_PLACES: Final = re.compile(r"(?:.*/)?((?:risbench|tests)/.+|(?:site|dist)-packages/.+|python3[.\d]*/.+)$")


@dataclass(eq=False)
class Unexpected(InvalidRowError):
    """A refusal that is a fault of the program: `trace` is the traceback, without paths of the machine."""

    trace: str = ""

    @property
    def trace_id(self) -> str:
        """Eight hex digits that name the traceback in errors.log."""
        return sha256_of(self.trace.encode("utf-8", "backslashreplace"))[:8]


def refusal_of(error: Exception, where: str) -> InvalidRowError:
    """Return what an exception of one row, file or image says about it; `where` names the file.

    Raises:
        RisbenchError: the exception is one, or the machine failed (EIO, EMFILE, no memory ...), which says nothing about the row.
    """
    if isinstance(error, InvalidRowError):
        return error
    if isinstance(error, RisbenchError):
        raise error
    if is_system_failure(error):
        assert isinstance(error, (OSError, MemoryError))
        raise explain_read_error(error, where) from error
    trace = _plain_traceback(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{_plain_path(last[0].filename)}:{last[0].lineno}" if last else "an unknown place"
    refusal = Unexpected(READER_ERROR, "row", _said(error), "", trace)
    refusal.bound = f"a bug in risbench at {place}; please report it with its traceback, {refusal.trace_id} in {ERRORS_LOG}"
    return refusal


def _said(error: BaseException) -> str:
    """Return an exception's type and message as one line that is the same in every run."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 (a library's exception whose own message fails)
        message = f"its message cannot be shown ({type(broken).__name__})"
    return printable(f"{type(error).__name__}: {re.sub('0x[0-9a-f]{6,}', '0x...', message)}", 300)


def _plain_path(path: str) -> str:
    found = _PLACES.match(PurePath(path).as_posix())
    return found[1] if found else PurePath(path).name


def _plain_traceback(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    first, last = _FRAMES
    lines = [f"  {_plain_path(frame.filename)}:{frame.lineno} in {frame.name}: {frame.line or ''}" for frame in frames]
    if len(lines) > first + last:
        lines[first:-last] = [f"  ... {len(lines) - first - last:,} more"]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    because = [f"  because of {_said(cause)}"] if cause is not None else []
    return "\n".join([*(printable(line, 400) for line in lines), _said(error), *because])
