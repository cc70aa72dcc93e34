"""CroBIM, small, on generated referring scenes that it never saw, against guesses, and with sentences shuffled within the class.

    python benchmarks/crobim_on_scenes.py [--scenes 8000] [--steps 3000] [--keep FOLDER] [--gpu]

Each image has at least three others of the class that is meant; sentences need colour, size, position or relation. The image encoder begins
as backbone_on_scenes.py leaves it, everything else at random. Killed, the same command with --keep goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from backbone_on_scenes import teach
from referring_scenes import referring_release

from risbench.benchmark.evaluate import evaluate
from risbench.benchmark.train import train


def main(scenes: int, steps: int, keep: Path, gpu: bool) -> None:
    release = referring_release(keep, scenes)
    backbone = keep / "swin-small.safetensors"
    teach(backbone, "small", device="cuda" if gpu else "cpu")
    run, cache = keep / f"crobim-small-{scenes}-{steps}", keep / "cache"
    changes = [f"recipe.steps={steps}", "recipe.looks=5", f"backbone.weights={backbone}"]
    made = train("crobim", release, out=run, config="small", changes=changes, cache=cache, gpu=gpu)
    print(f"small configuration, {steps:,} steps of 16 samples, {made['samples']:,} training samples")
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
        found = evaluate(subject, release, out=run if subject == str(run) else keep / subject, cache=cache, shuffled=shuffled, gpu=gpu)
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
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(given.scenes, given.steps, given.keep or Path(temporary), given.gpu)
