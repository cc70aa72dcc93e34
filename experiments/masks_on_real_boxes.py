"""Mask quality on 1,236 real rows with real noisy boxes, and the whole run's time and memory on this machine.

    python experiments/masks_on_real_boxes.py [--halves]

`--halves` also scores two halves of the images (by hash) apart, to show how much the figure moves between images.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from common import REFER, need_data, peak_gib, risbench

need_data()
AUDIT = ("audit", "--truth", REFER / "instances.json", "--links", REFER / "truth.json", "--json")
with tempfile.TemporaryDirectory() as folder:
    workspace = ("-w", folder)
    seconds = {}
    _, seconds["ingest"] = risbench("ingest", REFER, "--fit", "keep", *workspace)
    _, seconds["refine-masks"] = risbench("refine-masks", "--engine", "grabcut", *workspace)
    found = {"grabcut": json.loads(risbench(*AUDIT, *workspace)[0])}
    _, seconds["export"] = risbench("export", "--split", "--include-unreviewed", *workspace)
    memory = peak_gib()
    risbench("refine-masks", "--engine", "box", *workspace)
    found["box"] = json.loads(risbench(*AUDIT, *workspace)[0])
    print(
        f"{'engine':<10}{'n':>7}{'mean IoU':>10}{'95 % interval':>18}{'>= .5':>8}{'>= .7':>8}{'>= .8':>8}{'>= .9':>8}{'boundary IoU':>14}"
    )
    for engine in ("box", "grabcut"):
        row = found[engine]
        low, high = row["mean_iou_interval"]
        shares = "".join(f"{row['share'][key]:>8.3f}" for key in ("0.5", "0.7", "0.8", "0.9"))
        print(f"{engine:<10}{row['n']:>7}{row['mean_iou']:>10.3f}{f'[{low:.3f}, {high:.3f}]':>18}{shares}{row['boundary_iou']:>14.3f}")
    print("\nby class (grabcut)")
    for name, row in found["grabcut"]["by"]["class"].items():
        print(f"  {name:<20}{row['n']:>6}{row['mean_iou']:>8.3f}{row['share_0.8']:>8.3f}")
    print("\nseconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items()) + f"; together {sum(seconds.values()):.1f}")
    print(f"largest process: {memory:.2f} GiB; cores: {os.cpu_count()}")
    if "--halves" in sys.argv:
        truth = json.loads((REFER / "truth.json").read_text())
        rows = json.loads((REFER / "VRSBench_EVAL_referring.json").read_text())
        for half in (0, 1):
            keys = {str(r["question_id"]) for r in rows if int(hashlib.sha256(r["image_id"].encode()).hexdigest(), 16) % 2 == half}
            links = Path(folder) / f"half{half}.json"
            links.write_text(json.dumps({key: value for key, value in truth.items() if key in keys}))
            row = json.loads(
                risbench("audit", "--truth", REFER / "instances.json", "--links", links, "--round", "1", "--json", *workspace)[0]
            )
            print(f"half {half} of the images (by hash): n {row['n']}, mean IoU {row['mean_iou']:.3f}, >= .8 {row['share']['0.8']:.3f}")
