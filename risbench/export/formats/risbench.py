"""RISBench's own layout as it was released: pictures of images and masks, and sentences; a table holds what that loses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from risbench.core.record import SPLITS, Record
from risbench.export.formats.base import ReleaseFormat
from risbench.export.formats.tables import count_rows
from risbench.export.triplet import Triplet, link
from risbench.formats.parquet import annotation_table
from risbench.formats.phrases import phrase_lines

_TABLES: Final = "annotations_{}.parquet"


class RisbenchLayout:
    """images/, masks/, output_phrase_<split>.txt and annotations_<split>.parquet, as RISBench was released and what it lost.

    An image with several referents is written once and hard-linked under their names.
    """

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._folder, self._records = folder, records
        self._names: dict[str, str] = {}
        self._written: dict[str, Path] = {}
        for sub in ("images", "masks"):
            (folder / sub).mkdir(parents=True)

    def add(self, triplet: Triplet) -> None:
        """Write image and mask."""
        self._names[triplet.record.id] = triplet.name
        target = self._folder / "images" / f"{triplet.name}.png"
        if triplet.picture.suffix == ".png":
            triplet.picture.put(target)
        elif (first := self._written.setdefault(triplet.picture.path, target)) is target:
            target.write_bytes(triplet.picture.png)
        else:
            link(first, target)
        (self._folder / "masks" / f"{triplet.name}.png").write_bytes(triplet.mask_png)

    def close(self) -> dict[str, Any]:
        """Write the sentences and the table."""
        for split in SPLITS:
            members = [record for record in self._records if record.split == split]
            (self._folder / f"output_phrase_{split}.txt").write_text(phrase_lines(members, self._names), encoding="utf-8")
            with open(self._folder / f"annotations_{split}.parquet", "wb") as file:  # pyarrow takes no path that is not UTF-8
                pq.write_table(annotation_table(members, self._names), file, compression="zstd")
        return {}


RELEASE_FORMAT: Final = ReleaseFormat(
    name="risbench",
    opened="`images/`, `masks/`, `output_phrase_<split>.txt`: as RISBench was released; `annotations_<split>.parquet`: all it lost",
    writer=lambda folder, records, dataset: RisbenchLayout(folder, records),
    count=lambda check: count_rows(check, _TABLES),
    rank=10,
    tables=_TABLES,
)
