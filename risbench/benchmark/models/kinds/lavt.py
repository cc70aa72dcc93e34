"""A LAVT-style model (arXiv 2112.02244)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from risbench.benchmark.models.kind import ModelKind
from risbench.benchmark.settings import Settings
from risbench.core.errors import OptionError

if TYPE_CHECKING:
    from torch import nn


def _build(settings: Settings, vocabulary: int) -> nn.Module:
    from risbench.benchmark.models.lavt import Lavt

    return Lavt(settings, vocabulary)


def _check(settings: Settings) -> None:
    if settings.backbone.kind != "swin":
        raise OptionError(f"backbone.kind = {settings.backbone.kind}: LAVT's words enter between the stages of a Swin; use kind swin")


KIND: Final = ModelKind(
    name="lavt",
    summary="LAVT-style",
    build=_build,
    rank=30,
    sections=("lavt",),
    changes=lambda values: {"recipe": {"loss": "weighted"}},
    check=_check,
)
