"""CroBIM, small, on generated referring scenes that it never saw, against guesses, and with sentences shuffled within the class.

    python benchmarks/crobim_on_scenes.py [--scenes 8000] [--steps 5800] [--keep FOLDER] [--processes 2] [--gpu]

Each image has at least three others of the class that is meant; sentences need colour, size, position or relation. The image encoder begins
as backbone_on_scenes.py leaves it, everything else at random. Killed, the same command with --keep goes on.
"""

from __future__ import annotations

import argparse
import ctypes
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

from risbench.benchmark.evaluate import evaluate
from risbench.benchmark.train import train
from risbench.core.storage import write_durably

BACKBONE = "swin-small.safetensors"


def learn(release: Path, run: Path, steps: int, gpu: bool) -> dict[str, Any]:
    """Train, in each of the processes that torchrun started if it did; the first one leaves beside the run what it came to."""
    changes = [f"recipe.steps={steps}", "recipe.looks=5", f"backbone.weights={run.parent / BACKBONE}"]
    made = train("crobim", release, out=run, config="small", changes=changes, cache=run.parent / "cache", gpu=gpu)
    if made["rank"] == 0:
        write_durably(run.parent / f"{run.name}.json", json.dumps(made).encode())
    return made


def _die_with_parent() -> None:
    """Have torchrun ended with this script, however that ends: it would keep the run's lock. Linux alone knows how (prctl's PDEATHSIG)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def main(scenes: int, steps: int, keep: Path, processes: int, gpu: bool) -> None:
    release = referring_release(keep, scenes)
    teach(keep / BACKBONE, "small", device="cuda" if gpu else "cpu")
    run, cache = keep / f"crobim-small-{scenes}-{steps}-{processes}", keep / "cache"
    if processes == 1:
        made = learn(release, run, steps, gpu)
    else:
        # for those that train and, below, those that are asked
        os.environ |= {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)), "GOMP_SPINCOUNT": "10000"}
        together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        words = [__file__, "--learn", str(release), str(run), "--steps", str(steps), *(["--gpu"] if gpu else [])]
        subprocess.run([*together, *words], check=True, preexec_fn=_die_with_parent)
        made = json.loads((keep / f"{run.name}.json").read_text())
    print(f"small configuration, {steps:,} steps of 16 samples, {made['samples']:,} training samples, {processes} processes")
    print("the image encoder was taught on 6,000 other scenes (backbone_on_scenes.py), the rest begins at random")
    for look in made["looks"]:
        print(
            f"  step {look['step']:>6,}  val mIoU {100 * look['mIoU']:.2f}  oIoU {100 * look['oIoU']:.2f}  Pr@.5 {100 * look['Pr@0.5']:.2f}"
        )
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
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--processes", type=int, default=1, help="that train together, of one thread each on two cores")
    parser.add_argument("--learn", type=Path, nargs=2, metavar=("RELEASE", "RUN"), help="only train; what the processes are started with")
    given = parser.parse_args()
    if given.learn:
        learn(*given.learn, given.steps, given.gpu)
        sys.exit()
    with tempfile.TemporaryDirectory() as temporary:
        main(given.scenes, given.steps, given.keep or Path(temporary), given.processes, given.gpu)
