"""What an engine is, and the two baselines: the box itself and the oriented box itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import box_mask, polygon_mask
from risbench.core.imagery import Pixels
from risbench.core.metrics import mask_iou
from risbench.core.record import Box, Quad

EngineName = Literal["auto", "box", "oriented-box", "grabcut", "builtin", "sam", "pasam", "hf"]
ENGINES: Final = ("auto", "box", "oriented-box", "grabcut", "builtin", "sam", "pasam", "hf")
# Those that run a network: they need an extra, use the GPU, and fill a process's threads by themselves.
NETWORKS: Final = ("builtin", "sam", "pasam", "hf")


# Of several targets a triplet bears the worst score, which for these is the highest.
HIGH_IS_BAD: Final = ("uncertainty", "prompted_again")


# Of the masks or logits that an image's prompts are answered with at once: thousands of objects must not fill the memory.
LOGITS_BYTES: Final = 1 << 30


def at_once(pixels: int) -> int:
    """Return how many prompts of an image of so many pixels are answered at once: each takes three logits a pixel, two of moved boxes."""
    return max(1, LOGITS_BYTES // (3 * 4 * pixels))


@dataclass(frozen=True)
class Prompt:
    """What an engine is given for one object, in pixels of the image."""

    box: Box
    quad: Quad | None
    category: str


@dataclass(frozen=True)
class Segmentation:
    """What an engine gives back: `values` (height, width), a mask or logits (object where > 0), and its own scores.

    `box` is the one that the engine used in the end, where that is not the prompt's.
    """

    values: NDArray[Any]
    scores: dict[str, float] = field(default_factory=dict)
    box: Box | None = None


class Engine(Protocol):
    """Box to mask. `load` takes an image once; `segment` answers any number of prompts on it.

    Every segmentation carries `jitter_agreement`, the mean IoU of the mask with masks from `jittered` boxes (for
    GrabCut of the first pass only); those that can tell add `stability` and `predicted_iou`.
    """

    weights_sha256: str | None

    def load(self, pixels: Pixels) -> None:
        """Take the image (height, width, 3), 8-bit RGB."""

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return one segmentation per prompt, in order."""


def jittered(prompt: Prompt, share: float = 0.05) -> tuple[Prompt, Prompt]:
    """Return the prompt with its box (and polygon) moved by 5 % of its sides and shrunk, and moved back and grown, by 5 %."""
    return _moved(prompt, share, 1 - share), _moved(prompt, -share, 1 + share)


def _moved(prompt: Prompt, shift: float, scale: float) -> Prompt:
    x_min, y_min, x_max, y_max = prompt.box
    x, y, width, height = (x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min

    def move(px: float, py: float) -> tuple[float, float]:
        return (x + (px - x) * scale + shift * width, y + (py - y) * scale + shift * height)

    box = (*move(x_min, y_min), *move(x_max, y_max))
    quad = None
    if prompt.quad is not None:
        p, q, r, s = (move(px, py) for px, py in prompt.quad)
        quad = (p, q, r, s)
    return Prompt(box, quad, prompt.category)


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
