"""LGFA, language-guided feature aggregation with attention-deficit compensation (Section IV-B, eqs. 3 to 13).

The text swaps l_m and D_l in equations 3 to 6; they hold when l_m is the width of the channels and D_l the number of words, and then they
are LAVT's attention (docs/decisions/0012).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from risbench.benchmark.models.crobim.attention import Attention
from risbench.benchmark.settings import LgfaSettings


class ScaleAttention(nn.Module):
    """One scale's attention from pixels to words, and the gate it is for the pixels (eqs. 3 to 7)."""

    def __init__(self, settings: LgfaSettings, channels: int, text_width: int) -> None:
        """Make it for a map of `channels` and words of `text_width`."""
        super().__init__()
        self.settings = settings
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Linear(text_width, channels)
        self.value = nn.Linear(text_width, channels)
        self.gate = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        norms: list[nn.Module] = [nn.InstanceNorm2d(channels) if settings.norm == "instance" else nn.Identity() for _ in range(2)]
        self.norm, self.found_norm = norms

    def forward(self, features: Tensor, words: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return V_l (B, C, H, W), A (B, words, H, W) and S, its logits, from V (B, C, H, W), L (B, words, width), valid (B, words)."""
        height, width = features.shape[-2:]
        query = self.norm(self.query(features)).flatten(2).transpose(1, 2)  # eq. 3
        keys, values = self.key(words), self.value(words)  # eq. 4
        score = query @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5  # eq. 5, and the root in eq. 6
        attention = score.masked_fill(~valid[:, None, :], -1e4).softmax(dim=-1)
        attended = (attention @ values).transpose(1, 2).unflatten(2, (height, width))
        gated = self.out(functional.gelu(self.gate(self.found_norm(attended)))) * features  # eqs. 6 and 7
        if self.settings.residual:
            gated = features + gated
        maps = [tokens.transpose(1, 2).unflatten(2, (height, width)) for tokens in (attention, score)]
        return gated, maps[0], maps[1]


class DeficitCompensation(nn.Module):
    """Lets the scales speak with one another where their attention disagrees most (eqs. 8 to 13)."""

    def __init__(self, settings: LgfaSettings, channels: Sequence[int]) -> None:
        """Make it for maps of `channels`, finest first. Added back, its last projection begins at zero: it starts as identity."""
        super().__init__()
        self.settings = settings
        self.stages = [stage - 1 for stage in settings.deficit_stages]
        width = settings.width
        self.into = nn.ModuleList(nn.Linear(channels[stage], width) for stage in self.stages)
        self.back = nn.ModuleList(nn.Linear(width, channels[stage]) for stage in self.stages)
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, settings.heads)
        if settings.write_back == "add":
            for layer in self.back:
                assert isinstance(layer, nn.Linear), "it was made so above"
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], deficit: Tensor) -> list[Tensor]:
        """Return the maps (B, C_i, H_i, W_i) compensated in the K cells where `deficit` (B, H_4, W_4) is highest."""
        rows, columns = deficit.shape[-2:]
        chosen = deficit.flatten(1).topk(min(self.settings.regions, rows * columns), dim=1).indices  # eq. 10
        crops = [_regions(maps[stage], rows, columns) for stage in self.stages]
        taken = [crop.gather(1, chosen[:, :, None, None].expand(-1, -1, *crop.shape[2:])) for crop in crops]
        tokens = [layer(crop) for layer, crop in zip(self.into, taken, strict=True)]  # eq. 11
        if self.settings.region_tokens == "pooled":
            tokens = [token.mean(dim=2, keepdim=True) for token in tokens]
        sequence = torch.cat(tokens, dim=2)
        flat = sequence.flatten(0, 1)
        normed = self.norm(flat)
        mixed = (flat + self.attention(normed, normed, normed)).unflatten(0, sequence.shape[:2])  # eq. 12
        result = list(maps)
        parts = mixed.split([token.shape[2] for token in tokens], dim=2)  # eq. 13
        for stage, layer, part, old, crop in zip(self.stages, self.back, parts, taken, crops, strict=True):
            new = layer(part).expand_as(old).to(old.dtype)
            if self.settings.write_back == "add":
                new = old + new
            written = crop.scatter(1, chosen[:, :, None, None].expand_as(new), new)
            result[stage] = _joined(written, rows, columns)
        return result


def attention_deficit(attentions: Sequence[Tensor], valid: Tensor, resample: str = "area") -> Tensor:
    """Return how much neighbouring scales' attention differs (B, H_4, W_4), over all words (eqs. 8 and 9).

    `attentions` are (B, words, H_i, W_i), finest first; `valid` (B, words) leaves padding out. It carries no gradient: it only chooses.
    """
    size = (attentions[-1].shape[-2], attentions[-1].shape[-1])
    with torch.no_grad():
        alike = [
            functional.adaptive_avg_pool2d(maps.float(), size)
            if resample == "area"
            else functional.interpolate(maps.float(), size, mode="bilinear", align_corners=False)
            for maps in attentions
        ]
        weights = valid[:, :, None, None].float()
        return sum(((a - b).abs() * weights).sum(dim=1) for a, b in itertools.pairwise(alike))  # type: ignore[return-value]


class LanguageGuidedAggregation(nn.Module):
    """The four scales' attentions, and the compensation between them."""

    def __init__(self, settings: LgfaSettings, channels: Sequence[int], text_width: int) -> None:
        """Make it for maps of `channels`, finest first, and words of `text_width`."""
        super().__init__()
        self.settings = settings
        self.scales = nn.ModuleList(ScaleAttention(settings, count, text_width) for count in channels)
        self.compensation = DeficitCompensation(settings, channels) if settings.deficit_stages else None

    def forward(self, maps: Sequence[Tensor], words: Tensor, valid: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return V_l (B, C_i, H_i, W_i) and the attention maps (B, words, H_i, W_i) of every scale.

        From maps (B, C_i, H_i, W_i) whose sides are 8, 4, 2 and 1 times the coarsest's, words (B, words, width) and valid (B, words).
        """
        found = [scale(features, words, valid) for scale, features in zip(self.scales, maps, strict=True)]
        gated, attentions = [item[0] for item in found], [item[1] for item in found]
        if self.compensation is not None:
            compared = attentions if self.settings.deficit == "attention" else [item[2] for item in found]
            gated = self.compensation(gated, attention_deficit(compared, valid, self.settings.resample))
        return gated, attentions


def _regions(features: Tensor, rows: int, columns: int) -> Tensor:
    """Return (B, rows x columns, pixels of a cell, C) of (B, C, H, W)."""
    batch, channels, height, width = features.shape
    cells = features.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1, channels)


def _joined(regions: Tensor, rows: int, columns: int) -> Tensor:
    """Undo `_regions`; a cell is as many pixels high as it is wide."""
    batch, _, pixels, channels = regions.shape
    side = round(pixels**0.5)
    cells = regions.reshape(batch, rows, columns, side, side, channels).permute(0, 5, 1, 3, 2, 4)
    return cells.reshape(batch, channels, rows * side, columns * side)
