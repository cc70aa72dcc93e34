"""The network of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from risbench.benchmark.models.backbones import Backbone, shared
from risbench.benchmark.models.text import TextEncoder


class Pooled(nn.Module):
    """One product of pixels and sentence."""

    def __init__(self, settings: Any, vocabulary: int) -> None:
        """Build it."""
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone, settings.side)
        self.text = TextEncoder(settings.text, vocabulary)
        width = settings.pooled.width
        self.pixel = nn.Conv2d(self.backbone.channels[0], width, 1)
        self.word = nn.Linear(self.text.width, width)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return the finest map (B, C, H / 4, W / 4)."""
        height, width = image.shape[-2:]
        return [self.backbone(functional.pad(image, (0, -width % 32, 0, -height % 32)))[0]]

    def decode(self, maps: list[Tensor], tokens: Tensor, valid: Tensor) -> Tensor:
        """Return mask logits (B, 1, H / 4, W / 4)."""
        words = self.text(tokens, valid)
        kept = valid[..., None].to(words.dtype)
        sentence = self.word((words * kept).sum(dim=1) / kept.sum(dim=1))
        return torch.einsum("bchw,bc->bhw", self.pixel(maps[0]), sentence)[:, None]

    def forward(self, image: Tensor, tokens: Tensor, valid: Tensor, image_of: Tensor | None = None) -> Tensor:
        """Return mask logits (B, 1, H / 4, W / 4)."""
        logits = self.decode(shared(self.encode(image), image_of), tokens, valid)
        return logits[:, :, : -(-image.shape[2] // 4), : -(-image.shape[3] // 4)]
