"""An engine: the ellipse in the box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from risbench.core.imagery import Pixels
from risbench.core.metrics import mask_iou
from risbench.refine.engines.base import EngineKind, Prompt, Segmentation, jittered


class EllipseEngine:
    """Takes every object for an ellipse."""

    weights_sha256: str | None = None

    def load(self, pixels: Pixels) -> None:
        """Keep the image's size."""
        self._rows, self._columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return an ellipse per prompt."""
        return [Segmentation(self._draw(prompt), {"jitter_agreement": self._agreement(prompt)}) for prompt in prompts]

    def _draw(self, prompt: Prompt) -> NDArray[np.bool_]:
        x_min, y_min, x_max, y_max = prompt.box
        across = (2 * self._columns - x_min - x_max) / (x_max - x_min)
        down = (2 * self._rows - y_min - y_max) / (y_max - y_min)
        inside: NDArray[np.bool_] = across**2 + down**2 <= 1
        return inside

    def _agreement(self, prompt: Prompt) -> float:
        return float(np.mean([mask_iou(self._draw(prompt), self._draw(other)) for other in jittered(prompt)]))


ELLIPSE = EngineKind(name="ellipse", summary="the ellipse in the box", build=lambda setup: EllipseEngine())
