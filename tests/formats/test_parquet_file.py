"""What a Parquet file says of itself is compared with its bytes before a row of it is read."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from risbench.core.errors import InvalidRowError
from risbench.formats import parquet_file, released
from risbench.formats.parquet import annotation_table, is_record_table, shard_table, table_rows
from risbench.formats.parquet_file import open_table
from risbench.formats.released import ReleasedRows, table_files
from risbench.formats.source.rows import Refused
from risbench.formats.source.tree import SourceTree
from tests.record import a_record

COLUMNS = ("name", "id", "expression", "category", "mask_rle", "record")


def written(path: Path, columns: dict[str, pa.Array], **options: object) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def empty_rows(count: int) -> dict[str, pa.Array]:
    return {name: pa.nulls(count, pa.string()) for name in COLUMNS}


def real_table(count: int) -> pa.Table:
    records = [a_record(f"r{index}") for index in range(count)]
    return annotation_table(records, {record.id: record.source.source_key for record in records})


@pytest.mark.parametrize("options", [{}, {"row_group_size": 3}, {"compression": "zstd", "data_page_size": 100}, {"use_dictionary": False}, {"data_page_version": "2.0"}, {"write_statistics": True, "store_schema": False}])  # fmt: skip
def test_tables_however_they_were_written_are_read(tmp_path: Path, options: dict[str, object]) -> None:
    table = real_table(20)
    pq.write_table(table, tmp_path / "t.parquet", **options)
    assert is_record_table(tmp_path / "t.parquet")
    assert [row["record"] for row in table_rows(tmp_path / "t.parquet")] == table.column("record").to_pylist()


def test_a_million_empty_rows_in_few_bytes_are_refused_before_one_is_read(tmp_path: Path) -> None:
    for name, count in (("one", 1_000_000), ("four", 4_000_000)):
        path = written(tmp_path / f"{name}.parquet", empty_rows(count))
        assert path.stat().st_size < 200_000
        with pytest.raises(InvalidRowError, match="parquet_bomb: rows"):
            is_record_table(path)
    (tmp_path / "four.parquet").unlink()
    before = os.times().user
    tree = SourceTree.open(tmp_path)
    assert os.times().user - before < 1
    assert [str(reason).split(";")[0] for _, reason in tree.refused] == ["parquet_bomb: rows = 1000000"]
    assert table_files(tree) == []


def test_a_row_group_that_states_more_rows_than_the_file_counts_as_it_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "MAX_ROWS", 10)
    pq.write_table(real_table(11), tmp_path / "t.parquet", row_group_size=4)
    with pytest.raises(InvalidRowError, match=r"may have 10 rows; split it"):
        is_record_table(tmp_path / "t.parquet")


def test_a_page_that_unpacks_to_very_much_is_refused_by_what_its_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {**empty_rows(1), "record": pa.array(["x" * 4_000_000])}
    path = written(tmp_path / "t.parquet", columns, compression="zstd")
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet_file, "MAX_TEXT_PAGE", 1_000_000)
    with pytest.raises(InvalidRowError, match=r"parquet_bomb: page of record = 40000\d\d"):
        is_record_table(path)


def test_a_value_that_many_rows_share_is_in_memory_once(tmp_path: Path) -> None:
    pad = pa.array(np.random.default_rng(0).bytes(2000).hex() for _ in range(60))
    columns = {**empty_rows(60), "name": pad, "record": pa.array(["x" * 3_000_000] * 60)}
    path = written(tmp_path / "t.parquet", columns, compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert is_record_table(path)
    before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    assert sum(len(row["record"]) for row in table_rows(path)) == 60 * 3_000_000
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert pa.default_memory_pool().max_memory() - before < 60_000_000


def nested(columns: dict[str, pa.Array]) -> None:
    columns["record"] = pa.array([["x"]])


def numbers(columns: dict[str, pa.Array]) -> None:
    columns["id"] = pa.array([3])


@pytest.mark.parametrize("change", [nested, numbers])
def test_columns_of_another_type_make_no_table_of_records(tmp_path: Path, change: Callable[[dict[str, pa.Array]], None]) -> None:
    columns = empty_rows(1)
    change(columns)
    assert not is_record_table(written(tmp_path / "t.parquet", columns))


def test_any_byte_of_a_table_may_be_another(tmp_path: Path) -> None:
    records = [a_record(f"r{index}") for index in range(3)]
    names = {record.id: record.source.source_key for record in records}
    pq.write_table(shard_table(records, names, [(b"image", "a.png")] * 3, [b"mask"] * 3), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    random = np.random.default_rng(3)
    read = 0
    for _ in range(150):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 3):
            changed[place] = random.integers(256)
        path = tmp_path / "changed.parquet"
        path.write_bytes(changed[: random.integers(len(data))] if random.random() < 0.2 else changed)
        try:
            read += len(open_table(path, ["record", "image.bytes"]).read(columns=["record"]).to_pylist())
        except (InvalidRowError, pa.ArrowException, OSError, ValueError):
            continue
    assert read > 0


def test_no_byte_of_a_footer_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(real_table(3).select(["record"]).replace_schema_metadata(None), path, store_schema=False)
    assert [column for _, column in _chunks(path)] == _names(path)
    done = subprocess.run([sys.executable, "-c", _EVERY_BYTE, path], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


_EVERY_BYTE = """
import contextlib, pathlib, sys
import pyarrow as pa
from risbench.core.errors import InvalidRowError
from risbench.formats.parquet_file import open_table

path = pathlib.Path(sys.argv[1])
data, changed = path.read_bytes(), path.with_name("changed.parquet")
footer = int.from_bytes(data[-8:-4], "little")
for place in range(len(data) - 8 - footer, len(data) - 8):
    for bits in (1, 2):
        changed.write_bytes(data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :])
        with contextlib.suppress(InvalidRowError, pa.ArrowException, OSError, ValueError, LookupError):
            open_table(changed, ["record"])
"""


def _chunks(path: Path) -> list[tuple[int, str]]:
    """Return the place and column of each chunk as we read them; pyarrow says the same of a whole file."""
    chunks = list(parquet_file._Compact(parquet_file._check_footer(path)[1]).chunks())
    theirs = [pq.ParquetFile(path).metadata.row_group(0).column(index) for index in range(len(chunks))]
    assert [(chunk.column, chunk.length) for chunk in chunks] == [(one.path_in_schema, one.total_compressed_size) for one in theirs]
    assert [chunk.place for chunk in chunks] == [one.dictionary_page_offset or one.data_page_offset for one in theirs]
    return [(chunk.place, chunk.column) for chunk in chunks]


def _names(path: Path) -> list[str]:
    return [column.path for column in pq.ParquetFile(path).schema]


def test_of_very_many_refused_rows_the_rest_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "_REFUSED_NAMED", 4)
    table = real_table(12)
    changed = table.set_column(
        table.schema.get_field_index("record"), "record", pa.array(["{}"] * 11 + table.column("record").to_pylist()[11:])
    )
    pq.write_table(changed, tmp_path / "t.parquet")
    tree = SourceTree.open(tmp_path)
    items = [*ReleasedRows(tree).of_table(table_files(tree)[0])]
    refused = [item for item in items if isinstance(item, Refused)]
    assert len(refused) == 5
    assert len(items) == 6, "the good row is read"
    assert "more_rows_refused: rows = 7" in str(refused[-1].reason)
