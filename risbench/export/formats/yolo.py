"""YOLO's polygons, for detectors: no sentences, and the IoU that the polygons lose is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from risbench.core.metrics import mask_iou
from risbench.core.record import SPLITS, Record
from risbench.export.formats.base import Check, ImageFolder, ReleaseFormat
from risbench.export.triplet import Triplet, image_names
from risbench.formats.yolo import dataset_yaml, label_line, read_label_line


class YoloLayout:
    """images/<split>/, labels/<split>/ and dataset.yaml; an object that several sentences mean is labelled once."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._folder, self._names = folder, image_names(records)
        self._labels: dict[tuple[str, str], dict[str, None]] = {}
        self._ious: list[float] = []
        self._images = {}
        for split in SPLITS:
            self._images[split] = ImageFolder(folder / "images" / split, self._names)
            (folder / "labels" / split).mkdir(parents=True)

    def add(self, triplet: Triplet) -> None:
        """Write the image, and keep the object's polygon and what it loses."""
        record = triplet.record
        assert record.split is not None, "every record that is released has a split"
        self._images[record.split].add(triplet)
        line = label_line(record.category.name, triplet.mask)
        self._labels.setdefault((record.split, record.image.path), {})[line] = None
        self._ious.append(mask_iou(triplet.mask, read_label_line(line, *triplet.mask.shape)[1]))

    def close(self) -> dict[str, Any]:
        """Write the labels; return the IoU that is left of the masks."""
        for (split, path), lines in self._labels.items():
            stem = Path(self._names[path]).stem
            (self._folder / "labels" / split / f"{stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self._folder / "dataset.yaml").write_text(dataset_yaml(SPLITS), encoding="utf-8")
        lost = {"mean_iou": round(sum(self._ious) / len(self._ious), 4), "lowest_iou": round(min(self._ious), 4)}
        lossy = "no sentences; masks as polygons; objects without a sentence are not labelled"
        return {"lossy": lossy, "objects": sum(map(len, self._labels.values())), **lost}


def _count(check: Check) -> None:
    lines = sum(path.read_bytes().count(b"\n") for path in (check.folder / "yolo" / "labels").rglob("*.txt"))
    if lines != (objects := check.written("yolo")["objects"]):
        check.faults.append(f"yolo: holds {lines:,} objects; release.json counts {objects:,}")


RELEASE_FORMAT: Final = ReleaseFormat(
    name="yolo",
    opened="`yolo/dataset.yaml`: ultralytics; without sentences, masks as polygons",
    writer=lambda folder, records, dataset: YoloLayout(folder / "yolo", records),
    count=_count,
    rank=60,
)
