"""`risbench truth link`: iSAID's instances, cut as VRSBench cut DOTA, become true masks of a workspace's images."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.classes import CLASSES
from risbench.core.errors import InputError, InvalidRowError, OptionError
from risbench.core.geometry import map_box, window_starts
from risbench.core.imagery import read_raster
from risbench.core.masks import encode_rle
from risbench.core.progress import Progress
from risbench.core.reading import open_to_read
from risbench.core.record import Box, Record
from risbench.core.sizes import match_size
from risbench.core.storage import explain_os_error, write_durably
from risbench.core.truth import match_box
from risbench.core.workspace import Workspace, read_records

SUFFIX: Final = "_instance_id_RGB.png"
_WINDOW: Final = re.compile(r"^(?P<scene>.+)_(?P<number>\d{4})$")
_MIN_AREA_PX: Final = 12


def link_isaid(*, isaid: Path | str, workspace: Path | str = ".", quiet: bool = False) -> dict[str, Any]:
    """Write `truth/isaid.json` (COCO) and `truth/isaid_links.json` into the workspace and return what was found.

    Every instance that shows in an image of the workspace becomes an annotation. A record is linked to the instance whose extent
    its box means (`core/truth`); that annotation gets the record's class, for the instance
    files carry none.

    Raises:
        OptionError: the folder is none.
        InputError: it holds no instances of any scene here, or a file of it cannot be read.
    """
    folder = Path(isaid)
    if not folder.is_dir():
        raise OptionError(f"--isaid {folder}: must be a folder with iSAID's *{SUFFIX} files")
    opened = Workspace.open(workspace)
    files = {path.name.removesuffix(SUFFIX): path for path in sorted(folder.rglob(f"*{SUFFIX}"))}
    if not files:
        raise InputError(f"--isaid {folder}: holds no *{SUFFIX}")
    records = list(read_records(opened.latest()))
    found = _Found()
    with opened.lock("truth link"), Progress("truth link", len(records), quiet=quiet) as bar:
        for scene, members in groupby(sorted(records, key=_order), key=lambda record: _scene_of(record, files)):
            of_scene = list(members)
            if scene is None:
                found.counts["record_without_instances"] += len(of_scene)
            else:
                ids = instance_ids(files[scene])
                for _, group in groupby(of_scene, key=lambda record: record.image.source_path):
                    _link_image(found, list(group), ids, scene)
            bar.advance(len(of_scene))
        if not found.annotations and found.sizes:
            raise InputError(f"--isaid {folder}: none of its scenes has the size of the workspace's image, such as {found.sizes[0]}")
        if not found.annotations:
            names = ", ".join(sorted({record.image.scene for record in records})[:3])
            raise InputError(f"--isaid {folder}: its {len(files)} scenes are none of the workspace's ({names} ...)")
        categories = [{"id": index, "name": name} for index, name in enumerate((*CLASSES, "unknown"), 1)]
        truth = {"images": found.images, "annotations": found.annotations, "categories": categories}
        place = opened.root / "truth"
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, place) from error
        write_durably(place / "isaid.json", (json.dumps(truth, sort_keys=True) + "\n").encode())
        write_durably(place / "isaid_links.json", (json.dumps(found.links, sort_keys=True) + "\n").encode())
    said = {"truth": str(place / "isaid.json"), "links": str(place / "isaid_links.json"), "images": len(found.images)}
    return {**said, "instances": len(found.annotations), "linked": len(found.links), "counts": dict(sorted(found.counts.items()))}


class _Found:
    """What is written at the end."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.links: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.sizes: list[str] = []


def instance_ids(path: Path) -> NDArray[np.uint32]:
    """Return the instance of every pixel (height, width), 0 for none: R + 256 G + 65536 B of iSAID's picture.

    Raises:
        InputError: the picture cannot be read.
    """
    try:
        with open_to_read(path) as file:
            pixels = read_raster(file, path.name).pixels
    except (OSError, InvalidRowError) as reason:
        raise InputError(f"{path}: {reason}") from None
    red, green, blue = (pixels[..., plane].astype(np.uint32) for plane in range(3))
    return np.asarray(red + (green << 8) + (blue << 16), dtype=np.uint32)


def _order(record: Record) -> tuple[str, str, str]:
    return (record.image.scene, record.image.source_path, record.id)


def _scene_of(record: Record, files: dict[str, Path]) -> str | None:
    """Return the scene whose instances show in a record's source image: the image itself, or the scene it is a window of."""
    stem = PurePosixPath(record.image.source_path).stem
    if stem in files:
        return stem
    window = _WINDOW.match(stem)
    return window["scene"] if window is not None and window["scene"] in files else None


