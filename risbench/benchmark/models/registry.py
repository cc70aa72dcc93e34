"""Models as modules of PyTorch: what training and evaluation need of them, and how one is built by its name."""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from risbench.benchmark.models.known import model_kind
from risbench.benchmark.settings import Settings


class ReferringModel(Protocol):
    """What training and evaluation need of a model; it is a `torch.nn.Module` besides."""

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return what a normalised image (B, 3, H, W) needs no sentence for."""

    def decode(self, maps: list[Tensor], tokens: Tensor, valid: Tensor) -> Tensor:
        """Return mask logits (B, 1, H / 4, W / 4) of the padded image."""

    def __call__(self, image: Tensor, tokens: Tensor, valid: Tensor, image_of: Tensor | None = None) -> Tensor:
        """Return mask logits (B, 1, H / 4, W / 4), rounded up; `image_of` (B,) where sentences share images."""


@runtime_checkable
class Explaining(Protocol):
    """A model that says what it looked at."""

    def explain(self, maps: list[Tensor], tokens: Tensor, valid: Tensor) -> tuple[Tensor, Any]:
        """Return the mask logits, and the maps of attention that the sheet of cases shows."""


def build(name: str, settings: Settings, vocabulary: int, seed: int = 0) -> nn.Module:
    """Return a model with the weights that the settings name, the rest random by `seed`.

    Raises:
        OptionError: there is no such model.
        MissingRequirementError, InputError: named weights cannot be had or used.
    """
    kind = model_kind(name)
    torch.manual_seed(seed)
    return kind.build(settings, vocabulary)


def referring(model: nn.Module) -> ReferringModel:
    """Return a model that `build` made as what it can do."""
    return cast("ReferringModel", model)


def parameters_of(model: nn.Module) -> dict[str, int]:
    """Return how many parameters each part has."""
    return {name: sum(value.numel() for value in part.parameters()) for name, part in model.named_children()}
