"""Reading files so that a failure of the machine is never taken for a fact about the data."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Final

from risbench.core.errors import MissingRequirementError, RisbenchError, printable

# The name leads to no plain file, or a damaged archive to a place before the file's beginning (EINVAL): facts about what is there.
_FACTS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})

_LONGEST_SETTINGS: Final = 1 << 20
_MOST_DOTS: Final = 1000  # each opens a table in a table, and memory grows as the square of them


def is_system_failure(error: BaseException) -> bool:
    """Return whether the machine failed (EIO, ESTALE, EMFILE, EACCES, ENOMEM ...), which says nothing about the data.

    False for a decoder's own OSError, which has no errno, for a name that leads to no plain file (ENOENT, ELOOP ...) and for a place in a
    file that there cannot be (EINVAL).
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _FACTS


def explain_read_error(error: BaseException, path: Path | str) -> RisbenchError:
    """Return the user's error for a failed read or listing: the stage stops, and the same command goes on."""
    code, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or str(error)
    mend = "mend that"
    if isinstance(error, MemoryError):
        reason, mend = "there is not enough memory", "free some"
    elif code in (errno.EACCES, errno.EPERM):
        mend = "allow it (chmod u+r, and u+x for a folder)"
    return MissingRequirementError(f"{printable(str(path), 1024)}: cannot be read: {reason}; {mend}, then run the same command to go on")


class _Checked(io.FileIO):
    """A file whose failed reads are the user's error at once: a library may take an OSError for damage of what it reads."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor, "rb")
        self.path = path

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; return how many bytes were read."""
        try:
            return super().readinto(buffer) or 0
        except OSError as error:
            raise explain_read_error(error, self.path) from error

    def readall(self) -> bytes:
        """Return the rest of the file."""
        try:
            return super().readall()
        except (OSError, MemoryError) as error:
            raise explain_read_error(error, self.path) from error


def open_to_read(path: Path, *, follow: bool = True) -> io.BufferedReader:
    """Open a file to read; whatever of it cannot be read by a failure of the system ends the stage. `follow` opens what a link names.

    Raises:
        MissingRequirementError: the system fails, now or at a later read: the same command goes on.
        OSError: the name leads to no plain file (FileNotFoundError, NotADirectoryError, IsADirectoryError, ELOOP).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        return io.BufferedReader(_Checked(descriptor, path))
    except OSError as error:
        if is_system_failure(error):
            raise explain_read_error(error, path) from error
        raise


def read_file(path: Path) -> bytes:
    """Return a file's content; the errors are those of `open_to_read`."""
    with open_to_read(path) as file:
        return file.read()


def parse_json(data: bytes | str) -> Any:
    """Return a JSON value.

    Raises:
        ValueError: it is no JSON, nests too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a settings file.

    Raises:
        ValueError: it is no TOML, nests too deeply, holds a number of thousands of digits, or is longer than settings are.
    """
    if len(text) > _LONGEST_SETTINGS:
        raise ValueError(f"it has {len(text):,} characters; settings have at most {_LONGEST_SETTINGS:,}")
    if (dots := max((line.count(".") for line in text.splitlines()), default=0)) > _MOST_DOTS:
        raise ValueError(f"a line has {dots:,} dots; at most {_MOST_DOTS:,}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def read_json(path: Path) -> Any:
    """Return the value in a JSON file that risbench wrote.

    Raises:
        ValueError: it is damaged, also by very deep nesting or a number of thousands of digits.
        MissingRequirementError: the system fails to read it.
        OSError: the name leads to no plain file.
    """
    return parse_json(read_file(path))


def sha256_of_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in blocks.

    Raises:
        MissingRequirementError: the system fails to read it.
        FileNotFoundError: there is no such file.
    """
    with open_to_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
