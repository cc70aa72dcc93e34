"""RISBench's and RefSegRS's phrase files: `output_phrase_<split>.txt`, a line `<name> <sentence>`, masks beside the images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from risbench.core.errors import InvalidRowError
from risbench.core.record import Record
from risbench.formats.source.find_image import nearest, of_another_split
from risbench.formats.source.format import Format, Look, Verdict, each, file_by_file
from risbench.formats.source.rows import GivenMask, Item, Refused, Row
from risbench.formats.source.text import decoded
from risbench.formats.source.tree import MASK_FOLDERS, Entry, SourceTree

DATASET: Final = "phrases"
IMAGE_FOLDERS: Final = ("img_rgb", "images", "image", "imgs")
_FILE_NAME = re.compile(r"^output_phrase_(train|val|test)\.txt$")


def is_phrase_file(entry: Entry) -> bool:
    """Return whether the entry is named as a phrase file."""
    return _FILE_NAME.match(entry.name) is not None


def read_phrases(entry: Entry, tree: SourceTree) -> Iterator[Item]:
    """Yield one row per line; the split is the file's. The box is the extent of the mask of the same name.

    Raises:
        InvalidRowError: the file is not UTF-8 text.
    """
    named = _FILE_NAME.match(entry.name)
    split = named[1] if named else None
    masks: dict[str, list[Entry]] = {}
    for item in tree.entries:
        if PurePosixPath(item.path).parent.name.lower() in MASK_FOLDERS:
            masks.setdefault(item.stem, []).append(item)
    content = decoded(entry.read(256 << 20), entry.path)
    for index, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        key, locator = f"{split}:{index}", f"line {index}"
        name, _, sentence = line.strip().partition(" ")
        try:
            mask = _mask_of(name, masks.get(PurePosixPath(name).stem, ()), entry.path)
        except InvalidRowError as reason:
            yield Refused(entry.path, key, locator, reason, line)
            continue
        yield Row(
            file=entry.path,
            source_key=key,
            locator=locator,
            dataset=DATASET,
            image=name,
            category="",
            boxes=(),
            sentence=sentence,
            sentence_origin="phrase",
            mask=GivenMask(path=mask),
            split=split,
        )


def _mask_of(name: str, there: Sequence[Entry], beside: str) -> str:
    """Return the path of the mask that a line means: of the phrase file's split, and of these the nearest to it.

    Raises:
        InvalidRowError: there is none, or several are equally near.
    """
    own = [mask for mask in there if not of_another_split(mask.path, beside)]
    if not own:
        where = f"; {there[0].path} is of another split than {beside}" if there else ""
        raise InvalidRowError("mask_missing", "image", name, f"no file of this name lies in a folder {' or '.join(MASK_FOLDERS)}{where}")
    found = nearest(own, beside) if len(own) > 1 else own
    if len(found) > 1:
        places = ", ".join(mask.path for mask in found[:3])
        raise InvalidRowError("mask_ambiguous", "image", name, f"{len(found)} masks have this name: {places}; read the folders one by one")
    return found[0].path


def phrase_lines(records: Sequence[Record], names: dict[str, str]) -> str:
    """Return the phrase file of records; `names` maps record id to the referent's own image name."""
    lines = []
    for record in records:
        assert record.expression is not None, "export leaves records without a sentence out"
        lines.append(f"{names[record.id]}.png {record.expression.text}\n")
    return "".join(lines)


def _verdict(look: Look) -> Verdict:
    return 0.97 if is_phrase_file(look.entry) else "not named output_phrase_SPLIT.txt"


FORMATS: Final = Format(
    name="phrases",
    summary="RISBench, RefSegRS: `output_phrase_<split>.txt` with images and masks",
    suffixes=(".txt",),
    detect=each(_verdict),
    read=file_by_file(read_phrases),
    rank=40,
    trains=True,
)
