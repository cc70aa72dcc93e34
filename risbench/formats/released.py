"""Our own releases read back: rows that hold the whole record, checked against what the format says of it by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa
from pydantic import ValidationError

from risbench.core.errors import InvalidRowError, printable, shortened
from risbench.core.reading import explain_read_error, is_system_failure
from risbench.core.record import Record
from risbench.formats.parquet import is_record_table, table_rows
from risbench.formats.source.format import Format, Look, Source, Verdict
from risbench.formats.source.rows import Item, Refused, Row, guarded, guarded_file
from risbench.formats.source.tree import Entry, SourceTree

MAX_RECORD_BYTES: Final = 8 << 20
_REFUSED_NAMED: Final = 10_000
# What the record itself checks of a part as a whole.
_CHECKS: Final = {"mask": "broken_rle", "image": "image_too_large"}


def table_files(tree: SourceTree) -> list[Entry]:
    """Return the tables to read: a release's own beside its pictures, or where there is none the shards that hold the pictures."""
    tables = [entry for entry in tree.entries if entry.suffix == ".parquet" and entry.member is None and _holds_records(entry)]
    beside = [entry for entry in tables if entry.name.startswith("annotations_")]
    return beside or tables


def _holds_records(entry: Entry) -> bool:
    try:
        return is_record_table(entry.file)
    except (OSError, ValueError, pa.ArrowException, InvalidRowError) as error:
        if is_system_failure(error):
            raise explain_read_error(error, entry.file) from error
        return False  # the tree names it among what it refused


def sample_files(tree: SourceTree) -> list[Entry]:
    """Return the samples of WebDataset shards: the JSON files of tars in which one is a record."""
    packed: dict[str, list[Entry]] = {}
    for entry in tree.entries:
        if entry.suffix == ".json" and entry.file.suffix.lower() == ".tar" and entry.member is not None:
            packed.setdefault(str(entry.file), []).append(entry)
    return [entry for members in packed.values() if any(map(_is_record, members)) for entry in members]


def _is_record(entry: Entry) -> bool:
    try:
        with entry.open() as file:
            return b'"schema_version"' in file.read(200)
    except InvalidRowError:
        return False


class ReleasedRows:
    """Makes rows of whole records; records of one image all refer to the picture that came first, as copies of it follow."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._first: dict[tuple[str, str], str] = {}

    def of_table(self, entry: Entry) -> Iterator[Item]:
        """Yield a row per triplet of a table.

        Raises:
            InvalidRowError: it cannot be read.
        """
        yield from _bounded(entry, self._rows_of(entry))

    def _rows_of(self, entry: Entry) -> Iterator[Item]:
        folder = entry.path.rpartition("/")[0]
        try:
            for number, row in enumerate(table_rows(entry.file)):
                inside = row.get("image")
                name = f"{entry.path}/{inside['path']}" if inside else f"{folder}/images/{row['name']}.png".lstrip("/")
                said = {field: row[field] for field in ("id", "expression", "category", "mask_rle")}
                yield self._item(entry, f"row {number}", row["record"], name, said)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            if is_system_failure(error):
                raise explain_read_error(error, entry.file) from error
            raise InvalidRowError("unreadable", "file", entry.path, f"it is no readable Parquet ({printable(str(error), 120)})") from None

    def of_sample(self, entry: Entry) -> Iterator[Item]:
        """Yield the row of a WebDataset sample.

        Raises:
            InvalidRowError: a file of it cannot be read.
        """
        stem = entry.path.removesuffix(".json")
        image = next((stem + suffix for suffix in (".png", ".jpg", ".jpeg") if stem + suffix in self._tree.by_path), stem + ".png")
        text = self._tree.by_path.get(stem + ".txt")
        said = {"expression": text.read(MAX_RECORD_BYTES).decode("utf-8", "replace")} if text else {}
        yield self._item(entry, entry.name, entry.read(MAX_RECORD_BYTES).decode("utf-8", "replace"), image, said)

    def _item(self, entry: Entry, locator: str, line: str | None, image: str, said: dict[str, Any]) -> Item:
        return guarded(partial(self._row, entry, locator, line, image, said), entry.path, locator, locator, partial(shortened, line))

    def _row(self, entry: Entry, locator: str, line: str | None, image: str, said: dict[str, Any]) -> Row:
        record = _record(line, said)
        return Row(
            file=entry.path,
            source_key=record.id,
            locator=locator,
            dataset=record.source.dataset,
            image=self._first.setdefault((record.image.path, record.image.sha256), image),
            category=record.category.name,
            boxes=(),
            sentence=record.expression.text if record.expression else None,
            split=record.split,
            record=record,
        )


def _bounded(entry: Entry, items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items; of very many refused rows the first are named one by one, and the rest are one item that says how many."""
    refused = 0
    for item in items:
        if isinstance(item, Refused):
            refused += 1
            if refused > _REFUSED_NAMED:
                continue
        yield item
    if refused > _REFUSED_NAMED:
        more = refused - _REFUSED_NAMED
        bound = f"so many rows of {entry.path} more are refused like the {_REFUSED_NAMED:,} that are named; mend the table"
        yield Refused(entry.path, "more", "more rows", InvalidRowError("more_rows_refused", "rows", more, bound), "", rows=more)


