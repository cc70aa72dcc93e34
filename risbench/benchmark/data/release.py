"""A release as samples: one sentence, one image, one mask, whichever of the field's layouts it lies in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.attributes import attributes_of
from risbench.core.classes import find_class
from risbench.core.errors import InputError, InvalidRowError, printable
from risbench.core.geometry import invert_affine, map_box, mask_bounds
from risbench.core.imagery import read_raster
from risbench.core.masks import decode_rle, encode_rle
from risbench.core.record import REVIEWED, SPLITS, Attributes, Box
from risbench.core.storage import digest_of
from risbench.formats.detect import choose_format, format_named, read_source
from risbench.formats.phrases import IMAGE_FOLDERS
from risbench.formats.registry import INPUT_FORMATS
from risbench.formats.source.given_mask import given_pixels
from risbench.formats.source.rows import Refused, Row, SetAside
from risbench.formats.source.tree import Entry, SourceTree

_NAMED: Final = 5


@dataclass(frozen=True)
class Sample:
    """One sample.

    `image` is the path of its image in the release, `size` (height, width) and `counts` its mask as COCO run lengths at the image's own
    size, `box` is the box that is used or the mask's extent, in pixels, `box_given` the source's own, where it has one, before any repair;
    `attributes` are the kinds that the sentence uses.
    """

    id: str
    split: str
    image: str
    scene: str
    sentence: str
    category: str
    size: tuple[int, int]
    counts: str
    box: Box
    attributes: tuple[str, ...]
    reviewed: bool
    box_given: Box | None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask (height, width)."""
        return decode_rle(self.size, self.counts)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Sample:
        """Undo `to_json`."""
        given = tuple(value["box_given"]) if value["box_given"] is not None else None
        listed = {name: tuple(value[name]) for name in ("size", "box", "attributes")}
        return cls(**{**value, **listed, "box_given": given})


