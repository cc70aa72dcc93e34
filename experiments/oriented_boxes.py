"""Masks from real oriented boxes of vehicles (DOTA P0003 and P0004, truth from iSAID): ours against the rectangles themselves.

python experiments/oriented_boxes.py
"""

from __future__ import annotations

import json

import cv2
import numpy as np
from common import SHARED, need_data
from PIL import Image

from risbench.core.classes import to_class
from risbench.core.geometry import quad_bounds, quad_from_flat
from risbench.core.metrics import mask_iou
from risbench.refine.engines.base import Prompt
from risbench.refine.engines.box import BoxEngine
from risbench.refine.grabcut import GrabCutEngine
from risbench.refine.sam_engine import builtin_engine

need_data()
FOLDER = SHARED / "vrsbench_samples"
ENGINES = {
    "upright box": BoxEngine(oriented=False),
    "oriented box": BoxEngine(oriented=True),
    "grabcut": GrabCutEngine(),
    "builtin": builtin_engine("cpu"),
}
print(f"{'noise of the box':<18}{'n':>5}" + "".join(f"{name:>24}" for name in ENGINES) + "     (mean IoU / share >= .8)")
for noise in (0.0, 0.05, 0.1):
    random = np.random.default_rng(0)
    scores = []
    for item in json.loads((FOLDER / "truth" / "windows.json").read_text()):
        image = np.asarray(Image.open(FOLDER / "Images" / item["image"]).convert("RGB"))
        labels = np.asarray(Image.open(FOLDER / "truth" / item["image"].replace(".png", "_instances.png")))
        for engine in ENGINES.values():
            engine.load(image)
        for instance in item["instances"]:
            if instance["fraction_inside"] < 1:
                continue
            mask = labels == instance["label"]
            centre, size, angle = cv2.minAreaRect(np.argwhere(mask)[:, ::-1].astype(np.float32) + 0.5)
            moved = np.array(centre) + random.normal(0, noise / 2, 2) * max(size)
            scaled = np.array(size) * (1 + random.normal(0, noise, 2))
            quad = quad_from_flat(cv2.boxPoints((tuple(moved), tuple(scaled), angle)).astype(float).ravel().tolist())
            prompt = Prompt(quad_bounds(quad), quad, to_class(instance["class"]) or "")
            scores.append([mask_iou(engine.segment([prompt])[0].values > 0, mask) for engine in ENGINES.values()])
    table = np.array(scores)
    cells = "".join(
        f"{f'{mean:.3f} / {share:.3f}':>24}" for mean, share in zip(table.mean(axis=0), (table >= 0.8).mean(axis=0), strict=True)
    )
    print(f"{noise:<18}{len(table):>5}{cells}")
