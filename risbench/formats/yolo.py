"""YOLO's segmentation labels: a class and one closed polygon a line, in shares of the image. No sentence, and no mask is kept exactly.

https://docs.ultralytics.com/datasets/segment/: `<class> <x1> <y1> ... <xn> <yn>`. An object of several parts, or with holes, is one
polygon here, its parts joined by bridges that are run along twice; the readers' even-odd filling leaves only the bridges' pixels behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.classes import CLASSES

Contour = NDArray[np.int32]
# Of a mask in very many pieces the largest are kept, and of a very long ring some corners are looked at to find where to join it.
_MOST_PARTS: Final = 256
_CORNERS: Final = 1000
_YOLO_LINES: Final = 200


def label_line(category: str, mask: NDArray[np.bool_]) -> str:
    """Return a mask (height, width) as a line of a label file; coordinates are of pixel centres."""
    height, width = mask.shape
    points = (mask_polygon(mask) + 0.5) / (width, height)
    return " ".join([str(CLASSES.index(category)), *(f"{value:.6f}" for value in points.ravel())])


def mask_polygon(mask: NDArray[np.bool_]) -> Contour:
    """Return one closed polygon (n, 2) of pixel indices x, y that runs around all parts and holes of a mask."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours: list[Contour] = [contour.reshape(-1, 2).astype(np.int32) for contour in found]
    # the largest first, then each where it lies nearest to what is joined already
    contours.sort(key=lambda contour: (-cv2.contourArea(contour), contour[0].tolist()))
    joined = contours[0]
    for contour in contours[1:_MOST_PARTS]:
        joined = _bridged(joined, contour)
    return joined if len(joined) >= 3 else np.concatenate([joined, np.repeat(joined[-1:], 3 - len(joined), axis=0)])


def _bridged(first: Contour, second: Contour) -> Contour:
    """Return both rings as one, joined at their nearest corners."""
    near, far = (ring[:: 1 + len(ring) // _CORNERS] for ring in (first, second))
    apart = ((near[:, None, :].astype(np.int64) - far[None, :, :]) ** 2).sum(axis=2)
    here, there = divmod(int(apart.argmin()), len(far))
    here, there = here * (1 + len(first) // _CORNERS), there * (1 + len(second) // _CORNERS)
    return np.concatenate([first[: here + 1], second[there:], second[: there + 1], first[here:]])


def read_label_line(line: str, height: int, width: int) -> tuple[str, NDArray[np.bool_]]:
    """Return class and mask of a label line as YOLO's own loader draws it: cut to whole pixels, filled even-odd."""
    number, *values = line.split()
    points = (np.array(values, np.float64).reshape(-1, 2) * (width, height)).astype(np.int32)
    drawn = np.zeros((height, width), np.uint8)
    cv2.fillPoly(drawn, [points], 1)
    return CLASSES[int(number)], drawn.astype(bool)


def dataset_yaml(splits: Sequence[str]) -> str:
    """Return the file that names the folders of the splits and the classes."""
    # without `path`, readers take the folder of this file
    lines = ["# masks are approximate here, sentences are lost, and objects without a sentence are not labelled"]
    lines += [f"{split}: images/{split}" for split in splits]
    lines += ["names:", *(f"  {index}: {name}" for index, name in enumerate(CLASSES))]
    return "\n".join(lines) + "\n"


def yolo_form(head: str) -> str | None:
    """Return which of YOLO's label forms the first lines of a text file are in, None where they are in none.

    All lines are numbers, the first one a class number; of a line with eight further ones the order tells it from DOTA's, which has the
    class behind.
    """
    lines = [line.split() for line in head.splitlines()[:_YOLO_LINES] if line.strip()]
    if not lines or not all(len(line) >= 5 and line[0].isdigit() and len(line[0]) <= 4 for line in lines):
        return None
    try:
        values = np.array([float(word) for line in lines for word in line[1:]])
    except ValueError:
        return None
    counts = {len(line) - 1 for line in lines}
    shares = bool(np.mean((values >= -0.5) & (values <= 1.5)) >= 0.95)
    if counts == {8}:
        if shares:
            return "class number first and 8 shares: this is YOLO-OBB, not DOTA labelTxt (8 pixels first, class after)"
        behind = [line[8] for line in lines]
        if not all(word.isdigit() and len(word) <= 2 for word in behind):
            return "class number first and 8 pixels: this is neither YOLO-OBB (shares) nor DOTA labelTxt (class after the 8 pixels)"
        return None
    if not shares:
        return None
    if counts <= {4, 5}:
        return "class number first, then centre, width and height as shares: these are YOLO's boxes"
    return "class number first, then a polygon in shares: these are YOLO's segments"
