"""Mask models of transformers that take boxes."""

from __future__ import annotations

from typing import Final

from risbench.refine.engines.base import Engine, EngineKind, EngineSetup


def _build(setup: EngineSetup) -> Engine:
    from risbench.refine.sam_engine import hf_engine

    assert setup.checkpoint is not None, "it is missing otherwise"
    return hf_engine(setup.checkpoint, setup.device)


def _digest(checkpoint: str | None) -> str | None:
    from risbench.sam.hf import weights_digest

    return weights_digest(str(checkpoint))


KINDS: Final = EngineKind(
    name="hf",
    summary="any box-promptable mask model of transformers: SAM, SAM-HQ, SAM 2.1, SAM 3 tracker; from a folder or the hub",
    build=_build,
    rank=70,
    network=True,
    extra="train",
    packages=("torch", "segment-anything", "transformers"),
    checkpoint="a folder, or a name on the hub",
    missing="needs --checkpoint NAME_OR_FOLDER, a mask model of transformers such as facebook/sam2.1-hiera-large",
    checkpoint_is_file=False,
    digest=_digest,
)
