"""Our codec of Label Studio's brush masks against label-studio-sdk's, byte for byte and second for second.

    python experiments/brush_codec.py

Smooth masks are NWPU VHR-10's true ones at their own size; edited ones are written as the page writes them: words one by one wherever
the brush left colour.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from common import REFER, need_data
from label_studio_sdk.converter.brush import decode_rle, mask2rle

from risbench.formats.brush import decode_brush, encode_brush
from risbench.formats.coco import given_mask, mask_pixels


def median_ms(work: Callable[[], Any], rounds: int) -> float:
    """Return the median milliseconds of a call."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def edited(mask: np.ndarray) -> list[int]:
    """Return a mask as the page saves one that was edited: coloured words as they are, nothing as runs."""
    image = np.zeros((*mask.shape, 4), np.uint8)
    image[mask] = (0, 184, 217, 255)
    values = image.ravel()
    bits = [f"{values.size:032b}", f"{7:05b}", "0010", "0011", "0111", "1111"]
    starts = np.flatnonzero(np.diff(np.concatenate(([False], np.repeat(mask.ravel(), 4), [False])).astype(np.int8)))
    edges = [0, *starts.tolist(), values.size]
    for begin, end in pairwise(edges):
        coloured = begin < values.size and bool(mask.ravel()[begin // 4])
        while begin < end:
            count = min(end - begin, 1 << 16)
            bits.append(f"{0 if coloured else 1}11{count - 1:016b}")
            bits += [f"{value:08b}" for value in (values[begin : begin + count] if coloured else values[begin : begin + 1]).tolist()]
            begin += count
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return [int(stream[k : k + 8], 2) for k in range(0, len(stream), 8)]


if __name__ == "__main__":
    need_data()
    coco = json.loads((REFER / "instances.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    masks = []
    for annotation in coco["annotations"][:: max(1, len(coco["annotations"]) // 40)][:40]:
        image = images[annotation["image_id"]]
        masks.append(mask_pixels(given_mask(annotation["segmentation"]), image["height"], image["width"])[0])
    random = np.random.default_rng(0)
    ellipse = cv2.ellipse(np.zeros((512, 512), np.uint8), (250, 260), (70, 42), 30, 0, 360, 1, -1) > 0
    kinds = {
        "true masks": [(mask, mask2rle((mask * 255).astype(np.uint8))) for mask in masks],
        "edited masks": [(mask, edited(mask)) for mask in masks],
        "edited, 9,400 px of 512 x 512": [(ellipse, edited(ellipse))],
        "noise, 512": [(noise := random.random((512, 512)) < 0.5, mask2rle((noise * 255).astype(np.uint8)))],
    }
    for kind, pairs in kinds.items():
        same = 0
        ratios: dict[str, list[float]] = {"encode": [], "decode": []}
        times: dict[str, list[float]] = {"encode": [], "decode": []}
        for mask, rle in pairs:
            height, width = mask.shape
            alpha = decode_rle(rle).reshape(height, width, 4)[..., 3]
            same += bool(np.array_equal(decode_brush(rle, height, width), alpha)) and (
                kind.startswith("edited") or encode_brush(mask) == rle
            )
            grey = (mask * 255).astype(np.uint8)
            if not kind.startswith("edited"):
                ours = median_ms(lambda mask=mask: encode_brush(mask), 5)
                times["encode"].append(ours)
                ratios["encode"].append(median_ms(lambda grey=grey: mask2rle(grey), 3) / ours)
            ours = median_ms(lambda rle=rle, height=height, width=width: decode_brush(rle, height, width), 5)
            times["decode"].append(ours)
            ratios["decode"].append(median_ms(lambda rle=rle: decode_rle(rle), 3) / ours)
        said = []
        for what in (name for name in ratios if ratios[name]):
            middle, lowest = statistics.median(ratios[what]), min(ratios[what])
            said.append(f"{what} {statistics.median(times[what]):.2f} ms, {middle:.0f}x the SDK's speed (lowest {lowest:.1f}x)")
        print(f"{kind}: {same} of {len(pairs)} identical; " + "; ".join(said), flush=True)
