"""DOTA labelTxt: two optional header lines, then 8 pixel numbers, class and difficulty on each line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Final

from risbench.core.errors import InvalidRowError
from risbench.core.geometry import is_oriented, quad_bounds, quad_from_flat
from risbench.formats.source.format import Format, Look, Verdict, each, file_by_file
from risbench.formats.source.rows import LARGEST, GivenBox, Item, Row, guarded, number, stated_split
from risbench.formats.source.text import decoded
from risbench.formats.source.tree import Entry
from risbench.formats.yolo import yolo_form

DATASET: Final = "DOTA"
LICENCE: Final = "DOTA images: academic use only"
_HEAD: Final = 1 << 16
_LINE = re.compile(r"[ \t]*(?:-?[\d.]{1,30}(?:e[+-]?\d{1,5})?[ \t]{1,9}){8}\S{1,80}(?:[ \t]{1,9}\d{1,9})?[ \t]{0,9}\r?$", re.IGNORECASE)


def looks_like_dota(head: str) -> bool:
    """Return whether the first characters of a text file are those of a labelTxt file."""
    if yolo_form(head) is not None:
        return False
    return head.startswith("imagesource:") or any(_LINE.match(line) for line in head.split("\n", 20)[:20] if len(line) < 500)


def read_dota(entry: Entry) -> Iterator[Item]:
    """Yield one row per object of a labelTxt file; its image has the file's stem.

    Raises:
        InvalidRowError: the file as a whole is in one of YOLO's forms, whose numbers stand in another order, or its encoding is
            not read.
    """
    metres_per_pixel: float | None = None
    stem = entry.stem
    content = decoded(entry.read(64 << 20), entry.path)
    if (form := yolo_form(content[:_HEAD])) is not None:
        raise InvalidRowError("not_dota", "file", entry.path, f"{form}; YOLO's labels are not read: convert them to COCO")
    for index, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.startswith("imagesource:"):
            continue
        if line.startswith("gsd:"):
            metres_per_pixel = _positive(line[4:])
            continue
        locator, key = f"line {index}", f"{stem}:{index}"
        yield guarded(partial(_row, line, entry, stem, key, locator, metres_per_pixel), entry.path, key, locator, line)


def _positive(value: str) -> float | None:
    """Return the ground sample distance, or None: DOTA writes `null` and `None` where it is not known."""
    try:
        distance = float(value)
    except ValueError:
        return None
    return distance if 0 < distance < 1000 else None


def _coordinate(word: str, index: int) -> float:
    try:
        value = float(word)
    except ValueError:
        raise InvalidRowError("not_a_number", f"coordinate {index}", word, "it must be a number") from None
    return value if -LARGEST <= value <= LARGEST else number(value, f"coordinate {index}")


def _row(line: str, entry: Entry, stem: str, key: str, locator: str, metres_per_pixel: float | None) -> Row:
    words = line.split()
    if len(words) not in (9, 10):
        raise InvalidRowError("wrong_length", "line", line, "it must hold 8 numbers, a class and a difficulty")
    quad = quad_from_flat([_coordinate(word, index) for index, word in enumerate(words[:8], 1)])
    box = GivenBox(quad_bounds(quad), "exact", False, quad=quad if is_oriented(quad) else None)
    return Row(
        file=entry.path,
        source_key=key,
        locator=locator,
        dataset=DATASET,
        image=stem,
        category=words[8],
        boxes=(box,),
        has_sentences=False,
        licence=LICENCE,
        metres_per_pixel=metres_per_pixel,
        split=stated_split(entry.path),
    )


def _verdict(look: Look) -> Verdict:
    return 0.9 if looks_like_dota(look.head) else "no line of eight numbers, a class and a difficulty"


FORMATS: Final = Format(
    name="dota",
    summary="DOTA: labelTxt; scenes are cut into the producer's own 512 windows",
    suffixes=(".txt",),
    detect=each(_verdict),
    read=file_by_file(lambda entry, _: read_dota(entry), scaled=True),
    rank=60,
    scaled="dota",
)
