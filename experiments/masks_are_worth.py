"""What mask quality is worth: one model trained on GrabCut's masks, or on boxes, and on true ones, scored on unseen scenes' true masks.

    python experiments/masks_are_worth.py [--engines grabcut,box] [--scenes 2000] [--steps 500] [--seeds 3] [--keep FOLDER] [--gpu]
    python experiments/masks_are_worth.py --keep FOLDER --init-from RUN --split FILE --config small --steps 400 --seeds 1

Generated referring scenes; the boxes are exact, so that the masks alone differ. With --init-from every training begins with that run,
such as crobim_on_scenes.py's, which has learnt from true masks what sentences mean, at the whole side and with that script's rate for
its second leg; --split is the list that the run was trained with, so that it has not seen the test split (scenes of one number are the
same ones). Killed, the same command with --keep goes on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from common import risbench
from referring_scenes import referring_release

from risbench.benchmark.compare import compare
from risbench.benchmark.train.checkpoint import read_about


def main(given: argparse.Namespace, keep: Path) -> None:
    truth = referring_release(keep, given.scenes, given.split)
    workspace = truth.parents[1]
    begun, changes = "", [f"recipe.steps={given.steps}", "recipe.looks=2"]
    if given.init_from is not None:
        about = read_about(given.init_from)
        begun = f", begun with a run of {about['steps']:,} steps on true masks"
        changes += [f"backbone.weights={about['settings']['backbone']['weights']}"]
        changes += ["recipe.coarse_side=0", "recipe.learning_rate=1.5e-4", "recipe.warm_up=50"]
    for engine in given.engines.split(","):
        release = truth.with_name(engine)
        if not (release / "release.json").exists():
            risbench("refine-masks", "--engine", engine, "--redo-given", "-w", workspace)
            options = ("--include-unreviewed", "--format", "parquet", "--name", engine)
            risbench("export", "--split", truth / "split.csv", *options, "-w", workspace)
        found = compare(
            release,
            truth,
            out=keep / f"compare-{engine}-{given.scenes}-{given.steps}",
            config=given.config,
            changes=changes,
            seeds=given.seeds,
            gpu=given.gpu,
            workers=1 if given.gpu else os.cpu_count() or 1,
            init_from=given.init_from,
        )
        low, high = found["difference"]["interval"]
        agreement = found["mask_agreement"]
        budget = f"{given.seeds} seed{'s' if given.seeds > 1 else ''}, {given.config}, {given.steps} steps{begun}"
        print(f"{engine} masks (mean IoU with the true ones {agreement:.3f}) against true ones, {budget}:")
        for name, row in (("A", engine), ("B", "true")):
            figures = found["figures"][name]
            print(f"  trained on {row:8} mIoU {100 * figures['mIoU']:.2f}  oIoU {100 * figures['oIoU']:.2f}")
        difference = 100 * found["difference"]["value"]
        print(f"  difference {difference:+.2f} mIoU [{100 * low:+.2f}, {100 * high:+.2f}] of {found['n']:,} samples", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="grabcut,box")
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--init-from", type=Path, metavar="RUN")
    parser.add_argument("--split", default=".8,.05,.15", help="shares, or a list of scenes")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(given, given.keep or Path(temporary))
