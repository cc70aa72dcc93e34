"""Release formats that are folders of pictures: the released risbench layout, COCO, REFER, YOLO."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from risbench.core.metrics import mask_iou
from risbench.core.record import SPLITS, Record
from risbench.export.triplet import Triplet, image_names, link
from risbench.formats.coco import coco_instances
from risbench.formats.parquet import annotation_table
from risbench.formats.phrases import phrase_lines
from risbench.formats.refer import refer_files
from risbench.formats.yolo import dataset_yaml, label_line, read_label_line


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


class _Images:
    """A folder that holds each image once: the workspace's file is copied, so that an edited release cannot harm it; further copies of
    one release are names of the first."""

    def __init__(self, folder: Path, names: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._folder, self._names, self._written = folder, names, set[str]()

    def add(self, triplet: Triplet) -> None:
        path = triplet.picture.path
        if path not in self._written:
            self._written.add(path)
            triplet.picture.put(self._folder / self._names[path])


class CocoLayout:
    """images/ and one instances_<split>.json each, with `expression` on every annotation."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._folder, self._records, self._names = folder, records, image_names(records)
        self._images = _Images(folder / "images", self._names)

    def add(self, triplet: Triplet) -> None:
        """Write the image."""
        self._images.add(triplet)

    def close(self) -> dict[str, Any]:
        """Write the annotations."""
        for split in SPLITS:
            members = [record for record in self._records if record.split == split]
            (self._folder / f"instances_{split}.json").write_bytes(_compact(coco_instances(members, self._names)))
        return {}


class ReferLayout:
    """<name>/{refs(unc).p, refs.json, instances.json} and images/<name>/JPEGImages/."""

    def __init__(self, folder: Path, records: Sequence[Record], dataset: str) -> None:
        self._dataset = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip(".-") or "dataset"  # a folder's name, whatever the settings say
        self._folder, self._records, self._names = folder, records, image_names(records)
        self._images = _Images(folder / "images" / self._dataset / "JPEGImages", self._names)

    def add(self, triplet: Triplet) -> None:
        """Write the image."""
        self._images.add(triplet)

    def close(self) -> dict[str, Any]:
        """Write refs and instances."""
        refs, instances = refer_files(self._records, self._names)
        folder = self._folder / self._dataset
        folder.mkdir(parents=True)
        (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
        (folder / "refs.json").write_bytes(_compact(refs))
        (folder / "instances.json").write_bytes(_compact(instances))
        return {}


class YoloLayout:
    """images/<split>/, labels/<split>/ and dataset.yaml; an object that several sentences mean is labelled once."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._folder, self._names = folder, image_names(records)
        self._labels: dict[tuple[str, str], dict[str, None]] = {}
        self._ious: list[float] = []
        self._images = {}
        for split in SPLITS:
            self._images[split] = _Images(folder / "images" / split, self._names)
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


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
