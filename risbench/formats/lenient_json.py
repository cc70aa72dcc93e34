"""JSON as producers really write it: strict first, then JSON5, with limits and errors that name the place."""

from __future__ import annotations

import json
from typing import Any, Final

import json5

from risbench.core.errors import Refusal
from risbench.formats.tree import Entry

MAX_JSON_BYTES: Final = 512 << 20
# json5 is pure Python and reads about 30 kB/s; a large file that is not strict JSON is broken, not informal.
MAX_JSON5_BYTES: Final = 200_000


def load_json(entry: Entry) -> Any:
    """Return the value in a JSON file; JSON5 (comments, trailing commas, single quotes) is accepted up to 200 kB.

    NaN and infinities are kept as such: the field that holds one is refused where it is used.

    Raises:
        Refusal: the file is not JSON of either kind, nested too deep, or too large.
    """
    data = entry.read(MAX_JSON_BYTES)
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal("not_utf8", "file", entry.path, f"byte {error.start} is not UTF-8; save the file as UTF-8") from None
    return parse_json(content, entry.path)


def parse_json(content: str, where: str) -> Any:
    """Return the value of a JSON or JSON5 text; `where` names it in errors.

    Raises:
        Refusal: as `load_json`.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise Refusal("json_too_deep", "file", where, "its brackets are nested too deep") from None
    except ValueError as error:  # JSONDecodeError, and an integer of more than 4,300 digits
        strict = error
    if len(content) > MAX_JSON5_BYTES:
        raise Refusal("broken_json", "file", where, f"it is not JSON: {strict}")
    try:
        return json5.loads(content)
    except RecursionError:
        raise Refusal("json_too_deep", "file", where, "its brackets are nested too deep") from None
    except ValueError:
        raise Refusal("broken_json", "file", where, f"it is neither JSON nor JSON5: {strict}") from None
