"""Records that come whole, from a release of ours: the image is placed as it is, and everything else is kept."""

from __future__ import annotations

import re

from risbench.core.errors import InputError, Refusal
from risbench.core.imagery import Raster, perceptual_hash
from risbench.core.masks import mask_of
from risbench.core.record import Record
from risbench.core.taxonomy import CLASSES

_PATH = re.compile(r"images/[A-Za-z0-9][A-Za-z0-9._-]*/[^/\x00]{1,250}\.(png|jpg|jpeg)")


def check_whole(record: Record) -> None:
    """Check what the schema leaves open and a workspace relies on.

    Raises:
        Refusal: a path that leaves the workspace's images, a mask of another size or without a pixel.
    """
    if _PATH.fullmatch(record.image.path) is None or "/." in record.image.path:
        raise Refusal("unsafe_path", "image.path", record.image.path, "it must be images/SOURCE/NAME.png or .jpg")
    if record.category.name not in CLASSES:
        raise Refusal("unmapped_class", "category.name", record.category.name, f"it is none of the {len(CLASSES)} classes")
    if record.mask is None:
        return
    if record.mask.size != (record.image.height, record.image.width):
        raise Refusal("wrong_size", "mask.size", list(record.mask.size), f"the image is {record.image.height} x {record.image.width}")
    try:
        empty = not mask_of(record.mask).any()
    except InputError as error:
        raise Refusal("broken_rle", "mask.counts", record.mask.counts, str(error)) from None
    if empty:
        raise Refusal("empty_mask", "mask", 0, "it must have at least one pixel")


def placed_whole(record: Record, raster: Raster, suffix: str, digest: str) -> Record:
    """Return a record on its image as it lies in the new workspace, with this suffix and sha256; it belongs to no split yet.

    Raises:
        Refusal: the image is of another size.
    """
    if (raster.width, raster.height) != (record.image.width, record.image.height):
        stated = f"{record.image.width} x {record.image.height} px"
        raise Refusal("wrong_size", "image", f"{raster.width} x {raster.height} px", f"the record is of an image of {stated}")
    path = re.sub(r"\.\w+$", suffix, record.image.path)
    found = record.image.perceptual_hash if digest == record.image.sha256 else perceptual_hash(raster.pixels)
    image = record.image.model_copy(update={"path": path, "sha256": digest, "perceptual_hash": found})
    return record.model_copy(update={"image": image, "split": None})
