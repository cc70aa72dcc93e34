"""CroBIM, small, on generated referring scenes that it never saw, against guesses, and with sentences shuffled within the class.

    python experiments/crobim_on_scenes.py [--scenes 8000] [--steps 5800] [--more 2800] [--keep FOLDER] [--processes 2] [--gpu]

Each image has at least three others of the class that is meant; sentences need colour, size, position or relation. The image encoder begins
as backbone_on_scenes.py leaves it, everything else at random. Killed, the same command with --keep goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from backbone_on_scenes import teach
from referring_scenes import referring_release

from risbench.benchmark.eval.evaluate import evaluate
from risbench.benchmark.train.run import train
from risbench.core.processes import dying_with_parent
from risbench.core.storage import write_durably

BACKBONE = "swin-small.safetensors"


def learn(release: Path, run: Path, steps: int, init_from: Path | None, gpu: bool) -> dict[str, Any]:
    """Train, in each of the processes that torchrun started if it did; the first one leaves beside the run what it came to.

    What begins with a run goes on at the whole side, and at half the learning rate.
    """
    changes = [f"recipe.steps={steps}", f"backbone.weights={run.parent / BACKBONE}"]
    changes += (
        ["recipe.looks=2", "recipe.coarse_side=0", "recipe.learning_rate=1.5e-4", "recipe.warm_up=50"] if init_from else ["recipe.looks=5"]
    )
    made = train("crobim", release, out=run, config="small", changes=changes, cache=run.parent / "cache", init_from=init_from, gpu=gpu)
    if made["rank"] == 0:
        write_durably(run.parent / f"{run.name}.json", json.dumps(made).encode())
    return made


def trained(release: Path, run: Path, steps: int, init_from: Path | None, processes: int, gpu: bool) -> dict[str, Any]:
    """Train in as many processes as asked for, and return what came of it."""
    if processes == 1:
        return learn(release, run, steps, init_from, gpu)
    # for those that train and those that are asked afterwards
    os.environ |= {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)), "GOMP_SPINCOUNT": "10000"}
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [__file__, "--learn", str(release), str(run), "--steps", str(steps)]
    words += (["--init-from", str(init_from)] if init_from else []) + (["--gpu"] if gpu else [])
    # left behind, it would keep the run's lock
    subprocess.run([*together, *words], check=True, preexec_fn=dying_with_parent(signal.SIGTERM))
    made: dict[str, Any] = json.loads((run.parent / f"{run.name}.json").read_text())
    return made


def main(scenes: int, steps: int, more: int, keep: Path, processes: int, gpu: bool) -> None:
    release = referring_release(keep, scenes)
    teach(keep / BACKBONE, "small", device="cuda" if gpu else "cpu")
    run, cache = keep / f"crobim-small-{scenes}-{steps}-{processes}", keep / "cache"
    legs = [(0, trained(release, run, steps, None, processes, gpu))]
    if more:
        begun, run = run, run.with_name(f"{run.name}-{more}")
        legs.append((steps, trained(release, run, more, begun, processes, gpu)))
    samples = legs[0][1]["samples"]
    print(f"small configuration, {steps + more:,} steps of 16 samples, {samples:,} training samples, {processes} processes")
    print("three coarser levels are refined and the finest joins behind them (decision 0012), unlike in the paper's base configuration")
    print("the image encoder was taught on 6,000 other scenes (backbone_on_scenes.py), the rest begins at random")
    if more:
        print(f"the last {more:,} steps begin with the best of those before (--init-from), at the whole side and half the learning rate")
    for before, made in legs:
        for look in made["looks"]:
            figures = "  ".join(
                f"{name} {100 * look[metric]:.2f}" for name, metric in (("mIoU", "mIoU"), ("oIoU", "oIoU"), ("Pr@.5", "Pr@0.5"))
            )
            print(f"  step {before + look['step']:>6,}  val {figures}")
    print("test split, peer protocol, intervals draw images")
    for name, subject, shuffled in (
        ("centre", "centre", False),
        ("largest of the class", "largest", False),
        ("CroBIM", str(run), False),
        ("CroBIM, sentences shuffled", str(run), True),
        ("the built-in SAM with true boxes", "box-oracle", False),
    ):
        found = evaluate(
            subject, release, out=run if subject == str(run) else keep / subject, cache=cache, shuffled=shuffled, workers=processes, gpu=gpu
        )
        values = {metric: 100 * row["value"] for metric, row in found["figures"].items()}
        low, high = (100 * bound for bound in found["figures"]["mIoU"]["interval"])
        print(
            f"{name:34} mIoU {values['mIoU']:6.2f} [{low:.2f}, {high:.2f}]  oIoU {values['oIoU']:6.2f}  Pr@.5 {values['Pr@0.5']:6.2f}",
            flush=True,
        )
    print(f"{found['n']:,} samples on {found['images']:,} images")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=5800)
    parser.add_argument("--more", type=int, default=2800, help="steps that begin with what those led to, at the whole side")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--processes", type=int, help="that train together, by default two of one thread on two cores; one with --gpu")
    parser.add_argument("--learn", type=Path, nargs=2, metavar=("RELEASE", "RUN"), help="only train; what the processes are started with")
    parser.add_argument("--init-from", type=Path, help="with --learn: the run to begin with")
    given = parser.parse_args()
    if given.learn:
        learn(*given.learn, given.steps, given.init_from, given.gpu)
        sys.exit()
    with tempfile.TemporaryDirectory() as temporary:
        main(given.scenes, given.steps, given.more, given.keep or Path(temporary), given.processes or (1 if given.gpu else 2), given.gpu)
