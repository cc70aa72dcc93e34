"""What evaluations left, read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from risbench.benchmark.scoring import Scored
from risbench.core.errors import InputError


def samples_of(result: dict[str, Any]) -> list[Scored]:
    """Return an evaluation's samples as it wrote them."""
    lines = Path(result["path"]).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return [Scored(**json.loads(line)) for line in lines]


def same_data(*results: dict[str, Any]) -> None:
    """Check that evaluations were made on the same samples and masks.

    Raises:
        InputError: the release was changed between them.
    """
    if len({result["data"] for result in results}) > 1:
        raise InputError(f"{results[0]['release']}: was changed while models were scored on it; give the same command again")


def mean_of(results: Sequence[dict[str, Any]], metric: str) -> float:
    """Return a metric's mean over evaluations."""
    return float(np.mean([result["figures"][metric]["value"] for result in results]))
