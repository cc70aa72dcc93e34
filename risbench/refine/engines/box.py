"""The two baselines: the box itself and the oriented box itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import box_mask, polygon_mask
from risbench.core.imagery import Pixels
from risbench.core.metrics import mask_iou
from risbench.refine.engines.base import EngineKind, Prompt, Segmentation, jittered


class BoxEngine:
    """The upright box is the mask: the baseline that every engine must beat."""

    weights_sha256: str | None = None

    def __init__(self, *, oriented: bool) -> None:
        self._oriented = oriented
        self._shape = (0, 0)

    def load(self, pixels: Pixels) -> None:
        """Remember the image's size."""
        self._shape = (int(pixels.shape[0]), int(pixels.shape[1]))

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return the boxes, or with `oriented` the polygons where a prompt has one."""
        return [Segmentation(self._draw(prompt), {"jitter_agreement": self._jitter(prompt)}) for prompt in prompts]

    def _jitter(self, prompt: Prompt) -> float:
        used = self._draw(prompt)
        return float(np.mean([mask_iou(used, self._draw(other)) for other in jittered(prompt)]))

    def _draw(self, prompt: Prompt) -> NDArray[np.bool_]:
        if self._oriented and prompt.quad is not None:
            return polygon_mask(prompt.quad, *self._shape)
        return box_mask(prompt.box, *self._shape)


KINDS: Final = (
    EngineKind(name="box", summary="the box as the mask: a baseline", build=lambda setup: BoxEngine(oriented=False), rank=10),
    EngineKind(
        name="oriented-box",
        summary="the oriented box, where there is one, as the mask",
        build=lambda setup: BoxEngine(oriented=True),
        rank=20,
    ),
)