def _link_image(found: _Found, records: Sequence[Record], ids: NDArray[np.uint32], scene: str) -> None:
    """Add the instances of one source image, and link its records to them."""
    name = PurePosixPath(records[0].image.source_path)
    width, height = records[0].placement.source_width, records[0].placement.source_height
    if name.stem == scene:
        try:
            ids = _at_size(ids, width, height)
        except InvalidRowError as reason:
            found.counts["wrong_size"] += len(records)
            found.sizes.append(f"{name.name}: {reason.value} are stated by the instances, {reason.bound}")
            return
    corner = _corner(name.stem, scene, ids, width, height)
    if corner is None:
        found.counts["window_beyond_the_scene"] += len(records)
        return
    left, top = corner
    here = ids[top : top + height, left : left + width]
    if here.shape != (height, width):
        padded = np.zeros((height, width), np.uint32)
        padded[: here.shape[0], : here.shape[1]] = here
        here = padded
    image_id = len(found.images) + 1
    found.images.append({"id": image_id, "file_name": name.name, "width": width, "height": height})
    instances = list(_instances(here))
    annotation_ids = []
    for one in instances:
        left_x, top_y, right_x, bottom_y = one.bounds
        annotation_ids.append(len(found.annotations) + 1)
        found.annotations.append(
            {
                "id": annotation_ids[-1],
                "image_id": image_id,
                "category_id": len(CLASSES) + 1,
                "bbox": [left_x, top_y, right_x - left_x, bottom_y - top_y],
                "area": one.area,
                "iscrowd": 0,
                "segmentation": {"size": list(one.size), "counts": one.counts},
                "isaid_id": one.number,
            }
        )
    for record in records:
        if len(record.targets) != 1:
            found.counts["several_targets"] += 1
            continue
        box_there = map_box(record.placement.affine, record.targets[0].box)
        match = match_box(box_there, [(annotation, one.bounds) for annotation, one in zip(annotation_ids, instances, strict=True)])
        if match.key is None:
            found.counts[match.reason] += 1
        else:
            annotation = match.key
            found.links[record.source.source_key] = annotation
            found.annotations[annotation - 1]["category_id"] = CLASSES.index(record.category.name) + 1


def _at_size(ids: NDArray[np.uint32], width: int, height: int) -> NDArray[np.uint32]:
    """Return a scene's instances (height, width) at the size of the workspace's source image, where the ratio is the same.

    Raises:
        InvalidRowError: `wrong_size`, it is another one.
    """
    match = match_size((ids.shape[1], ids.shape[0]), (width, height))
    if not match.scales:
        return ids
    rows, columns = (np.arange(height) + 0.5) / match.y, (np.arange(width) + 0.5) / match.x
    return np.ascontiguousarray(ids[rows.astype(int).clip(0, ids.shape[0] - 1)][:, columns.astype(int).clip(0, ids.shape[1] - 1)])


def _corner(stem: str, scene: str, ids: NDArray[np.uint32], width: int, height: int) -> tuple[int, int] | None:
    """Return the left and top pixel of a source image in its scene; None where the scene has no window of its number."""
    if stem == scene:
        return (0, 0)
    window = _WINDOW.match(stem)
    assert window is not None, "it was told from its scene by its number"
    corners = [(left, top) for left in window_starts(ids.shape[1], width) for top in window_starts(ids.shape[0], height)]
    number = int(window["number"])
    return corners[number] if number < len(corners) else None


@dataclass(frozen=True)
class _Instance:
    """One instance as it shows: its number, COCO RLE, pixels and upright box."""

    number: int
    size: tuple[int, int]
    counts: str
    area: int
    bounds: Box


def _instances(ids: NDArray[np.uint32]) -> Iterator[_Instance]:
    """Yield the instances of a picture (height, width) of numbers, in their order; one mask is in memory at a time."""
    rows, columns = np.nonzero(ids)
    numbers = ids[rows, columns]
    order = np.argsort(numbers, kind="stable")
    rows, columns, numbers = rows[order], columns[order], numbers[order]
    starts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]])) if len(numbers) else np.zeros(0, int)
    for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
        if stop - start < _MIN_AREA_PX:
            continue
        mask = np.zeros(ids.shape, np.uint8, order="F")
        mask[rows[start:stop], columns[start:stop]] = 1
        size, counts = encode_rle(mask)
        low = columns[start:stop].min(), rows[start:stop].min()
        high = columns[start:stop].max() + 1, rows[start:stop].max() + 1
        bounds = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        yield _Instance(int(numbers[start]), size, counts, int(stop - start), bounds)
