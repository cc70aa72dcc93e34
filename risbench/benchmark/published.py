"""The figures of the papers: theirs, not ours, and what may be read from a difference."""

from __future__ import annotations

import csv
from importlib import resources
from typing import Any, Final

from risbench.core.errors import OptionError

SOURCE: Final = "CroBIM, arXiv 2410.08613v1, Tables II to IV"
WARNING: Final = (
    "The papers' figures are theirs, on their own data and weights. Between papers the same method differs by 5 points of mIoU "
    "(RMSIN on RRSIS-D: 58.79 in CroBIM's table, 64.20 in its own paper), so smaller gaps between papers mean nothing."
)
DATASETS: Final = ("RRSIS-D", "RefSegRS", "RISBench")


def published(dataset: str, split: str = "test") -> list[dict[str, Any]]:
    """Return the papers' rows for a data set's val or test split: method, backbone and the metrics in percent.

    Raises:
        OptionError: the paper has no figures for it.
    """
    if dataset not in DATASETS or split not in ("val", "test"):
        raise OptionError(f"--published {dataset}: must be one of {', '.join(DATASETS)}, for the val or test split")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    text = resources.files("risbench.benchmark").joinpath("published.csv").read_text(encoding="utf-8")
    for cell in csv.DictReader(text.splitlines()):
        if cell["dataset"] == dataset and cell["split"] == split:
            row = rows.setdefault((cell["method"], cell["visual"]), {"model": cell["method"], "backbone": cell["visual"]})
            row[cell["metric"]] = float(cell["value"])
    return list(rows.values())
