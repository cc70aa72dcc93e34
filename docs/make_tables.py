"""Write the tables of formats, engines and models in README.md and docs/architecture.md off the registries; a test checks them.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from risbench.benchmark.models.known import MODELS
from risbench.export.formats.registry import RELEASE_FORMATS
from risbench.formats.registry import INPUT_FORMATS
from risbench.refine.engines.registry import ENGINES

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/architecture.md")


def _table(head: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |", *(f"| `{name}` | {text} |" for name, text in rows.items())]
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "input formats": lambda: _table(("`--format`", "what is read"), {one.name: one.summary for one in INPUT_FORMATS.all().values()}),
    "engines": lambda: _table(("engine", "what it is"), {one.name: one.summary for one in ENGINES.all().values()}),
    "release formats": lambda: _table(
        ("`--format`", "what it is opened with"), {one.name: one.opened for one in RELEASE_FORMATS.all().values()}
    ),
    "models": lambda: _table(("model", "what it is"), {one.name: one.summary for one in MODELS.all().values()}),
}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""
    pattern = re.compile(r"(<!-- table: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
