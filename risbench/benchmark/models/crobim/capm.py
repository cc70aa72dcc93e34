"""CAPM, context-aware prompt modulation: learned text prompts that have seen the image (Section IV-A, eqs. 1 and 2).

Equation 1 names a concatenation over channels and a shape (4s^2, C_total). With s = 1 a literal concatenation is one key, the softmax
over one key is 1, and the prompts get no gradient. Each scale's vectors therefore stand in their own slice of the channels and the scales
are stacked: shape and equation 2 hold, and the product with a projection is one linear map a scale (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from risbench.benchmark.settings import CapmSettings


class ContextPrompts(nn.Module):
    """Makes P_v (eq. 2) of the backbone's maps; without `context` the prompts are only learned."""

    def __init__(self, settings: CapmSettings, channels: Sequence[int], width: int) -> None:
        """Make it for maps of `channels`, finest first, and text of `width`."""
        super().__init__()
        self.settings = settings
        self.prompts = nn.Parameter(torch.randn(settings.prompts, width) * 0.02)
        self.scale = width**-0.5 if settings.scale_logits else 1.0
        if settings.context:
            self.query = nn.Linear(width, width, bias=False)
            self.keys = nn.ModuleList(nn.Linear(channels[scale - 1], width, bias=False) for scale in settings.scales)
            self.values = nn.ModuleList(nn.Linear(channels[scale - 1], width, bias=False) for scale in settings.scales)
        if settings.residual:
            self.norm = nn.LayerNorm(width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the prompts (B, N_p, width) for maps (B, C_i, H_i, W_i), finest first."""
        own = self.prompts.expand(maps[0].shape[0], -1, -1)
        if not self.settings.context:
            return own
        pooled = [self._pool(maps[scale - 1], maps[-1]).flatten(2).transpose(1, 2) for scale in self.settings.scales]
        keys = torch.cat([layer(vectors) for layer, vectors in zip(self.keys, pooled, strict=True)], dim=1)
        values = torch.cat([layer(vectors) for layer, vectors in zip(self.values, pooled, strict=True)], dim=1)
        attention = (self.query(own) @ keys.transpose(1, 2) * self.scale).softmax(dim=-1)
        found: Tensor = attention @ values
        return self.norm(own + found) if self.settings.residual else found

    def _pool(self, features: Tensor, coarsest: Tensor) -> Tensor:
        """Return (B, C, h, w): s x s cells, or for the pools of Table V windows of the coarsest map's sides."""
        if self.settings.pool == "adaptive_avg":
            return functional.adaptive_avg_pool2d(features, self.settings.grid)
        pool = functional.max_pool2d if self.settings.pool == "max" else functional.avg_pool2d
        return pool(features, coarsest.shape[-2:])