def _record(line: str | None, said: dict[str, Any]) -> Record:
    """Return the record of a row.

    Raises:
        InvalidRowError: it is none, or not the one that the row's other fields speak of.
    """
    if line is not None and len(line) > MAX_RECORD_BYTES:
        raise InvalidRowError("record_too_large", "record", line, f"it has {len(line):,} characters; at most {MAX_RECORD_BYTES:,} are read")
    try:
        record = Record.model_validate_json(line or "")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(piece) for piece in first["loc"]) or "record"
        code = _CHECKS.get(field, "broken_record") if first["type"] == "value_error" else "broken_record"
        raise InvalidRowError(code, field, first["input"], first["msg"]) from None
    own: dict[str, Callable[[], Any]] = {
        "id": lambda: record.id,
        "expression": lambda: record.expression.text if record.expression else None,
        "category": lambda: record.category.name,
        "mask_rle": lambda: record.mask.counts if record.mask else None,
    }
    other = next((field for field, value in said.items() if value != own[field]()), None)
    if other is not None:
        raise InvalidRowError("release_disagrees", other, said[other], f"the row's record says {printable(own[other](), 80)}")
    return record


def _detect_tables(tree: SourceTree, looks: Sequence[Look]) -> list[Verdict]:
    tables = {entry.path for entry in table_files(tree)}
    return [0.99 if look.entry.path in tables else "Parquet without records of a risbench release" for look in looks]


def _detect_samples(tree: SourceTree, looks: Sequence[Look]) -> list[Verdict]:
    samples = {entry.path for entry in sample_files(tree)}
    return [1.0 if look.entry.path in samples else "no sample of a risbench release in a tar" for look in looks]


def _read_with(method: Callable[[ReleasedRows, Entry], Iterator[Item]]) -> Callable[[Source], Iterator[Item]]:
    def rows(source: Source) -> Iterator[Item]:
        released = ReleasedRows(source.tree)  # one for all files: images are known across them
        for entry in source.files:
            yield from guarded_file(method(released, entry), entry.path)

    return rows


FORMATS: Final = (
    Format(
        name="parquet",
        summary="a risbench release: whole records from its tables or Parquet shards, review and all",
        suffixes=(".parquet",),
        detect=_detect_tables,
        read=_read_with(ReleasedRows.of_table),
        rank=10,
        trains=True,
    ),
    Format(
        name="webdataset",
        summary="a risbench release: whole records from its tars, review and all",
        suffixes=(".json",),
        detect=_detect_samples,
        read=_read_with(ReleasedRows.of_sample),
        rank=20,
        trains=True,
    ),
)