@dataclass
class Release:
    """What a release holds, and what of it could not be used: `left_out` counts by reason, `first` names a few."""

    tree: SourceTree
    format: str
    samples: list[Sample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    def leave_out(self, locator: str, reason: InvalidRowError) -> None:
        """Count a row that cannot be used."""
        self.left_out[reason.code] += 1
        again = reason.field == "image" and any(said.endswith(str(reason)) for said in self.first)  # all rows of one image say so
        if len(self.first) < _NAMED and not again:
            self.first.append(f"{printable(locator)}: {reason}")


def fingerprint(folder: Path) -> str:
    """Return a digest of a release's files by name, size and time of change: what it was read from, without reading it.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    tree = SourceTree.open(folder)
    files = {entry.file: entry.path if entry.member is None else "" for entry in tree.entries}
    stated = [(path or file.name, status.st_size, status.st_mtime_ns) for file, path in files.items() for status in [file.stat()]]
    return digest_of(sorted(stated))


def _trained_on() -> str:
    return ", ".join(name for name, known in INPUT_FORMATS.all().items() if known.trains)


def read_release(folder: Path) -> Release:
    """Return the samples of a release, sorted by id. Images are only opened where a mask's size hangs on theirs.

    Raises:
        InputError: it is in no layout with sentences and masks, or no row of it can be used.
    """
    if folder.is_file() and folder.suffix.lower() not in (".zip", ".tar"):
        raise InputError(f"{folder}: is a file; a release is a folder, a zip or a tar")
    tree = SourceTree.open(folder)
    try:
        kind, files, _ = choose_format(tree, None, None)
    except InputError:
        said = f"is no release: no file of it holds triplets ({_trained_on()}); `risbench export --split` makes one"
        raise InputError(f"{folder}: {said}{tree.said_of_refused()}") from None
    if not format_named(kind).trains:
        raise InputError(f"{folder}: is in format {kind}, which holds no triplets; give a release ({_trained_on()})")
    release = Release(tree, kind)
    for path, reason in tree.refused:
        release.leave_out(path, reason)
    seen: set[str] = set()
    for item in read_source(tree, kind, files, None):
        if isinstance(item, SetAside):
            release.leave_out(item.locator, InvalidRowError(item.code, "row", item.locator, item.detail))
        elif isinstance(item, Refused):
            release.leave_out(f"{item.file}: {item.locator}", item.reason)
        else:
            try:
                sample = _sample(item, tree)
                if sample.id in seen:
                    raise InvalidRowError("duplicate_id", "id", sample.id, "another row of the release has it; ids must differ")
                seen.add(sample.id)
                release.samples.append(sample)
            except InvalidRowError as reason:
                release.leave_out(f"{item.file}: {item.locator}", reason)
    if not release.samples:
        said = "; ".join(release.first) or "it is empty"
        raise InputError(f"{folder}: none of its rows is an image, a sentence and a mask: {said}")
    release.samples.sort(key=lambda sample: sample.id)
    return release


def image_of(tree: SourceTree, path: str) -> NDArray[np.uint8]:
    """Return an image of a release as RGB (height, width, 3).

    Raises:
        InvalidRowError: it is gone or cannot be decoded.
        MissingRequirementError: it is there and the system cannot read it, which says nothing about the release.
    """
    entry = tree.by_path.get(path)
    if entry is None:
        raise InvalidRowError("image_missing", "image", path, "it is not in the release; `risbench verify` lists what else is missing")
    with entry.open() as file:
        return read_raster(file, path).pixels


def _sample(row: Row, tree: SourceTree) -> Sample:
    if row.sentence is None or not row.sentence.strip():
        raise InvalidRowError("no_sentence", "sentence", row.sentence, "a sample needs one")
    if row.split not in SPLITS:
        raise InvalidRowError(
            "no_split", "split", row.split, f"it must be one of {', '.join(SPLITS)}; `risbench export --split` makes splits"
        )
    if row.record is not None:
        return _of_record(row, _image_entry(row, tree))
    if row.mask is None:
        raise InvalidRowError("no_mask", "mask", None, "a sample needs one; `risbench refine-masks` makes masks")
    entry = _image_entry(row, tree)
    if row.mask.rle is not None:
        height, width = row.mask.rle[0]
    else:
        pixels = image_of(tree, entry.path)
        height, width = pixels.shape[:2]
    size, counts = encode_rle(given_pixels(row.mask, tree, height, width, row.image)[0])
    extent = mask_bounds(decode_rle(size, counts))
    if extent is None:
        raise InvalidRowError("empty_mask", "mask", row.mask.path, "it must have at least one pixel")
    named = find_class(row.sentence)
    category = row.category or (named[1] if named else "unknown")
    return Sample(
        id=f"{row.file}/{row.source_key}",
        split=row.split,
        image=entry.path,
        scene=row.image,
        sentence=row.sentence,
        category=category,
        size=size,
        counts=counts,
        box=(given := _given_box(row, height, width)) or extent,
        attributes=_kinds(attributes_of(category, row.sentence, {})),
        reviewed=False,
        box_given=given,
    )


def _of_record(row: Row, entry: Entry) -> Sample:
    record = row.record
    assert record is not None, "only rows of records come here"
    if record.mask is None:
        raise InvalidRowError("no_mask", "mask", None, f"record {record.id} has none; `risbench refine-masks` makes masks")
    if not record.targets:
        raise InvalidRowError("no_target", "targets", [], f"record {record.id}: it must hold at least one target")
    try:
        if not decode_rle(record.mask.size, record.mask.counts).any():
            raise InvalidRowError("empty_mask", "mask", record.mask.counts, f"record {record.id}: it must have at least one pixel")
    except InputError as error:
        raise InvalidRowError("broken_rle", "mask", record.mask.counts, f"record {record.id}: {error}") from None
    into = invert_affine(record.placement.affine)
    height, width = record.mask.size
    return Sample(
        id=record.id,
        split=str(row.split),
        image=entry.path,
        scene=record.image.scene,
        sentence=str(row.sentence),
        category=record.category.name,
        size=record.mask.size,
        counts=record.mask.counts,
        box=_around([target.box for target in record.targets]),
        attributes=_kinds(record.attributes),
        reviewed=record.review.status in REVIEWED,
        box_given=_within(_around([map_box(into, target.box_given) for target in record.targets]), height, width),
    )


def _given_box(row: Row, height: int, width: int) -> Box | None:
    """Return the box around all that the source gives, in pixels, cut to the image."""
    if not row.boxes:
        return None
    scaled = [np.array(given.box) * ((width, height, width, height) if given.relative else 1) for given in row.boxes]
    return _within(_around(scaled), height, width)


def _around(boxes: Sequence[Any]) -> Box:
    """Return the box around boxes."""
    x0, y0 = (float(value) for value in np.min(boxes, axis=0)[:2])
    x1, y1 = (float(value) for value in np.max(boxes, axis=0)[2:])
    return x0, y0, x1, y1


def _within(box: Box, height: int, width: int) -> Box | None:
    """Return a box cut to its image; None where nothing is left."""
    x0, x1 = (min(max(value, 0.0), float(width)) for value in box[0::2])
    y0, y1 = (min(max(value, 0.0), float(height)) for value in box[1::2])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _image_entry(row: Row, tree: SourceTree) -> Entry:
    return tree.by_path[row.image] if row.image in tree.by_path else tree.find_image(row.image, folders=IMAGE_FOLDERS)


def _kinds(attributes: Attributes) -> tuple[str, ...]:
    return tuple(name for name in type(attributes).model_fields if getattr(attributes, name) is not None)


def by_image(samples: list[Sample]) -> Iterator[tuple[str, list[int]]]:
    """Yield every image with the numbers of its samples, in the order of the images' paths."""
    groups: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        groups.setdefault(sample.image, []).append(number)
    yield from sorted(groups.items())
