"""Each image encoded once with its boxes batched, against one SAM call a triplet (random ViT-B weights, CPU).

    MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=1000000000 python benchmarks/encode_once.py

Ours is the engine as `refine-masks` runs it, jittered boxes for the agreement score included; the peer is
segment-anything's SamPredictor, set_image and predict for every triplet. Both use the same model, threads and
allocator settings and take turns image by image, so that a drifting machine drifts for both.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import REFER, need_data
from PIL import Image
from segment_anything import SamPredictor, sam_model_registry

from risbench.core.metrics import mask_iou
from risbench.refine.engines import Prompt
from risbench.refine.sam_engine import SamEngine

need_data()
torch.manual_seed(0)
random = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "random_vit_b.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    engine = SamEngine(path, "cpu")
    peer = SamPredictor(sam_model_registry["vit_b"](str(path)).eval())
files = sorted((REFER / "images").glob("*.jpg"))
allocator = {name: os.environ.get(name, "default") for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}
print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {allocator}", flush=True)
for label, counts in (("1.78 boxes an image", [2, 2, 2, 2, 2, 2, 2, 1, 1]), ("10 boxes an image", [10])):
    ours_s = peer_s = 0.0
    agreement: list[float] = []
    for file, count in zip(files, counts, strict=False):
        image = np.asarray(Image.open(file).convert("RGB"))
        corners = random.uniform(0, 0.6, (count, 2)) * image.shape[1::-1]
        sides = random.uniform(0.05, 0.3, (count, 2)) * image.shape[1::-1]
        boxes = [(float(x), float(y), float(x + w), float(y + h)) for (x, y), (w, h) in zip(corners, sides, strict=True)]
        began = time.monotonic()
        engine.load(image)
        ours = [found.values > 0 for found in engine.segment([Prompt(box, None, "ship") for box in boxes])]
        middle = time.monotonic()
        theirs = []
        for box in boxes:
            peer.set_image(image)
            theirs.append(peer.predict(box=np.array(box), multimask_output=False)[0][0])
        ours_s, peer_s = ours_s + middle - began, peer_s + time.monotonic() - middle
        agreement += [mask_iou(a, b) if a.any() or b.any() else 1.0 for a, b in zip(ours, theirs, strict=True)]
    same = float(np.mean(agreement))
    print(
        f"{label} ({len(counts)} images, {sum(counts)} boxes): ours {ours_s:.1f} s, peer {peer_s:.1f} s, {peer_s / ours_s:.2f}x;"
        f" mean mask IoU with the peer {same:.4f}",
        flush=True,
    )
