"""The half of the images that refine/shapes.py was tuned on, and the half that was only read at the end, scored apart.

risbench ingest $RISBENCH_SHARED/data/nwpu_vhr10_refer --fit keep -w WORKSPACE && risbench refine-masks -w WORKSPACE
python experiments/tuning_halves.py WORKSPACE
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import REFER, need_data, risbench

need_data()
truth = json.loads((REFER / "truth.json").read_text())
rows = json.loads((REFER / "VRSBench_EVAL_referring.json").read_text())
names = sorted({row["image_id"] for row in rows})
tuned_on = set(np.random.RandomState(0).permutation(names)[: len(names) // 2])
for label, inside in (("tuned on", True), ("only read at the end", False)):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as links:
        json.dump({key: truth[key] for row in rows if (row["image_id"] in tuned_on) == inside for key in (str(row["question_id"]),)}, links)
        links.flush()
        output, _ = risbench(
            "audit", "--truth", REFER / "instances.json", "--links", links.name, "-w", Path(sys.argv[1]), "--round", "1", "--json"
        )
    result = json.loads(output)
    print(f"{label:<22} n {result['n']:>4}  mean IoU {result['mean_iou']:.3f}  >= .8 {result['share']['0.8']:.3f}")
    for name, row in result["by"]["class"].items():
        print(f"    {name:<20}{row['n']:>6}{row['mean_iou']:>8.3f}{row['share_0.8']:>8.3f}")
