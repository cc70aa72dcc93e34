"""An input format: lines of an image, four corners in pixels, a class and a sentence, parted by tabs, in .acme files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from risbench.formats.source.format import Format, Look, Verdict, each, file_by_file
from risbench.formats.source.rows import GivenBox, Item, Row, guarded
from risbench.formats.source.tree import Entry, SourceTree


def verdict(look: Look) -> Verdict:
    """Claim .acme files for certain, and any JSON with a little confidence."""
    if look.entry.suffix == ".acme":
        return 1.0
    return 0.05 if look.head.startswith("{") else "no .acme file, and no JSON object"


def rows(entry: Entry, tree: SourceTree) -> Iterator[Item]:
    """Yield a row per line."""
    for number, line in enumerate(entry.read(1 << 20).decode().splitlines(), 1):
        locator = f"line {number}"
        yield guarded(partial(_row, line, entry, locator), entry.path, locator, locator, line)


def _row(line: str, entry: Entry, locator: str) -> Row:
    image, x_min, y_min, x_max, y_max, category, sentence = line.split("\t")
    box = (float(x_min), float(y_min), float(x_max), float(y_max))
    return Row(entry.path, locator, locator, "acme", image, category, (GivenBox(box, "exact", False),), sentence, "acme")


ACME = Format(
    name="acme",
    summary="Acme's lines",
    suffixes=(".acme", ".json"),
    detect=each(verdict),
    read=file_by_file(rows, scaled=True),
    scaled="acme",
)
TAKEN = replace(ACME, name="coco")
ODD = "no format at all"
