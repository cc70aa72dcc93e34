"""A model: the sentence's mean word times the coarsest map, and a section of settings of its own."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from risbench.benchmark.models.kind import ModelKind
from risbench.benchmark.settings import Section, Settings


class PooledSettings(Section):
    """The width in which words and pixels meet."""

    width: int = Field(default=16, gt=0)


def _build(settings: Settings, vocabulary: int) -> Any:
    from risbench_acme.pooled_net import Pooled

    return Pooled(settings, vocabulary)


POOLED = ModelKind(
    name="pooled",
    summary="words pooled into one",
    build=_build,
    section=PooledSettings,
    ablations={"acme-widths": ("pooled:pooled.width=8",)},
)
