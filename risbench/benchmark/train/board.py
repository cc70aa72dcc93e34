"""Pictures of what a model found: the image with the true outline, the predicted one, and the sentence."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.benchmark.data.cache import Cache
from risbench.benchmark.eval.predict import Predictor
from risbench.benchmark.eval.scoring import mask_at

_TRUE, _FOUND = (64, 224, 96), (255, 64, 200)


def pictures(predictor: Predictor, cache: Cache, numbers: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Return a picture (height, width, 3) a sample: true outline green, found outline pink, below it the sentence."""
    made = []
    for number in numbers:
        prediction = predictor.predict(cache, [number])[0]
        found = mask_at(prediction, (cache.side, cache.side))
        truth = cache.mask(np.array([number]))[0].astype(bool)
        made.append(outlined(np.asarray(cache.images[cache.image_of[number]]), truth, found, cache.samples[number].sentence))
    return made


def outlined(image: NDArray[np.uint8], truth: NDArray[np.bool_], found: NDArray[np.bool_], text: str = "") -> NDArray[np.uint8]:
    """Return an image (height, width, 3) at 256 pixels or more with both outlines, and the text below."""
    factor = max(1, -(-256 // image.shape[0]))
    large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    for mask, color in ((truth, _TRUE), (found, _FOUND)):
        grown = cv2.resize(mask.astype(np.uint8), (large.shape[1], large.shape[0]), interpolation=cv2.INTER_NEAREST)
        outlines = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(large, outlines, -1, color, 1)
    strip = np.full((14 * max(1, -(-len(text) // 42)) + 4, large.shape[1], 3), 255, np.uint8)
    for line in range(0, len(text), 42):
        place = (3, 12 + 14 * (line // 42))
        cv2.putText(strip, text[line : line + 42], place, cv2.FONT_HERSHEY_SIMPLEX, 0.34, (20, 20, 20), 1, cv2.LINE_AA)
    return np.vstack([large, strip]).astype(np.uint8)
