"""COCO: images and instances, with `expression` on every annotation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from risbench.core.reading import read_json
from risbench.core.record import SPLITS, Record
from risbench.export.formats.base import Check, ImageFolder, ReleaseFormat, compact_json
from risbench.export.triplet import Triplet, image_names
from risbench.formats.coco import coco_instances


class CocoLayout:
    """images/ and one instances_<split>.json each, with `expression` on every annotation."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._folder, self._records, self._names = folder, records, image_names(records)
        self._images = ImageFolder(folder / "images", self._names)

    def add(self, triplet: Triplet) -> None:
        """Write the image."""
        self._images.add(triplet)

    def close(self) -> dict[str, Any]:
        """Write the annotations."""
        for split in SPLITS:
            members = [record for record in self._records if record.split == split]
            (self._folder / f"instances_{split}.json").write_bytes(compact_json(coco_instances(members, self._names)))
        return {}


def _count(check: Check) -> dict[str, int]:
    return {split: len(read_json(check.folder / "coco" / f"instances_{split}.json")["annotations"]) for split in SPLITS}


RELEASE_FORMAT: Final = ReleaseFormat(
    name="coco",
    opened="`coco/`: pycocotools, with `expression` on every annotation",
    writer=lambda folder, records, dataset: CocoLayout(folder / "coco", records),
    count=_count,
    rank=20,
)
