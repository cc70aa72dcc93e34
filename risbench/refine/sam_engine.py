"""Models of the SAM family as engines; each decodes a prompt and its two jittered copies together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from risbench.core.imagery import Pixels
from risbench.core.metrics import mask_iou
from risbench.refine.engines import Prompt, Segmentation, jittered
from risbench.sam.builtin import load_builtin
from risbench.sam.compact_predictor import CompactPredictor
from risbench.sam.compact_weights import load_compact
from risbench.sam.predictor import BoxPredictor, Predicted, SamPrompt
from risbench.sam.weights import load_sam


class _Predictor(Protocol):
    def load(self, pixels: Pixels) -> None: ...

    def predict(self, prompts: Sequence[SamPrompt]) -> Predicted: ...


class SamEngine:
    """A predictor of the SAM family, prompted with boxes, and with the polygon where a box is oriented."""

    def __init__(self, predictor: _Predictor, weights_sha256: str) -> None:
        self.weights_sha256: str | None = weights_sha256
        self._predictor = predictor

    def load(self, pixels: Pixels) -> None:
        """Take an image, and encode it where the model encodes whole images."""
        self._predictor.load(pixels)

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return logits and scores of every prompt."""
        # Jittered copies ride in the same batch: one box costs SAM's decoder 1/173 of what the image cost its encoder.
        asked = [SamPrompt(item.box, item.quad) for prompt in prompts for item in (prompt, *jittered(prompt))]
        found = self._predictor.predict(asked)
        answers = []
        for index in range(0, len(asked), 3):
            used, *others = found.logits[index : index + 3]
            scores = {
                "predicted_iou": float(found.predicted_iou[index]),
                "stability": float(found.stability[index]),
                "jitter_agreement": float(np.mean([mask_iou(used > 0, other > 0) for other in others])),
            }
            answers.append(Segmentation(used, scores))
        return answers


def sam_engine(checkpoint: Path, device: str) -> SamEngine:
    """Return Meta's SAM, of any size, or MobileSAM, from their own files."""
    model, digest = load_sam(checkpoint, device)
    return SamEngine(BoxPredictor(model), digest)


def builtin_engine(device: str, checkpoint: Path | None = None) -> SamEngine:
    """Return the shipped compact SAM, or another one of its kind from a file."""
    model, digest = load_builtin(device) if checkpoint is None else load_compact(checkpoint, device)
    return SamEngine(CompactPredictor(model), digest)


def hf_engine(name: str, device: str) -> SamEngine:
    """Return a box-promptable mask model of transformers, from a folder or by its name on the hub."""
    from risbench.sam.hf import HfPredictor, load_hf

    model, processor, digest = load_hf(name, device)
    return SamEngine(HfPredictor(model, processor), digest)
