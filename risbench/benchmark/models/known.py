"""The models that are trained, by name; other packages add theirs with an entry point of the group `risbench.models`."""

from __future__ import annotations

from typing import Final

from risbench.benchmark.models.kind import ModelKind
from risbench.core.errors import OptionError
from risbench.core.registry import Registry

MODELS: Final = Registry(ModelKind, "risbench.models", "risbench.benchmark.models.kinds", "KIND")


def model_kind(name: str) -> ModelKind:
    """Return a model's kind.

    Raises:
        OptionError: there is no such model.
    """
    kind = MODELS.get(name)
    if kind is None:
        left_out = "".join(f"; {reason}" for reason in MODELS.broken)
        raise OptionError(f"{name}: there is no such model; name one of {', '.join(MODELS.names())}{left_out}")
    return kind
