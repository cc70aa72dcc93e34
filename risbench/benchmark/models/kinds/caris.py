"""A CARIS-style model (arXiv 2308.12534), made of CroBIM's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from risbench.benchmark.models.kind import ModelKind
from risbench.benchmark.models.kinds.crobim import build_crobim
from risbench.benchmark.settings import MidSettings


def _changes(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what makes CARIS (arXiv 2308.12534) of CroBIM's parts: prompts of its own, no aggregation, a pyramid behind coarse levels.

    Its six layers to CroBIM's four are half as many again at any size.
    """
    layers = values.get("mid", {}).get("layers", MidSettings().layers)
    return {
        "capm": {"context": False, "injection": "post_embedding"},
        "lgfa": {"enabled": False},
        "mid": {"layers": round(1.5 * layers) if isinstance(layers, int) else layers, "levels": [2, 3, 4], "pyramid": True},
    }


KIND: Final = ModelKind(
    name="caris",
    summary="CARIS-style, of CroBIM's parts",
    build=build_crobim,
    rank=20,
    sections=("capm", "lgfa", "mid"),
    changes=_changes,
)
