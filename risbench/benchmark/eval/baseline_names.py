"""The baselines' names: what knows no image or no sentence, and true or predicted boxes given to a SAM."""

from __future__ import annotations

from typing import Final

TRIVIAL: Final = ("empty", "full", "centre", "mean", "largest")
BOXES: Final = ("box-oracle", "box-predicted")
BASELINES: Final = (*TRIVIAL, *BOXES)
