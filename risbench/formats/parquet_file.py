"""Opening a Parquet file from outside: what it says of itself is compared with its bytes before a row of it is read.

19 kB of Parquet can stand for a million empty rows, and a page header may ask for 2 GiB of memory, so the footer, the rows and the pages'
stated sizes are looked at first. Page headers: https://parquet.apache.org/docs/file-format/data-pages/ (Thrift's compact protocol).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from risbench.core.errors import InvalidRowError
from risbench.core.reading import open_to_read

MAX_ROWS: Final = 1_000_000
# A record that is written with all that zstd and a dictionary can do takes some 300 bytes.
LEAST_ROW_BYTES: Final = 16
MAX_TEXT_PAGE: Final = 256 << 20
MAX_PICTURE_PAGE: Final = 1 << 30
_MAX_FOOTER: Final = 32 << 20
_HEADER_BYTES: Final = (1 << 12, 1 << 20)
_DEEP: Final = 8


def open_table(path: Path, columns: Sequence[str] = ()) -> pq.ParquetFile:
    """Return the open file; `columns` are the leaves that will be read (`record`, `image.bytes`), as dictionaries: a value that many rows
    share is in memory once.

    Raises:
        InvalidRowError: it stands for more than its bytes can hold.
        OSError: it cannot be read.
        pyarrow.ArrowException, ValueError: it is no Parquet, or a damaged one.
    """
    size, footer = _check_footer(path)
    # pyarrow takes no path that is not UTF-8
    file = pq.ParquetFile(path if _is_text(path) else open_to_read(path), read_dictionary=list(columns))
    if columns:
        _check_rows(path, file.metadata, size)
        _check_pages(path, footer, size, set(columns))
    return file


def _is_text(path: Path) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in str(path))


def _check_footer(path: Path) -> tuple[int, bytes]:
    """Return the file's size and its footer."""
    with open_to_read(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        end = file.read(8)
        length = int.from_bytes(end[:4], "little")
        file.seek(max(0, size - 8 - min(length, _MAX_FOOTER)))
        footer = file.read(min(length, _MAX_FOOTER))
    if len(end) < 8 or end[4:] not in (b"PAR1", b"PARE") or length > size:
        raise pa.ArrowInvalid("it does not end as a Parquet file does")
    if length > _MAX_FOOTER:
        raise InvalidRowError(
            "parquet_bomb", "footer", length, f"a footer may have {_MAX_FOOTER:,} bytes; write the table with larger row groups"
        )
    return size, footer


def _check_rows(path: Path, metadata: pq.FileMetaData, size: int) -> None:
    groups = sum(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    rows = max(metadata.num_rows, groups)
    if rows > MAX_ROWS:
        raise InvalidRowError("parquet_bomb", "rows", rows, f"{path.name} may have {MAX_ROWS:,} rows; split it into shards")
    if rows * LEAST_ROW_BYTES > size:
        bound = f"a record takes at least {LEAST_ROW_BYTES} bytes, and {path.name} has {size:,}; most of its rows are empty or copies"
        raise InvalidRowError("parquet_bomb", "rows", rows, bound)


def _check_pages(path: Path, footer: bytes, size: int, columns: set[str]) -> None:
    try:
        chunks = [chunk for chunk in _Compact(footer).chunks() if chunk.column in columns]
    except IndexError:
        raise pa.ArrowInvalid("its footer breaks off") from None
    with open_to_read(path) as file:
        for chunk in chunks:
            limit = MAX_PICTURE_PAGE if chunk.column.endswith(".bytes") else MAX_TEXT_PAGE
            for unpacked in _page_sizes(file, chunk, size):
                if unpacked > limit:
                    bound = f"it may unpack to {limit:,} bytes; write the table with smaller pages"
                    raise InvalidRowError("parquet_bomb", f"page of {chunk.column}", unpacked, bound)


@dataclass(frozen=True)
class _Chunk:
    """Where the pages of a column lie that belong to one row group: from `place`, `length` bytes."""

    column: str
    place: int
    length: int


def _page_sizes(file: BinaryIO, chunk: _Chunk, size: int) -> Iterator[int]:
    """Yield what every page of a column chunk says that it unpacks to."""
    place, end = chunk.place, chunk.place + chunk.length
    if not 0 < place <= end <= size:
        raise pa.ArrowInvalid(f"column {chunk.column} lies outside of the file")
    while place < end:
        unpacked, packed, length = _page_header(file, place)
        if min(unpacked, packed) < 0 or place + length + packed > end:
            raise pa.ArrowInvalid(f"a page of column {chunk.column} lies outside of it")
        yield unpacked
        place += length + packed


def _page_header(file: BinaryIO, place: int) -> tuple[int, int, int]:
    """Return the unpacked and packed bytes of the page at `place`, and how long its header is."""
    for longest in _HEADER_BYTES:
        file.seek(place)
        header = _Compact(file.read(longest))
        try:
            fields = header.integers()
        except IndexError:
            continue
        if 2 in fields and 3 in fields:
            return fields[2], fields[3], header.place
        break
    raise pa.ArrowInvalid(f"the page header at byte {place:,} is damaged")


class _Compact:
    """Thrift's compact protocol, as far as page headers and footers need it; runs out of bytes with an IndexError.

    pyarrow ends the process where it is asked for a column chunk whose statistics are damaged, so the chunks are read here.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def integers(self) -> dict[int, int]:
        """Return the integer fields of a struct by number; all others are passed over."""
        found: dict[int, int] = {}
        for number, kind in self._fields():
            if kind in (4, 5, 6):
                found[number] = self._integer()
            else:
                self._pass(kind, 0)
        return found

    def chunks(self) -> Iterator[_Chunk]:
        """Yield the column chunks of a footer: field 4 of the file, field 1 of each row group, field 3 of each chunk."""
        for _ in self._structs_in_field(4):
            for _ in self._structs_in_field(1):
                for number, kind in self._fields():
                    if (number, kind) == (3, 12):
                        yield self._chunk()
                    else:
                        self._pass(kind, 0)

    def _chunk(self) -> _Chunk:
        """Return a chunk by its metadata: 3 the parts of its name, 7 its packed bytes, 9 its first page, 11 its dictionary's page."""
        name, places, length = "", [], 0
        for number, kind in self._fields():
            if (number, kind) == (3, 9):
                name = ".".join(self._text() for _ in range(self._count(8)))
            elif kind == 6 and number == 7:
                length = self._integer()
            elif kind == 6 and number in (9, 11):
                places.append(self._integer())
            else:
                self._pass(kind, 0)
        return _Chunk(name, min(filter(None, places), default=0), length)

    def _fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and kind of a struct's fields; whoever asks reads or passes the value before the next one."""
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            yield number, head & 15

    def _structs_in_field(self, wanted: int) -> Iterator[None]:
        """Go through a struct and stop at every struct in the list that field `wanted` is."""
        for number, kind in self._fields():
            if (number, kind) == (wanted, 9):
                for _ in range(self._count(12)):
                    yield
            else:
                self._pass(kind, 0)

    def _count(self, kind: int) -> int:
        """Return how many values a list has, which must be of this kind."""
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._length()
        if count and head & 15 != kind:
            raise pa.ArrowInvalid("a list of its footer holds what none has")
        return count

    def _text(self) -> str:
        length = self._length()
        self.place += length
        if self.place > len(self._data):
            raise IndexError(self.place)
        return self._data[self.place - length : self.place].decode("utf-8", "replace")

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _length(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise pa.ArrowInvalid("a number of a page header is too long")

    def _integer(self) -> int:
        value = self._length()
        return (value >> 1) ^ -(value & 1)

    def _pass(self, kind: int, depth: int) -> None:
        """Pass over a value: 1, 2 are truth values, 3 a byte, 4 to 6 integers, 7 a double, 8 bytes, 9 a list, 10 a set, 12 a struct."""
        if depth > _DEEP or kind not in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12):
            raise pa.ArrowInvalid("a page header holds what none has")
        if kind == 3:
            self.place += 1
        elif kind in (4, 5, 6):
            self._length()
        elif kind == 7:
            self.place += 8
        elif kind == 8:
            length = self._length()
            self.place += length
        elif kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._length()
            for _ in range(count):
                self._pass(3 if head & 15 in (1, 2) else head & 15, depth + 1)
        elif kind == 12:
            while (head := self._byte()) != 0:
                if not head >> 4:
                    self._integer()
                self._pass(head & 15, depth + 1)
        if self.place > len(self._data):
            raise IndexError(self.place)
