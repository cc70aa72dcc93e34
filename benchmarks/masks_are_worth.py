"""What mask quality is worth: one model trained on GrabCut's masks, or on boxes, and on true ones, scored on unseen scenes' true masks.

    python benchmarks/masks_are_worth.py [--engines grabcut,box] [--scenes 2000] [--steps 500] [--seeds 3] [--keep FOLDER] [--gpu]

Generated referring scenes; the boxes are exact, so that the masks alone differ. Killed, the same command with --keep goes on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from common import risbench
from referring_scenes import referring_release

from risbench.benchmark.compare import compare


def main(engines: list[str], scenes: int, steps: int, seeds: int, keep: Path, gpu: bool) -> None:
    truth = referring_release(keep, scenes)
    workspace = truth.parents[1]
    for engine in engines:
        release = truth.with_name(engine)
        if not (release / "release.json").exists():
            risbench("refine-masks", "--engine", engine, "--redo-given", "-w", workspace)
            options = ("--include-unreviewed", "--format", "parquet", "--name", engine)
            risbench("export", "--split", truth / "split.csv", *options, "-w", workspace)
        changes = [f"recipe.steps={steps}", "recipe.looks=2"]
        out = keep / f"compare-{engine}-{scenes}-{steps}"
        found = compare(
            release, truth, out=out, config="tiny", changes=changes, seeds=seeds, gpu=gpu, workers=1 if gpu else os.cpu_count() or 1
        )
        low, high = found["difference"]["interval"]
        agreement = found["mask_agreement"]
        print(f"{engine} masks (mean IoU with the true ones {agreement:.3f}) against true ones, {seeds} seeds, tiny, {steps} steps:")
        for name, row in (("A", engine), ("B", "true")):
            figures = found["figures"][name]
            print(f"  trained on {row:8} mIoU {100 * figures['mIoU']:.2f}  oIoU {100 * figures['oIoU']:.2f}")
        difference = 100 * found["difference"]["value"]
        print(f"  difference {difference:+.2f} mIoU [{100 * low:+.2f}, {100 * high:+.2f}] of {found['n']:,} samples", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="grabcut,box")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(given.engines.split(","), given.scenes, given.steps, given.seeds, given.keep or Path(temporary), given.gpu)
