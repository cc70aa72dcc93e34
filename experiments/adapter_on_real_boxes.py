"""The adapter against its base on real images that it never saw, with the boxes as given and grossly distorted.

    python experiments/adapter_on_real_boxes.py [--steps N] [--gross SHARE] [--seed N] [--workspace DIR] [--adapter FILE]

NWPU VHR-10, --fit keep, token boxes. Images are cut 75 / 25 by a hash of their names: an adapter is trained on every mask of
the larger part with `risbench train-adapter`, and scored on the rows of the smaller. `--adapter` scores one that is there;
`--workspace` keeps the workspace, so that the same command goes on.
Distorted boxes are the given ones at 0.6 and 1.5 times their sides, or moved by a quarter of them along both axes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from common import REFER, need_data, risbench

from risbench.core.imagery import read_raster
from risbench.core.metrics import bootstrap_interval, mask_iou
from risbench.core.record import Record
from risbench.core.workspace import Workspace, read_records
from risbench.formats.truth import Truth
from risbench.refine.clean import CleanRules, clean_mask
from risbench.refine.engines.base import Engine, Prompt
from risbench.refine.sam_engine import builtin_engine, pasam_engine

DISTORTIONS = {"as given": (1.0, 0.0), "0.6 x": (0.6, 0.0), "1.5 x": (1.5, 0.0), "moved by .25": (1.0, 0.25)}


def is_kept_back(name: str) -> bool:
    """Return whether an image is of the quarter to score on."""
    return int(hashlib.sha256(Path(name).name.encode()).hexdigest(), 16) % 4 == 0


def prompts_of(records: list[Record], scale: float, shift: float) -> Iterator[Prompt]:
    """Yield the records' boxes, scaled about their centres and moved by a share of their sides in a direction of their own."""
    for record in records:
        box = np.array(record.targets[0].box)
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        towards = np.random.default_rng(int(hashlib.sha256(record.id.encode()).hexdigest()[:8], 16)).choice([-1, 1], 2)
        centre = centre + shift * 2 * half * towards
        low, high = (centre - scale * half).tolist(), (centre + scale * half).tolist()
        yield Prompt((low[0], low[1], high[0], high[1]), None, record.category.name)


def write_truth_of_the_rest(path: Path) -> None:
    """Write the annotations of all images but the quarter to score on."""
    coco = json.loads((REFER / "instances.json").read_text())
    kept = {image["id"] for image in coco["images"] if not is_kept_back(image["file_name"])}
    path.write_text(json.dumps({**coco, "annotations": [item for item in coco["annotations"] if item["image_id"] in kept]}))


def scored(
    engines: dict[str, Engine], workspace: Path, distortions: dict[str, tuple[float, float]]
) -> dict[tuple[str, str], tuple[list[float], list[str]]]:
    """Return the IoUs and images of every engine and distortion on the kept back rows."""
    links: dict[str, Any] = json.loads((REFER / "truth.json").read_text())
    truth = Truth(REFER / "instances.json")
    every = read_records(Workspace.open(workspace).latest())
    records = [record for record in every if is_kept_back(record.image.source_path) and record.source.source_key in links]
    found: dict[tuple[str, str], tuple[list[float], list[str]]] = {}
    for path, group in groupby(records, key=lambda record: record.image.path):
        members = list(group)
        with open(workspace / path, "rb") as file:
            pixels = read_raster(file, path).pixels
        true = [truth.mask_in_record(record, truth.by_id[links[record.source.source_key]]) for record in members]
        for name, engine in engines.items():
            engine.load(pixels)
            for kind, (scale, shift) in distortions.items():
                prompts = list(prompts_of(members, scale, shift))
                for prompt, answer, real in zip(prompts, engine.segment(prompts), true, strict=True):
                    mask = answer.values > 0
                    cleaned = clean_mask(mask, answer.box or prompt.box, CleanRules()) if mask.any() else mask
                    ious, images = found.setdefault((name, kind), ([], []))
                    ious.append(mask_iou(cleaned, real))
                    images.append(path)
    return found


if __name__ == "__main__":
    need_data()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--gross", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--adapter", type=Path, help="score this one instead of training")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = words.workspace or Path(folder) / "w"
        risbench("ingest", REFER, "--fit", "keep", "-w", workspace)
        adapter = words.adapter
        if adapter is None:
            write_truth_of_the_rest(Path(folder) / "truth.json")
            options = [*(("--steps", words.steps) if words.steps else ()), *(("--gross", words.gross) if words.gross is not None else ())]
            began = time.monotonic()
            more = ("--seed", words.seed, "-w", workspace)
            made = json.loads(risbench("train-adapter", "--truth", Path(folder) / "truth.json", *options, *more, "--json")[0])
            for look in made["looks"]:
                print(f"step {look['step']:>5}: mean IoU {look['mean_iou']:.4f}, boundary IoU {look['boundary_iou']:.4f}")
            print(f"{made['state']} in {time.monotonic() - began:.0f} s on {os.cpu_count()} cores\n")
            adapter = workspace / "adapters" / made["adapter"] / "adapter.safetensors"
        table = scored({"builtin": builtin_engine("cpu"), "adapter": pasam_engine(adapter, "cpu")}, workspace, DISTORTIONS)
        print(f"{'boxes':<14}{'engine':<10}{'n':>6}{'mean IoU':>10}{'95 % interval':>18}{'>= .8':>8}{'loss to given':>15}")
        for kind in DISTORTIONS:
            for name in ("builtin", "adapter"):
                ious, images = table[name, kind]
                low, high = bootstrap_interval(ious, images)
                lost = f"{np.mean(table[name, 'as given'][0]) - np.mean(ious):.3f}"
                share = float(np.mean(np.array(ious) >= 0.8))
                print(f"{kind:<14}{name:<10}{len(ious):>6}{np.mean(ious):>10.3f}{f'[{low:.3f}, {high:.3f}]':>18}{share:>8.3f}{lost:>15}")
        gain = np.array(table["adapter", "as given"][0]) - np.array(table["builtin", "as given"][0])
        low, high = bootstrap_interval(gain.tolist(), table["adapter", "as given"][1])
        print(f"\nadapter against its base, the same rows: {gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
