"""Parquet shards with the pictures inside, for Hugging Face `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from risbench.core.record import SPLITS, Split
from risbench.export.formats.base import SHARD_BYTES, ReleaseFormat
from risbench.export.formats.tables import count_rows
from risbench.export.triplet import Triplet
from risbench.formats.parquet import shard_table

_ROW_GROUP: Final = 64
_GROUP_BYTES: Final = 64_000_000
# Of a row group the same image is stored once, however many sentences it has: a dictionary as large as it must be.
_ONE_DICTIONARY: Final = 1 << 30
_TABLES: Final = "parquet/{}-*.parquet"


class ParquetShards:
    """<split>-NNNNN-of-NNNNN.parquet: rows in groups of at most 64, so that a viewer fetches little."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(parents=True)
        self._splits = {split: _ParquetSplit(folder, split, shard_bytes) for split in SPLITS}

    def add(self, triplet: Triplet) -> None:
        """Keep the triplet until its row group is full."""
        assert triplet.record.split is not None, "every record that is released has a split"
        self._splits[triplet.record.split].add(triplet)

    def close(self) -> dict[str, Any]:
        """Write what is left and give the shards their names; return how many there are."""
        return {"shards": {name: split.close() for name, split in self._splits.items()}}


class _ParquetSplit:
    def __init__(self, folder: Path, split: Split, shard_bytes: int) -> None:
        self._folder, self._split, self._limit = folder, split, shard_bytes
        self._group: list[Triplet] = []
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._file: BinaryIO
        self._paths: list[Path] = []

    def add(self, triplet: Triplet) -> None:
        self._group.append(triplet)
        self._bytes += len(triplet.picture.data)
        if len(self._group) == _ROW_GROUP or self._bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> int:
        if self._group or not self._paths:
            self._flush()
        self._end_shard()
        for index, path in enumerate(self._paths):
            path.rename(self._folder / f"{self._split}-{index:05d}-of-{len(self._paths):05d}.parquet")
        return len(self._paths)

    def _flush(self) -> None:
        group, self._group, self._bytes = self._group, [], 0
        table = shard_table(
            [triplet.record for triplet in group],
            {triplet.record.id: triplet.name for triplet in group},
            [(triplet.picture.data, triplet.name + triplet.picture.suffix) for triplet in group],
            [triplet.mask_bits_png for triplet in group],
        )
        if self._writer is None:
            path = self._folder / f".{self._split}-{len(self._paths):05d}"
            self._paths.append(path)
            compression = {field.name: "zstd" for field in table.schema if pa.types.is_string(field.type)}  # pictures are compressed
            self._file = open(path, "wb")  # noqa: SIM115 (open for many groups; pyarrow takes no path that is not UTF-8)
            self._writer = pq.ParquetWriter(self._file, table.schema, compression=compression, dictionary_pagesize_limit=_ONE_DICTIONARY)
        self._writer.write_table(table)
        self._file.flush()
        if self._paths[-1].stat().st_size >= self._limit:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None


RELEASE_FORMAT: Final = ReleaseFormat(
    name="parquet",
    opened="`parquet/`: `datasets.load_dataset(FOLDER)`",
    writer=lambda folder, records, dataset: ParquetShards(folder / "parquet"),
    count=lambda check: count_rows(check, _TABLES),
    rank=40,
    tables=_TABLES,
    pictures=True,
)
