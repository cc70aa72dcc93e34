"""A picture of what an adapter changed: the same sixteen objects before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.adapt.adapter_data import Boxes, Images, TrueObject, digests_of
from risbench.core.imagery import encode_png
from risbench.core.metrics import mask_iou
from risbench.core.storage import write_durably
from risbench.sam.magnify import frame_of
from risbench.sam.predictor import Predictor, SamPrompt

COUNT: Final = 16
_SIDE: Final = 200
_STRIP: Final = 22
_TRUE, _BOX, _MADE = (255, 255, 255), (255, 150, 40), (60, 220, 255)


def before_and_after(
    path: Path, root: Path, objects: Sequence[TrueObject], boxes: Boxes, before: Predictor, after: Predictor, seed: int
) -> None:
    """Write a PNG: pairs of crops with the prompt (orange), the true outline (white) and the mask (blue), before and after.

    `before` may take over what `after` has encoded.
    """
    random = np.random.default_rng([seed, 31])
    chosen = [objects[index] for index in random.permutation(len(objects))[:COUNT]]
    images = Images(root, digests_of(objects))
    tiles = []
    for item in chosen:
        box, pixels, true = boxes.draw(random, item.bounds), images[item.image], item.mask
        after.load(pixels)
        before.load(pixels)
        pair = []
        for name, predictor in (("before", before), ("after", after)):
            mask = predictor.predict([SamPrompt(box)]).logits[0] > 0
            pair.append(_tile(pixels, true, mask, box, f"{name} {mask_iou(mask, true):.2f}  {item.category}"))
        tiles.append(np.hstack(pair))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % 4)
    write_durably(path, encode_png(np.vstack([np.hstack(tiles[row : row + 4]) for row in range(0, len(tiles), 4)])))


def _tile(
    pixels: NDArray[np.uint8], true: NDArray[np.bool_], mask: NDArray[np.bool_], box: tuple[float, float, float, float], caption: str
) -> NDArray[np.uint8]:
    frame = frame_of(box, _SIDE)
    picture: Any = np.ascontiguousarray(frame.cut(pixels, _SIDE))
    for outline, color in ((true, _TRUE), (mask, _MADE)):
        drawn = (frame.cut_mask(outline, _SIDE, _SIDE) >= 0.5).astype(np.uint8)
        rims = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(picture, rims, -1, color, 1, cv2.LINE_AA)
    low, high = (tuple(np.rint(frame.to_crop(np.array(box[k : k + 2]))).astype(int).tolist()) for k in (0, 2))
    cv2.rectangle(picture, low, high, _BOX, 1)
    strip = np.full((_STRIP, _SIDE, 3), 24, np.uint8)
    cv2.putText(strip, caption, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (235, 235, 235), 1, cv2.LINE_AA)
    tile = np.vstack([strip, picture])
    tile[:, -2:] = 0
    return tile
