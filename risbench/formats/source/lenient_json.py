"""JSON as producers really write it: strict first, then JSON5, with limits and errors that name the place."""

from __future__ import annotations

import json
from typing import Any, Final

import json5

from risbench.core.errors import InvalidRowError
from risbench.formats.source.text import decoded
from risbench.formats.source.tree import Entry

MAX_JSON_BYTES: Final = 512 << 20
# json5 is pure Python and reads about 30 kB/s; a large file that is not strict JSON is broken, not informal.
MAX_JSON5_BYTES: Final = 200_000


# What a parsed value takes at least in memory, by the characters that open or part values: a dict, a list, a value, a text.
_COSTS: Final = (("{", 64), ("[", 64), (",", 32), ('"', 25))
MAX_VALUE_BYTES: Final = 4 << 30
_LONG_NUMBER: Final = 4300


class Json5Budget:
    """How much informal JSON of one file is still read: 200 kB in all, about seven seconds."""

    def __init__(self) -> None:
        self.left = MAX_JSON5_BYTES

    def take(self, characters: int) -> bool:
        """Return whether so many characters more may be read, and count them."""
        self.left -= characters
        return self.left >= 0


def load_json(entry: Entry) -> Any:
    """Return the value in a JSON file; JSON5 (comments, trailing commas, single quotes) is accepted up to 200 kB.

    NaN and infinities are kept as such: the field that holds one is refused where it is used.

    Raises:
        InvalidRowError: the file is not JSON of either kind, nested too deep, or too large.
    """
    content = decoded(entry.read(MAX_JSON_BYTES), entry.path)
    needed = sum(content.count(character) * cost for character, cost in _COSTS)
    if needed > MAX_VALUE_BYTES:
        bound = f"its values would take about {needed / 1e9:.1f} GB of memory; at most {MAX_VALUE_BYTES / 1e9:.1f}: split the file"
        raise InvalidRowError("file_too_large", "file", entry.path, bound)
    return parse_json(content, entry.path)


def parse_json(content: str, where: str, budget: Json5Budget | None = None) -> Any:
    """Return the value of a JSON or JSON5 text; `where` names it in errors, `budget` is that of its file.

    Raises:
        InvalidRowError: as `load_json`.
    """
    try:
        return _strict(content)
    except RecursionError:
        raise InvalidRowError("json_too_deep", "file", where, "its brackets are nested too deep") from None
    except ValueError as error:
        strict = error
    if len(content) > MAX_JSON5_BYTES:
        raise InvalidRowError("broken_json", "file", where, f"it is not JSON: {strict}")
    if not (budget or Json5Budget()).take(len(content)):
        bound = f"it is not JSON: {strict}; JSON5 is read up to {MAX_JSON5_BYTES // 1000} kB in a file: save it as strict JSON"
        raise InvalidRowError("broken_json", "file", where, bound)
    try:
        return json5.loads(content)
    except RecursionError:
        raise InvalidRowError("json_too_deep", "file", where, "its brackets are nested too deep") from None
    except (ValueError, OverflowError):
        raise InvalidRowError("broken_json", "file", where, f"it is neither JSON nor JSON5: {strict}") from None


def _strict(content: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of more than 4,300 digits, which would otherwise take all rows of the file with it
        return json.loads(content, parse_int=_whole)


def _whole(digits: str) -> int | float:
    """Return an integer, or an infinite number where it has more digits than Python reads: its field is refused where it is used."""
    return int(digits) if len(digits) <= _LONG_NUMBER else float(digits)
