"""Records that come whole, from a release of ours: the image is placed as it is, and everything else is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

from risbench.core.classes import CLASSES
from risbench.core.errors import InputError, InvalidRowError
from risbench.core.geometry import lies_in
from risbench.core.imagery import Raster, check_size, perceptual_hash
from risbench.core.masks import mask_of
from risbench.core.record import Record
from risbench.ingest.sentences import check_text

_ID = re.compile(r"[^/]+/[^/]+/[^/]+(/[^/]+)*")
_PATH = re.compile(r"images/[A-Za-z0-9][A-Za-z0-9._-]*/[^/\x00]{1,250}\.(png|jpg|jpeg)")


def check_whole(record: Record) -> None:
    """Check what the schema leaves open and a workspace relies on.

    Raises:
        InvalidRowError: a path that leaves the workspace's images, an id that is none, a class that is none of the 26, no target, a text
            that cannot be printed, a box that does not lie in the image, a mask of another size or without a pixel.
    """
    if _PATH.fullmatch(record.image.path) is None or "/." in record.image.path or len(record.image.path.encode()) > 240:
        raise InvalidRowError("unsafe_path", "image.path", record.image.path, "it must be images/SOURCE/NAME.png or .jpg")
    if _ID.fullmatch(record.id) is None:
        raise InvalidRowError("unsafe_id", "id", record.id, "it must be SOURCE/IMAGE/OBJECT")
    for name, value in _texts(record):
        check_text(value, name)
    if record.category.name not in CLASSES:
        raise InvalidRowError("unmapped_class", "category.name", record.category.name, f"it is none of the {len(CLASSES)} classes")
    if not record.targets:
        raise InvalidRowError("no_target", "targets", [], "it must hold at least one target")
    width, height = record.image.width, record.image.height
    for index, target in enumerate(record.targets):
        if not lies_in(target.box, width, height):
            raise InvalidRowError(
                "outside_image", f"targets[{index}].box", target.box, f"it must lie in the image of {width} x {height} px"
            )
    if record.mask is None:
        return
    check_size(record.image.path, record.image.width, record.image.height)  # before its runs are drawn: few of them can be very many pixels
    if record.mask.size != (record.image.height, record.image.width):
        raise InvalidRowError(
            "wrong_size", "mask.size", list(record.mask.size), f"the image is {record.image.height} x {record.image.width}"
        )
    try:
        empty = not mask_of(record.mask).any()
    except InputError as error:
        raise InvalidRowError("broken_rle", "mask.counts", record.mask.counts, str(error)) from None
    if empty:
        raise InvalidRowError("empty_mask", "mask", 0, "it must have at least one pixel")


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    yield "id", record.id
    yield "expression", record.expression.text if record.expression else ""
    yield "image.path", record.image.path
    yield "image.scene", record.image.scene
    yield "image.crs", record.image.crs or ""
    yield "source.dataset", record.source.dataset
    yield "source.licence", record.source.licence or ""
    yield "mask.engine", record.mask.engine if record.mask else ""
    yield from (("review.reviewers", name) for name in record.review.reviewers)


def placed_whole(record: Record, raster: Raster, suffix: str, digest: str) -> Record:
    """Return a record on its image as it lies in the new workspace, with this suffix and sha256; it belongs to no split yet.

    Raises:
        InvalidRowError: the image is of another size, or shows something else than the record's.
    """
    if (raster.width, raster.height) != (record.image.width, record.image.height):
        stated = f"{record.image.width} x {record.image.height} px"
        raise InvalidRowError("wrong_size", "image", f"{raster.width} x {raster.height} px", f"the record is of an image of {stated}")
    if (found := perceptual_hash(raster.pixels)) != record.image.perceptual_hash:
        raise InvalidRowError(
            "image_differs", "image", found, f"the record is of an image with the perceptual hash {record.image.perceptual_hash}"
        )
    path = re.sub(r"\.\w+$", suffix, record.image.path)
    image = record.image.model_copy(update={"path": path, "sha256": digest})
    return record.model_copy(update={"image": image, "split": None})
