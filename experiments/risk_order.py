"""How well the risk tells masks that people must redraw from those they accept, on real boxes with known truth.

    python experiments/risk_order.py [--engine NAME] [--workspace DIR]

NWPU VHR-10's rows that are linked to a true mask. A mask is bad where its IoU with the truth is below .8. Printed are, for every term and
for the risk, the area under the ROC curve (.5: says nothing, 1: tells all), and how many of the bad masks lie in the riskiest half and
quarter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import REFER, need_data, risbench
from numpy.typing import NDArray

from risbench.core.masks import mask_of
from risbench.core.metrics import mask_iou
from risbench.core.risk import risk_terms, risks
from risbench.core.workspace import Workspace, read_records
from risbench.formats.truth import Truth


def auc(risk: NDArray[np.float64], bad: NDArray[np.bool_]) -> float:
    """Return the chance that a bad mask has a higher risk than a good one; ties count half."""
    better = (risk[bad][:, None] > risk[~bad][None, :]).mean()
    same = (risk[bad][:, None] == risk[~bad][None, :]).mean()
    return float(better + same / 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workspace", type=Path, default=None)
    words = parser.parse_args()
    need_data()
    with tempfile.TemporaryDirectory() as folder:
        workspace = words.workspace or Path(folder) / "w"
        risbench("ingest", REFER, "--fit", "keep", "-w", workspace)
        risbench("refine-masks", "--engine", words.engine, "-w", workspace)
        links: dict[str, Any] = json.loads((REFER / "truth.json").read_text())
        truth = Truth(REFER / "instances.json")
        records = list(read_records(Workspace.open(workspace).latest()))
        known = [record for record in records if record.mask is not None and record.source.source_key in links]
        bad = np.array(
            [
                mask_iou(mask_of(record.mask), truth.mask_in_record(record, truth.by_id[links[record.source.source_key]])) < 0.8
                for record in known
                if record.mask is not None
            ]
        )
        terms, risk = risk_terms(records), risks(records)
        print(f"{len(known)} masks of {words.engine}, {bad.sum()} of them bad")
        for name in sorted({name for found in terms.values() for name in found}):
            values = np.array([terms[record.id].get(name, 0.0) for record in known])
            print(f"  {name:<20} AUC {auc(values, bad):.3f}")
        together = np.array([risk[record.id] for record in known])
        order = np.argsort(-together, kind="stable")
        half, quarter = (bad[order[: len(order) // part]].sum() / bad.sum() for part in (2, 4))
        print(f"risk: AUC {auc(together, bad):.3f}; the riskiest half holds {half:.0%} of the bad ones, the riskiest quarter {quarter:.0%}")
