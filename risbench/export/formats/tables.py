"""Parquet tables of whole records in a release: their rows counted, each record looked at."""

from __future__ import annotations

from collections import Counter
from typing import Final

from risbench.core.imagery import MAX_PIXELS
from risbench.core.masks import mask_of
from risbench.core.record import SPLITS, Record
from risbench.export.formats.base import Check
from risbench.formats.parquet_file import open_table

_COLUMNS: Final = ["id", "scene", "record"]


def count_rows(check: Check, pattern: str) -> dict[str, int]:
    """Return the rows of each split in the tables of a pattern, with {} for the split; add what is wrong with a record."""
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for split in SPLITS:
        for path in sorted(check.folder.glob(pattern.format(split))):
            for batch in open_table(path, _COLUMNS).iter_batches(256, columns=_COLUMNS):
                for index in check.progress.counting(range(batch.num_rows)):
                    row = {name: batch.column(name)[index].as_py() for name in _COLUMNS}
                    counts[split] += 1
                    place = f"{path.name}: record {row['id']}"
                    if row["id"] in seen:
                        check.faults.append(f"{place}: stands here twice")
                    seen.add(row["id"])
                    named = check.frozen.splits.get(row[check.frozen.by])
                    if named != split:
                        check.faults.append(
                            f"{place}: {check.frozen.by} {row[check.frozen.by]} is of {named or 'no split'} in split.csv, here of {split}"
                        )
                    check.faults.extend(
                        f"{place}: {fault}" for fault in _record_faults(Record.model_validate_json(row["record"]), row["id"])
                    )
    return counts


def _record_faults(record: Record, name: str) -> list[str]:
    if record.id != name:
        return [f"its record is of {record.id}"]
    if record.image.width * record.image.height > MAX_PIXELS:
        return [f"image: {record.image.width} x {record.image.height} px; at most {MAX_PIXELS:,} pixels are looked at"]
    if record.mask is None or record.mask.size != (record.image.height, record.image.width):
        return [f"mask.size = {record.mask.size if record.mask else None}: must be {(record.image.height, record.image.width)}"]
    return [] if mask_of(record.mask).any() else ["mask: is empty"]
