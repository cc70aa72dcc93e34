"""An image encoder taught on generated scenes to tell, pixel by pixel, what is there and where its object's centre lies.

    python experiments/backbone_on_scenes.py OUT.safetensors [--config small] [--scenes 6000] [--steps 1500] [--gpu]

It stands where the paper's recipe has ImageNet's weights, of which none can be had here. Its scenes are of a world of their own, without
sentences: none that a model is trained or scored on. `--set backbone.weights=OUT.safetensors` begins with it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from risbench.benchmark.data.batches import normalised
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.models.backbones import Backbone
from risbench.core.classes import CLASSES
from risbench.core.progress import Progress
from risbench.learn.device import dtype_of, fast_precision, keep_freed_memory
from risbench.scenes.referring import draw_labelled

WORLD = 1


class Drawing:
    """Draws one scene at a side: pixels (S, S, 3), and on a quarter of it classes (0: ground) and, of each object's pixels, the way to its
    centre and the root of its area (S / 4, S / 4, 3), in shares of the side."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float16]]:
        pixels, objects = draw_labelled(WORLD, index)
        cells = self.side // 4
        classes, places = np.zeros((cells, cells), np.uint8), np.zeros((cells, cells, 3), np.float16)
        grid = (np.arange(cells) + 0.5) / cells
        for item in objects:
            mask = cv2.resize(item.mask.astype(np.float32), (cells, cells), interpolation=cv2.INTER_AREA) >= 0.4
            if not mask.any():
                continue
            rows, columns = np.nonzero(mask)
            classes[mask] = CLASSES.index(item.thing.category) + 1
            places[rows, columns, 0] = grid[columns].mean() - grid[columns]
            places[rows, columns, 1] = grid[rows].mean() - grid[rows]
            places[rows, columns, 2] = np.sqrt(len(rows)) / cells
        small = cv2.resize(pixels, (self.side, self.side), interpolation=cv2.INTER_AREA)
        return small.astype(np.uint8), classes, places


class Labeller(nn.Module):
    """An encoder, and a head that needs little: maps brought to one width, raised, added up, two convolutions."""

    def __init__(self, backbone: Backbone, width: int = 64) -> None:
        super().__init__()
        self.backbone = backbone
        self.into = nn.ModuleList(nn.Conv2d(count, width, 1) for count in backbone.channels)
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, len(CLASSES) + 1 + 3, 1))

    def forward(self, image: Tensor) -> Tensor:
        maps = [layer(features) for layer, features in zip(self.into, self.backbone(image), strict=True)]
        total = maps[0]
        for features in maps[1:]:
            total = total + functional.interpolate(features, total.shape[-2:], mode="bilinear", align_corners=False)
        result: Tensor = self.head(total)
        return result


def batches(images: Any, classes: Any, places: Any, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    random = np.random.default_rng(0)
    order = np.concatenate([random.permutation(len(images)) for _ in range(-(-steps * batch // len(images)))])
    for step in range(steps):
        rows = order[step * batch : (step + 1) * batch]
        yield torch.from_numpy(images[rows]).permute(0, 3, 1, 2), torch.from_numpy(classes[rows]).long(), torch.from_numpy(places[rows])


def teach(
    out: Path, config: str, *, scenes: int = 6000, steps: int = 1500, batch: int = 16, rate: float = 1e-3, device: str = "cpu"
) -> None:
    """Write a configuration's image encoder, taught, to `out`; where it is already nothing is done."""
    if out.exists():
        return
    settings = load_settings(config, changes=["backbone.weights=''"])
    with ProcessPoolExecutor(os.cpu_count()) as pool, Progress("draw", scenes) as bar:
        drawn = []
        for one in pool.map(Drawing(settings.side), range(scenes), chunksize=16):
            drawn.append(one)
            bar.advance(1)
    images, classes, places = (np.stack([one[part] for one in drawn]) for part in range(3))
    del drawn
    keep_freed_memory()
    torch.manual_seed(0)
    backbone = Backbone(settings.backbone, settings.side)
    model = Labeller(backbone).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True)
    precision = fast_precision(device)
    held_out = scenes // 20
    began = time.monotonic()
    with Progress("learn", steps) as bar:
        for step, given in enumerate(batches(images[held_out:], classes[held_out:], places[held_out:], batch, steps)):
            image, wanted, way = (value.to(device) for value in given)
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 100) * (1 - step / steps) ** 0.9
            with torch.autocast(device, dtype_of(precision), enabled=precision != "fp32"):
                found = model(normalised(image))
            loss = losses(found.float(), wanted, way.float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            bar.advance(1)
            if step % 100 == 0:
                print(f"  step {step:>5,}  loss {float(loss.detach()):.3f}", flush=True)
    model.eval()
    common, either = np.zeros(len(CLASSES) + 1), np.zeros(len(CLASSES) + 1)
    with torch.inference_mode():
        for start in range(0, held_out, batch):
            image = torch.from_numpy(images[start : min(start + batch, held_out)]).permute(0, 3, 1, 2).to(device)
            guess = model(normalised(image))[:, : len(CLASSES) + 1].argmax(dim=1).cpu().numpy()
            truth = classes[start : min(start + batch, held_out)]
            for kind in range(len(CLASSES) + 1):
                common[kind] += ((guess == kind) & (truth == kind)).sum()
                either[kind] += ((guess == kind) | (truth == kind)).sum()
    met = either[1:] > 0
    share = float((common[1:][met] / either[1:][met]).mean())
    state = {name: value.contiguous().cpu() for name, value in backbone.net.state_dict().items()}
    unfinished = out.with_suffix(".unfinished")
    save_file(state, unfinished)
    unfinished.replace(out)
    spent = f"{time.monotonic() - began:.0f} s"
    print(f"{config}: {scenes:,} scenes, {steps:,} steps of {batch}, {spent}")
    print(f"mean IoU of {met.sum()} classes on {held_out} unseen scenes: {share:.3f}", flush=True)


def losses(found: Tensor, wanted: Tensor, way: Tensor) -> Tensor:
    """Return the cross-entropy of classes and, on objects, how far centres and sizes are off, tenfold."""
    kinds, places = found.split([len(CLASSES) + 1, 3], dim=1)
    entropy = functional.cross_entropy(kinds, wanted)
    on = (wanted > 0).unsqueeze(1).float()
    off = ((places - way.permute(0, 3, 1, 2)).abs() * on).sum() / (3 * on.sum().clamp(min=1))
    return entropy + 10 * off


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", default="small")
    parser.add_argument("--scenes", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    device = "cuda" if given.gpu else "cpu"
    teach(given.out, given.config, scenes=given.scenes, steps=given.steps, batch=given.batch, rate=given.rate, device=device)
