"""SAM as an engine: encode once, decode all boxes and their jittered copies in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from risbench.core.geometry import polygon_mask
from risbench.core.imagery import Pixels
from risbench.core.metrics import mask_iou
from risbench.refine.engines import Prompt, Segmentation, jittered
from risbench.sam.predictor import BoxPredictor
from risbench.sam.weights import load_sam


class SamEngine:
    """Any SAM checkpoint, prompted with boxes, and with the polygon as mask prompt where a box is oriented."""

    def __init__(self, checkpoint: Path | str, device: str) -> None:
        model, digest = load_sam(checkpoint, device)
        self.weights_sha256: str | None = digest
        self._predictor = BoxPredictor(model)
        self._shape = (0, 0)

    def load(self, pixels: Pixels) -> None:
        """Encode the image."""
        self._shape = (int(pixels.shape[0]), int(pixels.shape[1]))
        self._predictor.load(pixels)

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return logits and scores of every prompt."""
        # Jittered copies ride in the same batch: one box costs the decoder 1/173 of what the image cost the encoder.
        batch = [item for prompt in prompts for item in (prompt, *jittered(prompt))]
        masks = [polygon_mask(prompt.quad, *self._shape) if prompt.quad is not None else None for prompt in batch]
        found = self._predictor.predict(np.array([prompt.box for prompt in batch]), masks)
        answers = []
        for index in range(0, len(batch), 3):
            used, *others = found.logits[index : index + 3]
            jitter = float(np.mean([mask_iou(used > 0, other > 0) for other in others]))
            scores = {
                "predicted_iou": float(found.predicted_iou[index]),
                "stability": float(found.stability[index]),
                "jitter_agreement": jitter,
            }
            answers.append(Segmentation(used, scores))
        return answers
