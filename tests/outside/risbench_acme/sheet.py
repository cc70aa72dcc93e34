"""A release format: one table of ids, sentences and areas, parted by tabs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from risbench.core.record import Record
from risbench.export.formats.base import Check, ReleaseFormat
from risbench.export.triplet import Triplet


class Sheet:
    """Writes sheet/triplets.tsv."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir(parents=True)
        self._path, self._lines = folder / "triplets.tsv", list[str]()

    def add(self, triplet: Triplet) -> None:
        """Keep a line."""
        record = triplet.record
        assert record.expression is not None
        self._lines.append(f"{record.split}\t{record.id}\t{record.expression.text}\t{np.count_nonzero(triplet.mask)}\n")

    def close(self) -> dict[str, Any]:
        """Write the table."""
        self._path.write_text("".join(self._lines), encoding="utf-8")
        return {"lines": len(self._lines)}


def _writer(folder: Path, records: Sequence[Record], dataset: str) -> Sheet:
    return Sheet(folder / "sheet")


def _count(check: Check) -> dict[str, int]:
    lines = (check.folder / "sheet" / "triplets.tsv").read_text(encoding="utf-8").splitlines()
    return dict(Counter(line.split("\t")[0] for line in lines))


SHEET = ReleaseFormat(name="sheet", opened="`sheet/triplets.tsv`: any spreadsheet", writer=_writer, count=_count)
