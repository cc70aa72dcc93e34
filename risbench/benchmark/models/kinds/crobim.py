"""CroBIM (arXiv 2410.08613), with the ablations of its Tables V to VII."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from risbench.benchmark.models.kind import ModelKind
from risbench.benchmark.settings import Settings

if TYPE_CHECKING:
    from torch import nn


def build_crobim(settings: Settings, vocabulary: int) -> nn.Module:
    """Return a CroBIM, or what its switches make of it."""
    from risbench.benchmark.models.crobim.crobim import CroBim

    return CroBim(settings, vocabulary)


KIND: Final = ModelKind(
    name="crobim",
    summary="CroBIM, from its equations",
    build=build_crobim,
    rank=10,
    sections=("capm", "lgfa", "mid"),
    # what each row of a table changes of the model as it is
    ablations={
        "table5": (
            "crobim:capm.scales=[1,2,3]",
            "crobim:capm.scales=[1,2,4]",
            "crobim:capm.scales=[2,3,4]",
            "crobim:capm.pool=max",
            "crobim:capm.pool=avg",
        ),
        "table6": (
            "crobim:lgfa.deficit_stages=[]",
            "crobim:lgfa.deficit_stages=[4]",
            "crobim:lgfa.deficit_stages=[3,4]",
            "crobim:lgfa.deficit_stages=[2,3,4]",
        ),
        "table7": ("crobim:mid.attention=pwam", "crobim:mid.attention=wpa"),
    },
)
