"""Bringing a source image to 512 x 512, with the map that carries boxes, masks and georeference along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import IDENTITY, window_starts
from risbench.core.imagery import Pixels
from risbench.core.record import Affine, Box, Fit
from risbench.core.storage import digest_of

FitOption = Literal["auto", "window", "pad", "keep"]
SIDE_PX: Final = 512
MIN_FRACTION_INSIDE: Final = 0.7


@dataclass(frozen=True)
class View:
    """One image to make from a source image.

    `affine` maps its pixels to the source's pixels. `frame` is the part of the source it shows; `content` is the
    size (width, height) in pixels that it fills, the rest up to `size` is black.
    """

    fit: Fit
    suffix: str
    size: tuple[int, int]
    content: tuple[int, int]
    frame: Box
    affine: Affine


def choose_fit(option: FitOption, is_window: bool, width: int, height: int, has_sentences: bool) -> Fit:
    """Return how an image is brought to 512 x 512.

    `auto`: an image of that size, or one that is a window of a scene (`SceneRule.is_window`), is kept; boxes without sentences are
    cut into windows; an image with sentences is scaled and padded, since "at the left" is true of the whole only.
    """
    if option != "auto":
        return option
    if (width, height) == (SIDE_PX, SIDE_PX) or is_window:
        return "keep"
    return "pad" if has_sentences else "window"


def views(fit: Fit, width: int, height: int, side: int = SIDE_PX) -> list[View]:
    """Return the views of a width x height image: one, or for `window` the producer's grid.

    Windows are numbered with x outer and y inner, without gaps, the last of each row and column pulled back inside
    (VRSBench's own cut of DOTA).
    """
    whole: Box = (0.0, 0.0, float(width), float(height))
    if fit == "keep":
        return [View("keep", "", (width, height), (width, height), whole, IDENTITY)]
    if fit == "pad":
        scale = side / max(width, height)
        content = (max(1, round(width * scale)), max(1, round(height * scale)))
        affine = (width / content[0], 0.0, 0.0, 0.0, height / content[1], 0.0)
        return [View("pad", "", (side, side), content, whole, affine)]
    made: list[View] = []
    for left in window_starts(width, side):
        for top in window_starts(height, side):
            content = (min(side, width - left), min(side, height - top))
            frame = (float(left), float(top), float(left + content[0]), float(top + content[1]))
            affine = (1.0, 0.0, float(left), 0.0, 1.0, float(top))
            made.append(View("window", f"_{len(made):04d}", (side, side), content, frame, affine))
    return made


def shows(view: View, boxes: Sequence[Box]) -> bool:
    """Return whether every box's centre and 70 % of its area lie in the view."""
    left, top, right, bottom = view.frame
    for x_min, y_min, x_max, y_max in boxes:
        x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
        inside = max(0.0, min(x_max, right) - max(x_min, left)) * max(0.0, min(y_max, bottom) - max(y_min, top))
        if not (left <= x < right and top <= y < bottom) or inside < MIN_FRACTION_INSIDE * (x_max - x_min) * (y_max - y_min):
            return False
    return True


def render(view: View, pixels: Pixels) -> Pixels:
    """Return the view's image (height, width, 3)."""
    return np.ascontiguousarray(_render(view, pixels, cv2.INTER_AREA, cv2.INTER_LINEAR))


def render_mask(view: View, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the view's part of a mask of the source image; a scaled pixel is set where half of it is covered."""
    if view.fit != "pad":
        return _render(view, mask.astype(np.uint8), cv2.INTER_NEAREST, cv2.INTER_NEAREST).astype(bool)
    covered = _render(view, mask.astype(np.uint8) * 255, cv2.INTER_AREA, cv2.INTER_LINEAR)
    result: NDArray[np.bool_] = covered > 127
    return result


def _render(view: View, array: NDArray[Any], shrink: int, grow: int) -> NDArray[Any]:
    if view.fit == "keep":
        return array
    left, top, right, bottom = (int(value) for value in view.frame)
    part = array[top:bottom, left:right]
    if (part.shape[1], part.shape[0]) != view.content:
        smaller = view.content[0] < part.shape[1] or view.content[1] < part.shape[0]
        part = cv2.resize(part, view.content, interpolation=shrink if smaller else grow)
    canvas = np.zeros((view.size[1], view.size[0], *array.shape[2:]), array.dtype)
    canvas[: view.content[1], : view.content[0]] = part
    return canvas


def view_name(stem: str, view: View) -> str:
    """Return the file stem of a view."""
    return stem + view.suffix


def image_stems(images: Iterable[str]) -> dict[str, str]:
    """Return each image's stem in the workspace, by its path in the source; no two are alike, in any case of letters.

    Images that share one get their folders in front, and those of one folder (a.jpg and a.png) their suffix behind.
    """
    paths = sorted(set(images))
    stems = {path: PurePosixPath(path).stem for path in paths}
    for longer in (_with_folders, _with_suffix):
        counts = Counter(stem.casefold() for stem in stems.values())
        stems = {path: stem if counts[stem.casefold()] == 1 else longer(PurePosixPath(path)) for path, stem in stems.items()}
    # File systems stop at 255 bytes a name, and windows add to it.
    return {path: stem if len(stem.encode()) <= 180 else f"{stem[:40]}-{digest_of(path)[:16]}" for path, stem in stems.items()}


def _with_folders(path: PurePosixPath) -> str:
    return "__".join((*path.parent.parts, path.stem))


def _with_suffix(path: PurePosixPath) -> str:
    return _with_folders(path) + path.suffix.replace(".", "-")
