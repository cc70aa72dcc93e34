"""`risbench audit`: a workspace's masks against true ones."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError, Refusal, printable
from risbench.core.geometry import box_iou, invert_affine, map_box
from risbench.core.masks import mask_of
from risbench.core.metrics import bootstrap_interval, boundary_iou, mask_iou
from risbench.core.progress import Progress
from risbench.core.record import Box, Record
from risbench.core.taxonomy import to_class
from risbench.core.workspace import REFINE, Workspace, read_records
from risbench.export.draw import write_sheet
from risbench.export.split import size_of
from risbench.formats.coco import CocoFile, given_mask, load_coco, mask_pixels, plain_id
from risbench.formats.rows import numbers
from risbench.formats.tree import Entry

THRESHOLDS: Final = (0.5, 0.7, 0.8, 0.9)
_AMBIGUITY: Final = 0.1
_WORST: Final = 24


@dataclass(frozen=True)
class Score:
    """One scored record."""

    record: Record
    iou: float
    boundary: float
    truth_area: float
    truth: NDArray[np.bool_] | None


def audit(
    *,
    truth: Path | str,
    workspace: Path | str = ".",
    links: Path | str | None = None,
    round_number: int | None = None,
    sheet: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score masks against COCO instances and return means with 95 % intervals (bootstrap, whole images drawn).

    `links` maps `source_key` to annotation id (or a list of ids for several targets); without it a record matches the
    annotation of its image and class that overlaps its box most. A record without a mask scores 0. The worst cases are
    drawn to `sheet`, by default `audit/worst.png` in the workspace.

    Raises:
        InputError: truth or links cannot be read, or nothing matches.
    """
    opened = Workspace.open(workspace)
    folder = opened.latest() if round_number is None else opened.stage(REFINE) / f"round-{round_number}"
    if not (folder / "run.json").exists():
        raise InputError(f"{folder}: there is no such finished round")
    coco = _load_truth(Path(truth))
    matcher = _Matcher(coco, _load_links(Path(links)) if links else None, str(truth))
    scores: list[Score] = []
    records = list(read_records(folder))
    with Progress("audit", len(records), quiet=quiet) as progress:
        for record in records:
            ids = matcher.match(record)
            if ids:
                try:
                    scores.append(_score(record, ids, coco, matcher.by_id))
                except Refusal as reason:
                    matcher.not_scored[reason.code] += 1
            progress.advance(1)
    if not scores:
        raise InputError(f"{truth}: none of the workspace's {len(records):,} records matches an annotation: {dict(matcher.not_scored)}")
    result = {**_summary(scores), "not_scored": dict(sorted(matcher.not_scored.items())), "ambiguous": matcher.ambiguous}
    result["links_without_record"] = matcher.unused_links(records)
    worst = sorted(scores, key=lambda score: (score.iou, score.record.id))[:_WORST]
    result["worst"] = [{"id": score.record.id, "iou": round(score.iou, 4)} for score in worst]
    path = Path(sheet) if sheet is not None else opened.root / "audit" / "worst.png"
    write_sheet(path, opened.root, [(score.record, score.truth, f"{score.iou:.2f}") for score in worst])
    result["sheet"] = str(path)
    return result


def _load_truth(path: Path) -> CocoFile:
    if not path.is_file():
        raise InputError(f"--truth {path}: there is no such file")
    try:
        return load_coco(Entry(path.name, path.stat().st_size, path.resolve()))
    except Refusal as reason:
        raise InputError(f"--truth {path}: {reason}") from None


