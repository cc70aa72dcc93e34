"""Measured box noise against the noiseless recipe: the same budget, several seeds, scored on the same rows.

    python experiments/adapter_box_noise.py [--steps N] [--first N] [--seeds N] [--keep FILE]

NWPU VHR-10 as in adapter_on_real_boxes.py. No prompt is grossly wrong on purpose in either, and no box is prompted again, so that
the noise is the only difference. `--keep` stores every training's scores, so that the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from adapter_on_real_boxes import REFER, scored, write_truth_of_the_rest
from common import need_data, risbench

from risbench.core.metrics import bootstrap_interval
from risbench.refine.sam_engine import pasam_engine

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=None)
    words = parser.parse_args()
    need_data()
    with tempfile.TemporaryDirectory() as folder:
        workspace, truth = Path(folder) / "w", Path(folder) / "truth.json"
        risbench("ingest", REFER, "--fit", "keep", "-w", workspace)
        write_truth_of_the_rest(truth)
        found: dict[tuple[str, int], list[float]] = {}
        images: list[str] = []
        kept = json.loads(words.keep.read_text()) if words.keep and words.keep.exists() else {}
        seeds = range(words.first, words.first + words.seeds)
        for seed in seeds:
            for noise in ("measured", "none"):
                name = f"{words.steps} steps, seed {seed}, noise {noise}"
                if name in kept:
                    found[noise, seed], images = kept[name]
                    print(f"{name}: kept from before, mean IoU {np.mean(found[noise, seed]):.3f}", flush=True)
                    continue
                recipe = ("--steps", str(words.steps), "--seed", str(seed), "--gross", "0", "--box-noise", noise)
                said, seconds = risbench("train-adapter", "--truth", truth, *recipe, "-w", workspace, "--json")
                adapter = workspace / "adapters" / json.loads(said)["adapter"] / "adapter.safetensors"
                given = scored({"adapter": pasam_engine(adapter, "cpu", again=0)}, workspace, {"as given": (1.0, 0.0)})
                found[noise, seed], images = given["adapter", "as given"]
                if words.keep:
                    kept[name] = (found[noise, seed], images)
                    words.keep.write_text(json.dumps(kept))
                mean, share = np.mean(found[noise, seed]), np.mean(np.array(found[noise, seed]) >= 0.8)
                line = f"seed {seed}  noise {noise:<9} {words.steps} steps in {seconds:.0f} s"
                print(f"{line}: mean IoU {mean:.3f}, >= .8 {share:.3f}", flush=True)
        gain = np.mean([np.subtract(found["measured", seed], found["none", seed]) for seed in seeds], axis=0)
        low, high = bootstrap_interval(gain.tolist(), images)
        print(f"measured against none, {len(gain)} rows, mean of {words.seeds} seeds: {gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
