"""The pixels of a mask that a source brings, in whatever form it brings it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InvalidRowError
from risbench.core.imagery import read_raster
from risbench.core.record import Repair
from risbench.core.sizes import Size
from risbench.formats.coco import mask_pixels
from risbench.formats.source.rows import GivenMask
from risbench.formats.source.tree import SourceTree


def given_pixels(
    given: GivenMask, tree: SourceTree, height: int, width: int, image: str, stated: Size | None = None, *, upright: bool = True
) -> tuple[NDArray[np.bool_], Repair | None]:
    """Return a mask (height, width) from a picture of the source, run lengths or polygons, and the repair of its size, if any.

    `image` names its image in errors, `stated` is the (width, height) that the source states of it. A picture is read `upright`
    where its image is.

    Raises:
        InvalidRowError: it fits neither the image nor the stated size, or cannot be read.
    """
    if given.path is None:
        return mask_pixels(given, height, width, stated)
    with tree.by_path[given.path].open() as file:
        picture = read_raster(file, given.path, upright=upright)
    if (picture.height, picture.width) != (height, width):
        exchanged = (picture.height, picture.width) == (width, height) and width != height
        hint = (
            "; its sides are exchanged, so one of the two has an EXIF turn: --exif stored reads both as they are stored"
            if exchanged
            else ""
        )
        raise InvalidRowError(
            "wrong_size", "mask", f"{picture.width} x {picture.height}", f"the image {image} is {width} x {height} px{hint}"
        )
    return picture_mask(picture.pixels), None


def picture_mask(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (height, width) that a picture (height, width, bands) shows."""
    values = pixels.max(axis=2)
    # Masks are 0/255 in the released sets, 0/1 where people re-saved them.
    result: NDArray[np.bool_] = values > (127 if values.max() > 1 else 0)
    return result