def _load_links(path: Path) -> dict[str, list[Any]]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"--links {path}: there is no such file") from None
    except ValueError as error:
        raise InputError(f"--links {path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"--links {path}: must be a JSON object that maps source_key to annotation id")
    links = {str(key): ids if isinstance(ids, list) else [ids] for key, ids in value.items()}
    for key, ids in links.items():
        if not ids or any(plain_id(one) is None for one in ids):
            raise InputError(f"--links {path}: {printable(key)} = {printable(ids)}: must be an annotation id or a list of them")
    return links


class _Matcher:
    """Finds the annotations that a record means, and keeps what it could not find."""

    def __init__(self, coco: CocoFile, links: Mapping[str, list[Any]] | None, where: str) -> None:
        self.not_scored: Counter[str] = Counter()
        self.ambiguous: list[str] = []
        self._links = links
        self.by_id = {plain_id(annotation.get("id")): annotation for annotation in coco.annotations if isinstance(annotation, dict)}
        self._by_image: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        stems = Counter(PurePosixPath(str(image.get("file_name"))).stem for image in coco.images.values())
        for annotation in self.by_id.values():
            image = coco.images.get(plain_id(annotation.get("image_id")), {})
            name = str(image.get("file_name"))
            self._by_image[name].append(annotation)
            if stems[PurePosixPath(name).stem] == 1:
                self._by_image[PurePosixPath(name).stem].append(annotation)
        self._classes = {key: to_class(name) for key, name in coco.categories.items()}
        self._where = where

    def match(self, record: Record) -> list[Any]:
        """Return the ids of the annotations that the record's targets are; empty and counted where there are none."""
        if self._links is None:
            return self._by_overlap(record)
        key = record.source.source_key
        if key not in self._links:
            self.not_scored["no_link"] += 1
            return []
        missing = [value for value in self._links[key] if value not in self.by_id]
        if missing:
            raise InputError(f"--links: {printable(key)} = {printable(missing[0])}: {self._where} has no annotation of this id")
        return self._links[key]

    def _by_overlap(self, record: Record) -> list[Any]:
        name = PurePosixPath(record.image.source_path)
        annotations = self._by_image.get(name.name) or self._by_image.get(name.stem) or []
        found = []
        for target in record.targets:
            ranked = sorted(
                (
                    (box_iou(map_box(record.placement.affine, target.box), box), item.get("id"))
                    for item in annotations
                    if self._classes.get(plain_id(item.get("category_id"))) == record.category.name and (box := _xyxy(item)) is not None
                ),
                key=lambda pair: (-pair[0], str(pair[1])),
            )
            if not ranked or ranked[0][0] <= 0:
                self.not_scored["no_annotation_overlaps"] += 1
                return []
            if len(ranked) > 1 and ranked[0][0] - ranked[1][0] < _AMBIGUITY:
                overlaps = f"{ranked[0][0]:.2f} and {ranked[1][0]:.2f}"
                self.ambiguous.append(f"{record.id}: annotations {ranked[0][1]} and {ranked[1][1]} overlap its box by {overlaps}")
            found.append(ranked[0][1])
        return found

    def unused_links(self, records: Sequence[Record]) -> int:
        """Return how many links name no record of the workspace."""
        if self._links is None:
            return 0
        keys = {record.source.source_key for record in records}
        return sum(key not in keys for key in self._links)


def _xyxy(annotation: Mapping[str, Any]) -> Box | None:
    try:
        x, y, width, height = numbers(annotation.get("bbox"), 4, "bbox")
    except Refusal:
        return None  # an annotation without a usable box matches nothing, and the record is counted as not matched
    return (x, y, x + width, y + height)


def _score(record: Record, ids: Sequence[Any], coco: CocoFile, by_id: Mapping[Any, Mapping[str, Any]]) -> Score:
    truth = np.zeros((record.image.height, record.image.width), bool)
    for value in ids:
        truth |= _truth_in_record(record, by_id[value], coco)
    if record.mask is not None and record.mask.size != truth.shape:
        raise Refusal("mask_of_other_size", "mask.size", record.mask.size, f"the image is {truth.shape}")
    if record.mask is None:
        return Score(record, 0.0, 0.0, float(truth.sum()), truth)
    mask = mask_of(record.mask)
    return Score(record, mask_iou(mask, truth), boundary_iou(mask, truth), float(truth.sum()), truth)


def _truth_in_record(record: Record, annotation: Mapping[str, Any], coco: CocoFile) -> NDArray[np.bool_]:
    """Return a true mask in pixels of the record's image, brought there by the record's own placement."""
    placement = record.placement
    pixels = mask_pixels(given_mask(annotation.get("segmentation")), placement.source_height, placement.source_width)
    if placement.fit == "keep":
        return pixels
    a, b, c, d, e, f = invert_affine(placement.affine)
    # Between pixel centres, as cv2 counts; half coverage decides where pixels shrink.
    matrix = np.array([[a, b, c + (a + b) / 2 - 0.5], [d, e, f + (d + e) / 2 - 0.5]])
    size = (record.image.width, record.image.height)
    warped = cv2.warpAffine(pixels.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    result: NDArray[np.bool_] = np.asarray(warped) >= 0.5
    return result


def _summary(scores: Sequence[Score]) -> dict[str, Any]:
    ious, boundaries = np.array([score.iou for score in scores]), np.array([score.boundary for score in scores])
    images = [score.record.image.path for score in scores]
    shares = {str(threshold): (ious >= threshold).astype(float) for threshold in THRESHOLDS}
    return {
        "n": len(scores),
        "images": len(set(images)),
        "mean_iou": float(ious.mean()),
        "mean_iou_interval": bootstrap_interval(ious.tolist(), images),
        "boundary_iou": float(boundaries.mean()),
        "boundary_iou_interval": bootstrap_interval(boundaries.tolist(), images),
        "share": {key: float(values.mean()) for key, values in shares.items()},
        "share_interval": {key: bootstrap_interval(values.tolist(), images) for key, values in shares.items()},
        "without_mask": sum(score.record.mask is None for score in scores),
        "by": {
            "class": _grouped(scores, (score.record.category.name for score in scores)),
            "size": _grouped(scores, (size_of(score.truth_area) for score in scores)),
            "box_tier": _grouped(scores, (score.record.targets[0].box_precision for score in scores)),
            "engine": _grouped(scores, (score.record.mask.engine if score.record.mask else "none" for score in scores)),
        },
    }


def _grouped(scores: Sequence[Score], names: Iterable[str]) -> dict[str, Any]:
    groups: dict[str, list[float]] = defaultdict(list)
    for score, name in zip(scores, names, strict=True):
        groups[name].append(score.iou)
    return {
        name: {"n": len(values), "mean_iou": float(np.mean(values)), "share_0.8": float((np.array(values) >= 0.8).mean())}
        for name, values in sorted(groups.items())
    }
