"""A stated image size against the picture's own: one rule for sources, masks and files of true masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InvalidRowError
from risbench.core.record import Affine, Repair

Size = tuple[int, int]
# RRSIS-D states 800 x 800 of pictures of 800 x 801: no pixel lies elsewhere for that.
NEARLY_PX: Final = 2
# Of two sizes of one ratio the smaller one's sides were rounded.
_ROUNDED_PX: Final = 1.0
_LARGEST_STRETCH: Final = 0.03


@dataclass(frozen=True)
class SizeMatch:
    """How coordinates in an image of the stated size become those in the picture: factors for x and y, and the repair to record."""

    x: float = 1.0
    y: float = 1.0
    repair: Repair | None = None

    @property
    def scales(self) -> bool:
        """Whether coordinates move."""
        return (self.x, self.y) != (1.0, 1.0)

    @property
    def affine(self) -> Affine:
        """The map from the stated image's pixels to the picture's."""
        return (self.x, 0.0, 0.0, 0.0, self.y, 0.0)


def match_size(stated: Size | None, found: Size, field: str = "image size") -> SizeMatch:
    """Return how coordinates stated for an image of `stated` (width, height) px fit a picture of `found` (width, height) px.

    Nothing stated, or the same size: nothing is done. One or two pixels off in a side: kept, repair `stated_size_differs`. The same
    ratio within rounding: scaled, repair `scaled`.

    Raises:
        InvalidRowError: `wrong_size`, the ratios differ; it names both sizes and what to do.
    """
    if stated is None or stated == found:
        return SizeMatch()
    sizes = f"{_px(stated)} are stated, the picture has {_px(found)}"
    if all(abs(one - other) <= NEARLY_PX for one, other in zip(stated, found, strict=True)):
        return SizeMatch(repair=Repair(rule="stated_size_differs", detail=f"{sizes}; coordinates kept as they are"))
    if not _same_ratio(stated, found):
        raise InvalidRowError("wrong_size", field, _px(stated), f"the picture has {_px(found)}; {_what_to_do(stated, found)}")
    x, y = found[0] / stated[0], found[1] / stated[1]
    return SizeMatch(x, y, Repair(rule="scaled", detail=f"{sizes}; x scaled by {x:.6g}, y by {y:.6g}"))


def _px(size: Size) -> str:
    return f"{size[0]} x {size[1]} px"


def _same_ratio(stated: Size, found: Size) -> bool:
    (small_x, small_y), (large_x, large_y) = sorted((stated, found))
    if small_y > large_y:
        return False
    x, y = small_x / large_x, small_y / large_y
    exact = abs(small_y - large_y * x) <= _ROUNDED_PX or abs(small_x - large_x * y) <= _ROUNDED_PX
    return exact and abs(x / y - 1) <= _LARGEST_STRETCH


def _what_to_do(stated: Size, found: Size) -> str:
    turned = (stated[1], stated[0])
    if all(abs(one - other) <= NEARLY_PX for one, other in zip(turned, found, strict=True)) or _same_ratio(turned, found):
        return (
            "the sides are exchanged: the picture has an EXIF turn, or was turned after it was annotated; `ingest --exif stored` reads "
            "pictures as they are stored, or put the picture that was annotated in its place"
        )
    return "its ratio is another one, so it was cut or is another picture: put the picture that was annotated in its place"


def fit_mask(mask: NDArray[np.bool_], found: Size, match: SizeMatch) -> NDArray[np.bool_]:
    """Return a mask (height, width) of the stated size at the size of the picture, (width, height) px."""
    width, height = found
    if mask.shape == (height, width):
        return mask
    if match.scales:
        smaller = width < mask.shape[1]
        covered = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        return np.asarray(covered) > 127
    fitted = np.zeros((height, width), bool)
    part = mask[:height, :width]
    fitted[: part.shape[0], : part.shape[1]] = part
    return fitted
