"""A SAM with an adapter: the workspace's own, or PA-SAM's merged file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from risbench.core.workspace import Workspace
from risbench.refine.engines.base import Engine, EngineKind, EngineSetup


def _build(setup: EngineSetup) -> Engine:
    from risbench.refine.sam_engine import pasam_engine

    assert setup.checkpoint is not None, "it is missing otherwise"
    return pasam_engine(Path(setup.checkpoint), setup.device, setup.again, setup.precision)


def _crops(checkpoint: str | None) -> bool:
    from risbench.sam.adapter_file import is_adapter, read_adapter

    path = Path(str(checkpoint))
    return is_adapter(path) and not read_adapter(path)[0].whole


KINDS: Final = EngineKind(
    name="pasam",
    summary="the workspace's adapter on its base, or PA-SAM's merged file; `auto`'s choice once there is an adapter (docs/decisions/0007)",
    build=_build,
    rank=60,
    network=True,
    extra="sam",
    packages=("torch", "segment-anything"),
    checkpoint="an adapter, or PA-SAM's merged file",
    missing="the workspace has no adapter; train one (`risbench train-adapter`) or give --checkpoint",
    find=Workspace.adapter,
    bf16=True,
    crops=_crops,
    reprompts=True,
)
