"""Frozen split lists: a CSV of scene,split, or of id,split where records of a scene part ways; every release holds one (split.csv)."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from risbench.core.errors import InputError, printable
from risbench.core.record import SPLITS, Record, Split

_LONGEST_CELL: Final = 1 << 17
By = Literal["scene", "id"]


@dataclass(frozen=True)
class SplitList:
    """Splits by scene or by record id."""

    by: By
    splits: Mapping[str, Split]

    def of(self, record: Record) -> Split | None:
        """Return the record's split, None where the list does not name it."""
        return self.splits.get(record.image.scene if self.by == "scene" else record.id)


@contextlib.contextmanager
def _short_cells() -> Iterator[None]:
    """Bound the cells that are read in here: the bound is the whole process's, and readers of boxes raise it."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@_short_cells()
def read_split_list(path: Path) -> SplitList:
    """Return a list from a CSV with the columns scene and split, or id and split.

    Raises:
        InputError: a column is missing, a split is none of the three, or a scene or record is named twice.
    """
    splits: dict[str, Split] = {}
    lines: dict[str, int] = {}
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text file (byte {error.start} is not UTF-8); it must be a CSV of scene,split") from None
    table = csv.DictReader(io.StringIO(content, newline=""))
    try:
        columns = set(table.fieldnames or ())
    except csv.Error as error:
        raise InputError(f"{path}: line 1: is no CSV ({error})") from None
    if "split" not in columns or not columns & {"scene", "id"}:
        has = printable(", ".join(table.fieldnames or ()) or "none")
        raise InputError(f"{path}: needs the columns scene and split, or id and split; it has {has}")
    by: By = "id" if "id" in columns else "scene"
    for number, row in enumerate(_rows(table, path), 2):
        name = next((split for split in SPLITS if split == row["split"]), None)
        if name is None:
            raise InputError(f"{path}: line {number}: split = {printable(row['split'])}: must be one of {', '.join(SPLITS)}")
        key = row[by]
        if key.startswith("'") and _FORMULA.match(key):
            key = key[1:]  # as write_split_list has it
        if key in lines:
            before = f"in line {lines[key]} ({splits[key]}) and again here ({name})"
            raise InputError(f"{path}: line {number}: {by} {printable(key)} stands {before}; name each once")
        splits[key], lines[key] = name, number
    return SplitList(by, splits)


def _rows(table: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from table
    except csv.Error as error:
        raise InputError(f"{path}: line {table.line_num}: is no CSV ({error})") from None


def write_split_list(made: SplitList) -> str:
    """Return the CSV of a split, to be frozen and used again.

    A name that a spreadsheet would take for a formula (it begins with =, +, -, @ or a tab) gets an apostrophe in front, which reading takes
    away again; so does one that has the apostrophe already.
    """
    return f"{made.by},split\n" + "".join(f"{_quoted(key)},{made.splits[key]}\n" for key in sorted(made.splits))


# A spreadsheet takes what begins so for a formula, and runs it.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def _quoted(scene: str) -> str:
    scene = f"'{scene}" if _FORMULA.match(scene) else scene
    return '"' + scene.replace('"', '""') + '"' if re.search(r'[,"\n\r]', scene) else scene
