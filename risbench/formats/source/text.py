"""Text as editors and shells save it: UTF-8 with or without a byte order mark, UTF-16, UTF-32."""

from __future__ import annotations

import codecs
from typing import Final, Literal

from risbench.core.errors import InvalidRowError

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOKED_AT: Final = 1024


def encoding_of(head: bytes) -> tuple[str, int]:
    """Return (encoding, length of its byte order mark) by a file's first bytes; UTF-8 where nothing speaks for another.

    Without a mark, UTF-16 shows by its zero bytes: one in two where the text is mostly ASCII, as JSON, CSV and XML are.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    seen = head[: _LOOKED_AT // 2 * 2]
    pairs = len(seen) // 2
    for first, encoding in ((0, "utf-16-be"), (1, "utf-16-le")):
        if pairs >= 4 and seen[first::2].count(0) > 0.4 * pairs > 4 * seen[1 - first :: 2].count(0):
            return encoding, 0
    return "utf-8", 0


def decoded(data: bytes, where: str, errors: Literal["strict", "replace", "surrogateescape"] = "strict") -> str:
    """Return a file's text; `where` names the file in errors.

    Raises:
        InvalidRowError: it is of no such encoding, and `errors` is strict.
    """
    encoding, mark = encoding_of(data[:_LOOKED_AT])
    try:
        text = data[mark:].decode(encoding, errors if encoding == "utf-8" else "strict" if errors == "strict" else "replace")
        return text.removeprefix("\ufeff")  # some programs write the mark twice
    except UnicodeDecodeError as error:
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise InvalidRowError("not_utf8", "file", where, f"byte {error.start + mark:,} is not {name}; save the file as UTF-8") from None
