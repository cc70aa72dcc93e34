"""The compact SAM that comes with risbench."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from risbench.core.storage import sha256_of_file
from risbench.refine.engines.base import Engine, EngineKind, EngineSetup


def _build(setup: EngineSetup) -> Engine:
    from risbench.refine.sam_engine import builtin_engine

    return builtin_engine(setup.device, Path(setup.checkpoint) if setup.checkpoint else None, setup.precision)


def _digest(checkpoint: str | None) -> str:
    from risbench.sam.builtin import builtin_weights

    return sha256_of_file(Path(checkpoint) if checkpoint else builtin_weights())


KINDS: Final = EngineKind(
    name="builtin",
    summary="the shipped compact SAM on a magnified crop per object (docs/decisions/0006); `auto`'s choice with the sam extra",
    build=_build,
    rank=40,
    network=True,
    extra="sam",
    packages=("torch", "segment-anything"),
    checkpoint="other weights",
    digest=_digest,
    bf16=True,
    crops=lambda checkpoint: True,
)
