"""Parquet as Hugging Face `datasets` opens it: one row a triplet, image and mask as pictures, the whole record beside them.

https://huggingface.co/docs/hub/datasets-image: an image is a struct of bytes and path, and the schema's metadata say so.
"""

from __future__ import annotations

import bisect
import functools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from risbench.core.record import Record
from risbench.formats.parquet_file import open_table

PICTURE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Of a table of records: what is read back, and how many rows at a time (a few bytes of Parquet can stand for very many).
_COLUMNS: Final = {"name", "id", "expression", "category", "mask_rle", "record"}
_ROWS: Final = 64
_PICTURES: Final = 8
_FEATURES: Final = {"info": {"features": {name: {"_type": "Image"} for name in ("image", "mask")}}}


def annotation_table(records: Sequence[Record], names: Mapping[str, str]) -> pa.Table:
    """Return what the released layout has no place for, one row per triplet; `names` maps record id to the referent's own name."""
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "name": (pa.string(), [names[record.id] for record in records]),
        "id": (pa.string(), [record.id for record in records]),
        "expression": (pa.string(), [record.expression.text if record.expression else None for record in records]),
        "category": (pa.string(), [record.category.name for record in records]),
        "scene": (pa.string(), [record.image.scene for record in records]),
        "image_sha256": (pa.string(), [record.image.sha256 for record in records]),
        "metres_per_pixel": (pa.float64(), [record.image.metres_per_pixel for record in records]),
        "fit": (pa.string(), [record.placement.fit for record in records]),
        "boxes": (pa.list_(pa.list_(pa.float64())), [[list(target.box) for target in record.targets] for record in records]),
        "box_precision": (pa.string(), [record.targets[0].box_precision for record in records]),
        "attributes": (pa.string(), [record.attributes.model_dump_json() for record in records]),
        "mask_size": (pa.list_(pa.int32()), [list(record.mask.size) if record.mask else None for record in records]),
        "mask_rle": (pa.string(), [record.mask.counts if record.mask else None for record in records]),
        "mask_engine": (pa.string(), [record.mask.engine if record.mask else None for record in records]),
        "review_status": (pa.string(), [record.review.status for record in records]),
        "review_agreement": (pa.float64(), [record.review.agreement for record in records]),
        "dataset": (pa.string(), [record.source.dataset for record in records]),
        "source_key": (pa.string(), [record.source.source_key for record in records]),
        "licence": (pa.string(), [record.source.licence for record in records]),
        "record": (pa.string(), [record.to_line() for record in records]),
    }
    return pa.table({name: pa.array(values, type=kind) for name, (kind, values) in columns.items()})


def shard_table(
    records: Sequence[Record], names: Mapping[str, str], images: Sequence[tuple[bytes, str]], masks: Sequence[bytes]
) -> pa.Table:
    """Return rows of a shard: `images` are (file content, file name), `masks` PNG of one bit a pixel, both in the order of the records."""
    pictures = {
        "image": [{"bytes": data, "path": name} for data, name in images],
        "mask": [{"bytes": data, "path": f"{names[record.id]}.mask.png"} for data, record in zip(masks, records, strict=True)],
    }
    rest = annotation_table(records, names)
    columns = [pa.array(values, type=PICTURE) for values in pictures.values()] + rest.columns
    fields = [pa.field(name, PICTURE) for name in pictures] + [*rest.schema]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata={"huggingface": json.dumps(_FEATURES)}))


def picture_names(path: Path) -> list[str | None]:
    """Return the file name of the image of every row; none where the file has no column of images.

    Raises:
        OSError: it cannot be read.
        pyarrow.ArrowException: it is no Parquet, or a damaged one.
    """
    if not has_pictures(path):
        return []
    file = open_table(path, ["image.path"])
    batches = file.iter_batches(_ROWS, columns=["image.path"])
    return [row["image"]["path"] if row["image"] else None for batch in batches for row in batch.to_pylist()]


def picture(path: Path, row: int) -> bytes:
    """Return the file content of a row's image; asked for in their order, rows are read once, in any other a group of rows at a time.

    Raises:
        OSError, ValueError: there is none, or it cannot be read.
        pyarrow.ArrowException: the file is damaged.
    """
    status = path.stat()
    return _reader(path, status.st_mtime_ns, status.st_size).picture(row)


@functools.lru_cache(maxsize=4)
def _reader(path: Path, changed: int, size: int) -> _PictureReader:
    return _PictureReader(path)


class _PictureReader:
    """Reads the images of a file a few at a time: how large a group of rows is, is up to who wrote the file."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = open_table(path, ["image.bytes"]), threading.Lock()
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        self._starts = [sum(sizes[:index]) for index in range(len(sizes))]
        self._begin(0)

    def _begin(self, row: int) -> None:
        """Read on from the group that holds a row."""
        group = max(0, bisect.bisect_right(self._starts, row) - 1)
        self._batches = self._file.iter_batches(_PICTURES, row_groups=[*range(group, len(self._starts))], columns=["image.bytes"])
        self._first, self._held = self._starts[group] if self._starts else 0, None

    def picture(self, row: int) -> bytes:
        with self._lock:
            if row < self._first or bisect.bisect_right(self._starts, row) > bisect.bisect_right(self._starts, self._first) + 1:
                self._begin(row)
            while self._held is None or row >= self._first + len(self._held):
                self._first += len(self._held) if self._held is not None else 0
                self._held = next(self._batches).column("image").field("bytes")
            data = self._held[row - self._first].as_py()
        if data is None:
            raise ValueError(f"row {row} has no image")
        return bytes(data)


def table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table of records, with the file name of their image where it holds images.

    Raises:
        OSError: it cannot be read.
        pyarrow.ArrowException: it is no Parquet, a damaged one, or lacks a column.
    """
    wanted = [*sorted(_COLUMNS), *(["image.path"] if has_pictures(path) else [])]
    for batch in open_table(path, wanted).iter_batches(_ROWS, columns=wanted):
        for row in range(batch.num_rows):  # one at a time: rows may share a large value, and each of theirs would be a copy
            yield {name: batch.column(name)[row].as_py() for name in batch.schema.names}


def has_pictures(path: Path) -> bool:
    """Return whether a table holds its images; the errors are those of `is_record_table`."""
    schema = open_table(path).schema_arrow
    return "image" in schema.names and schema.field("image").type == PICTURE


def is_record_table(path: Path) -> bool:
    """Return whether a Parquet file holds whole records, as our releases do: the columns that they have, all of text.

    Raises:
        InvalidRowError: it stands for more than its bytes can hold.
        OSError: it cannot be read.
        pyarrow.ArrowException: it is no Parquet, or a damaged one.
    """
    schema = open_table(path).schema_arrow
    if not set(schema.names) >= _COLUMNS or not all(_is_text(schema.field(name).type) for name in _COLUMNS):
        return False
    open_table(path, sorted(_COLUMNS))
    return True


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner))
