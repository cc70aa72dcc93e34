"""GrabCut with outlines of the classes, which needs no weights."""

from __future__ import annotations

from typing import Final

from risbench.refine.engines.base import EngineKind
from risbench.refine.grabcut import GrabCutEngine

KINDS: Final = EngineKind(
    name="grabcut",
    summary="two GrabCut passes around an outline of the class, and a vote (docs/decisions/0002); no weights, CPU",
    build=lambda setup: GrabCutEngine(),
    rank=30,
)
