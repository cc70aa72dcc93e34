"""Errors meant for users: what is wrong, where, and what to do. A traceback is always a bug of ours."""

from __future__ import annotations

import reprlib
import unicodedata
from dataclasses import dataclass


class RisbenchError(Exception):
    """Base of every error a user can mend; `exit_code` is what the command line returns."""

    exit_code = 3


class OptionError(RisbenchError):
    """An option has a value that cannot be used (exit 2)."""

    exit_code = 2


class InputError(RisbenchError):
    """A file or a whole source cannot be used (exit 3)."""

    exit_code = 3


class IncompleteResult(RisbenchError):
    """What would be made lacks something that was asked for, so it is not made (exit 1)."""

    exit_code = 1


class MissingRequirementError(RisbenchError):
    """The machine lacks something: an extra, CUDA, disk space, memory (exit 4)."""

    exit_code = 4


class BusyError(RisbenchError):
    """Another run holds the workspace, or a server is busy (exit 75)."""

    exit_code = 75


def missing_extra(package: str, extra: str) -> MissingRequirementError:
    """Return the one-line error for an optional package that is not installed."""
    return MissingRequirementError(f"the package {package!r} is not installed; run: pip install 'risbench[{extra}]'")


@dataclass(eq=False)
class InvalidRowError(Exception):
    """Why one row of a source is refused. It goes to the quarantine list; the other rows go on.

    `code` is a word to count by, `field` and `value` are what the source holds, and
    `bound` says what would have been accepted.
    """

    code: str
    field: str
    value: object
    bound: str

    def __str__(self) -> str:
        return f"{self.code}: {self.field} = {printable(self.value)}; {self.bound}"


class _Short(reprlib.Repr):
    """reprlib's, without its failures: Python refuses to write integers of over 4,300 digits, and addresses differ in every run."""

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() > 14_000:
            return f"<an integer of about {int(value.bit_length() * 0.30103):,} digits>"
        return super().repr_int(value, level)

    def repr_instance(self, value: object, level: int) -> str:
        try:
            whole = repr(value)
        except (ValueError, RecursionError):
            return f"<a {type(value).__name__} that cannot be shown>"
        half = (self.maxother - 3) // 2
        return whole if len(whole) <= self.maxother else f"{whole[:half]}...{whole[-half:]}"


_SHORT = _Short()
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = _SHORT.maxset = 40
_SHORT.maxstring = _SHORT.maxother = 2000


def shortened(value: object) -> str:
    """Return a repr of bounded length and cost: a hostile value may be a tree of a billion leaves."""
    return _SHORT.repr(value)


def typed(value: object) -> str:
    """Return a value with its type, as one safe line: `"1" (text)` and `1 (number)` look alike without."""
    if value is None:
        return "nothing"
    names = {bool: "truth value", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    kind = next((name for known, name in names.items() if isinstance(value, known)), type(value).__name__)
    return f'"{printable(value, 100)}" ({kind})' if isinstance(value, str) else f"{printable(value, 100)} ({kind})"


def printable(value: object, limit: int = 160) -> str:
    """Return `value` as one safe line: control, escape and direction-changing characters are shown by number.

    Source text goes to terminals and logs, where an escape sequence would be obeyed.
    """
    text = value[: limit + 1] if isinstance(value, str) else shortened(value)
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown = "".join(
        f"\\u{{{ord(character):x}}}" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else character
        for character in text[:limit]
    )
    return shown + ("..." if len(text) > limit else "")
