"""Meta's SAM of any size, and MobileSAM, from their own files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from risbench.refine.engines.base import Engine, EngineKind, EngineSetup


def _build(setup: EngineSetup) -> Engine:
    from risbench.refine.sam_engine import sam_engine

    assert setup.checkpoint is not None, "it is missing otherwise"
    return sam_engine(Path(setup.checkpoint), setup.device, setup.precision)


KINDS: Final = EngineKind(
    name="sam",
    summary="any Meta SAM checkpoint, or MobileSAM, through segment-anything's classes; size by the tensors' shapes, `weights_only`",
    build=_build,
    rank=50,
    network=True,
    extra="sam",
    packages=("torch", "segment-anything"),
    checkpoint="a SAM or MobileSAM file",
    missing="needs --checkpoint FILE, a SAM checkpoint such as sam_vit_b_01ec64.pth (`risbench weights list`)",
    bf16=True,
)
