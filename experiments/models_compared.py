"""LAVT-style, CARIS-style, CroBIM and CroBIM's ablations (Tables V to VII): equal budgets, three seeds, paired intervals.

    python experiments/models_compared.py [--data scenes|nwpu] [--models LIST] [--steps 1000] [--seeds 3] [--taught]
        [--init-from FOLDER] [--keep FOLDER] [--gpu]

On generated referring scenes, or on NWPU VHR-10's real images and sentences with its hand-drawn masks, split by image
(manifests/splits/nwpu-vhr-10-refer.csv). LAVT-style learns from its authors' loss, and from CroBIM's, too. No weights of others: all begin
at random, or with --taught with the image encoder that backbone_on_scenes.py makes, or with --init-from as their runs in the folder of
another table (that on generated scenes, say, below KEEP) ended. Killed, the same command with --keep goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from backbone_on_scenes import teach
from common import REFER, need_data, risbench
from referring_scenes import referring_release

from risbench.benchmark.run import benchmark

SPLIT = Path(__file__).parents[1] / "manifests" / "splits" / "nwpu-vhr-10-refer.csv"
MODELS = "empty,full,centre,mean,largest,lavt,lavt:recipe.loss=crobim,caris,crobim,box-oracle"


def nwpu_release(folder: Path) -> Path:
    """Return NWPU VHR-10's sentences with their hand-drawn masks as a release, split by the frozen list."""
    need_data()
    workspace = folder / "nwpu"
    release = workspace / "4-export" / "release"
    if not (release / "release.json").exists():
        source = folder / "nwpu-source"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        truth = json.loads((REFER / "truth.json").read_text())
        coco = json.loads((REFER / "instances.json").read_text())
        known = {row["id"]: row for row in coco["annotations"]}
        rows = json.loads((REFER / "VRSBench_EVAL_referring.json").read_text())
        coco["annotations"] = [
            {**known[truth[str(row["question_id"])]], "id": number, "expression": row["question"]} for number, row in enumerate(rows, 1)
        ]
        (source / "instances.json").write_text(json.dumps(coco))
        risbench("ingest", source, "--images", REFER / "images", "--format", "coco", "--uninformative", "keep", "-w", workspace)
        risbench("refine-masks", "--engine", "box", "-w", workspace)  # the masks that the source brings are kept
        risbench("export", "--split", SPLIT, "--include-unreviewed", "--format", "parquet", "-w", workspace)
    return release


def take_trained(table: Path, out: Path) -> None:
    """Copy CroBIM's runs from the table of the same settings, where they were made: they need not be trained again."""
    for run in sorted(table.glob("crobim-seed*")):
        if not (out / run.name).exists():
            part = out / f"{run.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(run, part)
            part.rename(out / run.name)


def main(data: str, models: str, config: str, steps: int, seeds: int, taught: bool, init_from: Path | None, keep: Path, gpu: bool) -> None:
    release = nwpu_release(keep) if data == "nwpu" else referring_release(keep, 8000)
    changes = [f"recipe.steps={steps}", "recipe.looks=2"]
    if taught:
        backbone = keep / f"swin-{config}.safetensors"
        teach(backbone, config, device="cuda" if gpu else "cpu")
        changes.append(f"backbone.weights={backbone}")
    begun = "-taught" if taught else f"-from-{init_from.resolve().parent.name}" if init_from else ""
    out = keep / f"{data}-{config}-{steps}{begun}{'-gpu' if gpu else ''}" / ("table" if models == MODELS else "ablations")
    if out.name == "ablations":
        take_trained(out.with_name("table"), out)
    result = benchmark(
        release,
        out=out,
        models=models,
        config=config,
        changes=changes,
        seeds=seeds,
        gpu=gpu,
        workers=1 if gpu else os.cpu_count() or 1,
        init_from=init_from,
    )
    print(Path(result["tables"]["txt"]).read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("scenes", "nwpu"), default="scenes")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--taught", action="store_true", help="begin with an image encoder taught on generated scenes")
    parser.add_argument("--init-from", type=Path, help="the folder of another table, whose runs are begun with")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        keep = given.keep or Path(temporary)
        if given.taught and given.init_from:
            parser.error("--init-from has encoders already: leave --taught out")
        main(given.data, given.models, given.config, given.steps, given.seeds, given.taught, given.init_from, keep, given.gpu)
