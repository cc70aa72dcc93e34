"""Text of a source inside Markdown: shown as it is, never as markup."""

from __future__ import annotations

import html
import re

from risbench.core.errors import printable


def escaped(text: object, limit: int = 500) -> str:
    """Return text on one line in which no HTML, link, table border, code or emphasis by asterisks is left."""
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", html.escape(printable(str(text), limit), quote=False))


def code(text: object, limit: int = 500) -> str:
    """Return text as a code span."""
    return f"`{printable(str(text), limit).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
