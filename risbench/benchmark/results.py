"""What evaluations left, read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def samples_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an evaluation's samples as it wrote them."""
    lines = Path(result["path"]).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def iou_of(row: dict[str, Any]) -> float:
    """Return a sample's IoU; 0 where both masks are empty."""
    return row["intersection"] / row["union"] if row["union"] else 0.0


def mean_of(results: Sequence[dict[str, Any]], metric: str) -> float:
    """Return a metric's mean over evaluations."""
    return float(np.mean([result["figures"][metric]["value"] for result in results]))
