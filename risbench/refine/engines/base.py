"""What an engine is: what it is given, what it gives back, and what is known of each kind of engine before it is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from risbench.core.imagery import Pixels
from risbench.core.record import Box, Quad
from risbench.core.storage import sha256_of_file
from risbench.core.workspace import Workspace

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


@dataclass(frozen=True)
class EngineSetup:
    """What an engine is built with; it crosses process borders.

    `checkpoint` is a file or a name, None for what the engine brings; `again` how often a box that the mask contradicts is prompted again.
    """

    checkpoint: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    again: int = 3


def _none(_: object) -> None:
    return None


def _file_digest(checkpoint: str | None) -> str | None:
    return sha256_of_file(Path(checkpoint)) if checkpoint else None


@dataclass(frozen=True)
class EngineKind:
    """One kind of engine; docs/architecture.md says how to add one.

    `build` makes the engine, and imports what it needs only then. `network` is true of one that runs a network: it uses the GPU, fills a
    process's threads by itself, and its `extra` must be installed; `packages` decide its masks by their versions. `checkpoint` says what
    --checkpoint is for it, empty where it takes none; `missing`, where it needs one that was not given and `find` has none, what to do.
    `digest` is the sha256 of what it loads, so that other weights make another round. `bf16` says that it can multiply in bf16,
    `crops` that it looks at crops, where that gains nothing on a CPU. `reprompts` says that a box which the mask contradicts is
    prompted again.
    """

    name: str
    summary: str
    build: Callable[[EngineSetup], Engine]
    rank: int = 100
    network: bool = False
    extra: str = ""
    packages: tuple[str, ...] = ()
    checkpoint: str = ""
    missing: str = ""
    checkpoint_is_file: bool = True
    find: Callable[[Workspace], Path | None] = _none
    digest: Callable[[str | None], str | None] = _file_digest
    bf16: bool = False
    crops: Callable[[str | None], bool] = lambda checkpoint: False
    reprompts: bool = False
