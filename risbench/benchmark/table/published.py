"""The figures of the papers: theirs, not ours, and what may be read from a difference."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from risbench.core.errors import OptionError

SOURCE: Final = "CroBIM, arXiv 2410.08613v1, Tables II to VII; BTDNet's paper for what others say of themselves"
WARNING: Final = (
    "The papers' figures are theirs, on their own data and weights. Between papers the same method differs by 5 points of mIoU "
    "(RMSIN on RRSIS-D: 58.79 in CroBIM's table, 64.20 in its own paper), so smaller gaps between papers mean nothing. "
    "Most gaps between the paper's ablations are .2 to .8 points, of single runs."
)
# Samples in val and test, by the papers.
SAMPLES: Final = {
    "RRSIS-D": {"val": 1740, "test": 3481},
    "RefSegRS": {"val": 431, "test": 1817},
    "RISBench": {"val": 10_013, "test": 16_159},
}
# Test figures that papers report of themselves (oIoU, mIoU): BTDNet's abstract (arXiv 2502.08486), RMSIN's from the gains over it there.
_OWN: Final = {
    "RRSIS-D": {"BTDNet": (79.23, 66.04), "RMSIN": (77.79, 64.20)},
    "RefSegRS": {"BTDNet": (80.57, 67.95)},
}
# CroBIM's Tables V to VII (RISBench, test, ConvNeXt-B), by what is changed of the model: Pr@.5, Pr@.7, Pr@.9, oIoU, mIoU.
_ABLATIONS: Final = {
    "capm.scales=[1,2,3]": (77.22, 66.28, 33.96, 72.95, 69.04),
    "capm.scales=[1,2,4]": (77.15, 66.25, 33.82, 72.88, 69.11),
    "capm.scales=[2,3,4]": (77.26, 66.24, 33.89, 73.16, 69.15),
    "capm.pool=max": (76.38, 65.04, 33.52, 72.47, 68.67),
    "capm.pool=avg": (77.23, 66.15, 33.61, 72.84, 69.10),
    "lgfa.deficit_stages=[4]": (76.64, 65.72, 33.61, 72.18, 68.55),
    "lgfa.deficit_stages=[3,4]": (77.01, 65.93, 33.85, 72.61, 68.78),
    "lgfa.deficit_stages=[2,3,4]": (77.14, 66.21, 34.12, 72.87, 69.02),
    "mid.attention=pwam": (72.64, 63.87, 30.59, 70.28, 65.54),
    "mid.attention=wpa": (75.83, 64.87, 32.71, 72.19, 67.02),
}


def published(dataset: str, split: str = "test", changes: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the papers' rows for a data set's val or test split: method, backbone and the metrics in percent.

    Behind them stand the paper's ablations that are the same as one of `changes` of CroBIM.

    Raises:
        OptionError: the paper has no figures for it.
    """
    if dataset not in SAMPLES or split not in ("val", "test"):
        raise OptionError(f"--published {dataset}: must be one of {', '.join(SAMPLES)}, for the val or test split")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    text = resources.files("risbench.benchmark.table").joinpath("published.csv").read_text(encoding="utf-8")
    for cell in csv.DictReader(text.splitlines()):
        if cell["dataset"] == dataset and cell["split"] == split:
            row = rows.setdefault((cell["method"], cell["visual"]), {"model": cell["method"], "backbone": cell["visual"]})
            row[cell["metric"]] = float(cell["value"])
    own = _OWN.get(dataset, {}) if split == "test" else {}
    others = [{"model": name, "backbone": "in its own paper", "oIoU": oiou, "mIoU": miou} for name, (oiou, miou) in own.items()]
    ablations = _ABLATIONS if (dataset, split) == ("RISBench", "test") else {}
    metrics = ("Pr@0.5", "Pr@0.7", "Pr@0.9", "oIoU", "mIoU")
    changed = [
        {"model": f"CroBIM, {change}", "backbone": "ConvNeXt-B", **dict(zip(metrics, ablations[change], strict=True))}
        for change in changes
        if change in ablations
    ]
    return [*rows.values(), *others, *changed]
