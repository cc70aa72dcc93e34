"""Reads the desk's files: every value is checked where it is read, and a damaged file is one line that names it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from risbench.core.errors import InputError, printable
from risbench.core.storage import explain_read_error

T = TypeVar("T")

# What Label Studio numbers: projects, tasks, annotations.
Number = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

RESTORE: Final = "restore the desk from a backup"
PULL: Final = "remove it and run `risbench review pull` again"


def read_bytes(path: Path, default: bytes) -> bytes:
    """Return a file's bytes, `default` where there is no such file.

    Raises:
        MissingRequirementError: it is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return default
    except OSError as error:
        raise explain_read_error(error, path) from error


def read_text(path: Path, mend: str = RESTORE) -> str:
    """Return the one line of a small file; empty where there is no such file.

    Raises:
        InputError: it is no text, or has several lines.
    """
    try:
        text = read_bytes(path, b"").decode("utf-8").strip()
    except UnicodeDecodeError:
        text = "\n"
    if not text.isprintable():
        raise damaged(path, None, "one line of text was expected", mend)
    return text


def read_value(path: Path, kind: TypeAdapter[T], default: bytes, mend: str = RESTORE) -> T:
    """Return the value of a JSON file, that of `default` where there is no such file.

    Raises:
        InputError: it is damaged.
    """
    return _parsed(path, None, read_bytes(path, default), kind, mend)


def read_rows(
    path: Path, kind: TypeAdapter[T], mend: str = RESTORE, *, cut: bool = False, check: Callable[[T], str | None] | None = None
) -> list[T]:
    """Return the rows of a JSONL file; none where there is no such file.

    `cut` leaves out a last line without its end, which a kill has cut off. `check` says what else is wrong with a row.

    Raises:
        InputError: a line is damaged; the message names it.
    """
    lines = read_bytes(path, b"").split(b"\n")
    last = lines.pop()
    if last and not cut:
        lines.append(last)
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parsed(path, number, line, kind, mend)
        if check is not None and (wrong := check(row)) is not None:
            raise damaged(path, number, wrong, mend)
        rows.append(row)
    return rows


def unique(kind: Callable[[T], Hashable], what: str) -> Callable[[T], str | None]:
    """Return a check that no two rows have the same value."""
    met: set[Hashable] = set()

    def check(row: T) -> str | None:
        value = kind(row)
        if value in met:
            return f"{what} {printable(value)} is there a second time"
        met.add(value)
        return None

    return check


def damaged(path: Path, line: int | None, what: str, mend: str) -> InputError:
    """Return the error for a file that holds something else than risbench wrote."""
    where = f"{path}: line {line}" if line is not None else str(path)
    return InputError(f"{where}: is damaged ({what}); {mend}")


def _parsed(path: Path, line: int | None, data: bytes, kind: TypeAdapter[T], mend: str) -> T:
    try:
        return kind.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        value = "" if isinstance(first["input"], bytes | dict | list) else f" = {printable(first['input'], 60)}"
        raise damaged(path, line, f"{printable(field)}{value}: {first['msg']}" if field else printable(first["msg"]), mend) from None
