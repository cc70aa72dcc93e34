"""The pixels of a mask that a source brings, in whatever form it brings it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import Refusal
from risbench.core.imagery import read_raster
from risbench.formats.coco import mask_pixels
from risbench.formats.rows import GivenMask
from risbench.formats.tree import SourceTree


def given_pixels(given: GivenMask, tree: SourceTree, height: int, width: int, image: str) -> NDArray[np.bool_]:
    """Return a mask (height, width) from a picture of the source, run lengths or polygons; `image` names its image in errors.

    Raises:
        Refusal: it is not of the image's size, or cannot be read.
    """
    if given.path is None:
        return mask_pixels(given, height, width)
    with tree.by_path[given.path].open() as file:
        picture = read_raster(file, given.path)
    if (picture.height, picture.width) != (height, width):
        raise Refusal("wrong_size", "mask", f"{picture.width} x {picture.height}", f"the image {image} is {width} x {height} px")
    return picture_mask(picture.pixels)


def picture_mask(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (height, width) that a picture (height, width, bands) shows."""
    values = pixels.max(axis=2)
    # Masks are 0/255 in the released sets, 0/1 where people re-saved them.
    result: NDArray[np.bool_] = values > (127 if values.max() > 1 else 0)
    return result
