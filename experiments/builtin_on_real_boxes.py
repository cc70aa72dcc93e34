"""The built-in SAM against GrabCut and the box on real rows with real noisy boxes, and its time.

    python experiments/builtin_on_real_boxes.py [--weights FILE] [--choose]

The images are cut in three by a hash of their names: one third was for choosing (threshold, views, when to stop), and is
printed only with `--choose`; two thirds are reported. Boxes are VRSBench's tokens, images stay as they are (--fit keep).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from common import REFER, need_data, risbench

from risbench.scenes.source import write_source

HEAD = f"{'engine':<10}{'n':>7}{'mean IoU':>10}{'95 % interval':>18}{'>= .5':>8}{'>= .7':>8}{'>= .8':>8}{'>= .9':>8}{'boundary IoU':>14}"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights", type=Path, help="other weights than the shipped ones")
parser.add_argument("--choose", action="store_true", help="print the third for choosing, too")
words = parser.parse_args()
more = ("--checkpoint", words.weights) if words.weights else ()


def third_of(name: str) -> int:
    """Return 0 for the images to choose by, 1 or 2 for those to report on."""
    return int(hashlib.sha256(Path(name).name.encode()).hexdigest(), 16) % 3


def line(engine: str, row: dict[str, Any]) -> str:
    """Return an engine's figures."""
    low, high = row["mean_iou_interval"]
    shares = "".join(f"{row['share'][key]:>8.3f}" for key in ("0.5", "0.7", "0.8", "0.9"))
    return f"{engine:<10}{row['n']:>7}{row['mean_iou']:>10.3f}{f'[{low:.3f}, {high:.3f}]':>18}{shares}{row['boundary_iou']:>14.3f}"


def time_a_hundred(folder: Path) -> None:
    """Print the seconds for 100 images of 512 with 1.77 boxes each, from the command line's start to its end."""
    write_source(folder / "source", seed=77, scenes=60)
    rows = json.loads((folder / "source" / "VRSBench_EVAL_referring.json").read_text())
    by_image: dict[str, list[Any]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row)
    chosen = list(by_image.values())[:100]
    kept = [row for members in chosen for row in members[:1]]
    kept += [row for members in chosen for row in members[1:2]][: 177 - len(kept)]
    (folder / "source" / "VRSBench_EVAL_referring.json").write_text(json.dumps(kept))
    shutil.rmtree(folder / "source" / "Annotations")
    for extra in ("VRSBench_train.json", "truth.json", "links.json"):
        (folder / "source" / extra).unlink()
    risbench("ingest", folder / "source", "--format", "vrsbench", "--uninformative", "keep", "-w", folder / "w")
    out, seconds = risbench("refine-masks", "--engine", "builtin", *more, "--json", "-w", folder / "w")
    made = json.loads(out)
    print(
        f"\n{len(chosen)} images of 512 x 512, {made['counts']['out']} boxes: {seconds:.1f} s on {os.cpu_count()} cores, start-up included"
    )


need_data()
with tempfile.TemporaryDirectory() as folder:
    workspace = ("-w", folder)
    risbench("ingest", REFER, "--fit", "keep", *workspace)
    truth = json.loads((REFER / "truth.json").read_text())
    rows = json.loads((REFER / "VRSBench_EVAL_referring.json").read_text())
    parts = {"report": (1, 2), "choose": (0,)}
    for part, thirds in parts.items():
        keys = {str(row["question_id"]) for row in rows if third_of(row["image_id"]) in thirds}
        links = {key: value for key, value in truth.items() if key in keys}
        (Path(folder) / f"{part}.json").write_text(json.dumps(links))
    found: dict[str, dict[str, Any]] = {"report": {}, "choose": {}}
    for number, (engine, options) in enumerate((("box", ()), ("grabcut", ()), ("builtin", more)), 1):
        risbench("refine-masks", "--engine", engine, *options, *workspace)
        for part in parts:
            audit = ("--links", Path(folder) / f"{part}.json", "--round", str(number), "--json")
            found[part][engine] = json.loads(risbench("audit", "--truth", REFER / "instances.json", *audit, *workspace)[0])
    for part in ("report", "choose") if words.choose else ("report",):
        print(f"the {'two thirds to report on' if part == 'report' else 'third to choose by'}")
        print(HEAD)
        for engine, row in found[part].items():
            print(line(engine, row))
        print(f"\n  {'by class':<20}{'n':>6}{'grabcut':>16}{'builtin':>16}")
        for name, row in found[part]["builtin"]["by"]["class"].items():
            other = found[part]["grabcut"]["by"]["class"][name]
            pair = "".join(f"{one['mean_iou']:>9.3f}{one['share_0.8']:>7.3f}" for one in (other, row))
            print(f"  {name:<20}{row['n']:>6}{pair}")
        print()
    time_a_hundred(Path(folder) / "hundred")
