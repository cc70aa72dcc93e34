"""REFER, as the loaders of RefCOCO, LAVT and RMSIN read it."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from risbench.core.reading import read_json
from risbench.core.record import Record
from risbench.export.formats.base import Check, ImageFolder, ReleaseFormat, compact_json
from risbench.export.triplet import Triplet, image_names
from risbench.formats.refer import refer_files


class ReferLayout:
    """<name>/{refs(unc).p, refs.json, instances.json} and images/<name>/JPEGImages/."""

    def __init__(self, folder: Path, records: Sequence[Record], dataset: str) -> None:
        self._dataset = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip(".-") or "dataset"  # a folder's name, whatever the settings say
        self._folder, self._records, self._names = folder, records, image_names(records)
        self._images = ImageFolder(folder / "images" / self._dataset / "JPEGImages", self._names)

    def add(self, triplet: Triplet) -> None:
        """Write the image."""
        self._images.add(triplet)

    def close(self) -> dict[str, Any]:
        """Write refs and instances."""
        refs, instances = refer_files(self._records, self._names)
        folder = self._folder / self._dataset
        folder.mkdir(parents=True)
        (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
        (folder / "refs.json").write_bytes(compact_json(refs))
        (folder / "instances.json").write_bytes(compact_json(instances))
        return {}


def _count(check: Check) -> dict[str, int]:
    [path] = (check.folder / "refer").glob("*/refs.json")
    return dict(Counter(ref["split"] for ref in read_json(path)))


RELEASE_FORMAT: Final = ReleaseFormat(
    name="refer",
    opened="`refer/`: the REFER loaders of LAVT, RMSIN and their descendants",
    writer=lambda folder, records, dataset: ReferLayout(folder / "refer", records, dataset),
    count=_count,
    rank=30,
)
