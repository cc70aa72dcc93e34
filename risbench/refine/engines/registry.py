"""The engines, by name; other packages add theirs with an entry point of the group `risbench.engines`."""

from __future__ import annotations

from typing import Final

from risbench.core.registry import Registry
from risbench.refine.engines.base import EngineKind

ENGINES: Final = Registry(EngineKind, "risbench.engines", "risbench.refine.engines", "KINDS")
AUTO: Final = "auto"


def engine_kind(name: str) -> EngineKind:
    """Return an engine's kind that is known to be there."""
    kind = ENGINES.get(name)
    assert kind is not None, "the name was checked"
    return kind
