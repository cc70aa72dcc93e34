"""MID, the mutual-interaction decoder (Section IV-C, eqs. 14 to 17)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from risbench.benchmark.models.crobim.attention import Attention
from risbench.benchmark.models.crobim.deform import DeformableAttention, reference_points
from risbench.benchmark.settings import MidSettings


class _Residual(nn.Module):
    """A sub-layer's sum and norm, which follow every one of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, before: Tensor, update: Tensor) -> Tensor:
        result: Tensor = self.norm(before + update)
        return result


def _feed_forward(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width))


class MutualLayer(nn.Module):
    """One layer: words look at pixels and at one another, then pixels at words and at points around them (eqs. 15 and 16).

    Table VII's attentions: `cbam` is the paper's cascade; `pwam` never updates the words and multiplies pixels by what they found;
    `wpa` updates both sides at once from one similarity matrix of the previous layer's features.
    """

    def __init__(self, settings: MidSettings) -> None:
        """Make one layer."""
        super().__init__()
        self.kind = settings.attention
        width, heads = settings.width, settings.heads
        self.deform = DeformableAttention(width, heads, len(settings.levels), settings.points)
        self.pixel_ffn = _feed_forward(width, settings.ffn)
        self.pixel_norms = nn.ModuleList(_Residual(width) for _ in range(3))
        if self.kind == "pwam":
            self.pixel_cross = Attention(width, heads)
            self.multiplied, self.mixed = nn.Linear(width, width), nn.Linear(width, width)
            return
        self.word_self = Attention(width, heads)
        self.word_ffn = _feed_forward(width, settings.ffn)
        self.word_norms = nn.ModuleList(_Residual(width) for _ in range(3))
        if self.kind == "wpa":
            self.similar = nn.Linear(width, width, bias=False)
            self.word_value, self.pixel_value = nn.Linear(width, width), nn.Linear(width, width)
            self.word_out, self.pixel_out = nn.Linear(width, width), nn.Linear(width, width)
            return
        self.word_cross, self.pixel_cross = Attention(width, heads), Attention(width, heads)

    def forward(
        self, pixels: Tensor, words: Tensor, places: Tensor, valid: Tensor, references: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Return pixels (B, N, D) and words (B, L, D) after this layer.

        `places` (N, D) is added where pixels are asked or answer by position, `valid` (B, L) is false for padding.
        """
        if self.kind == "cbam":
            words = self.word_norms[0](words, self.word_cross(words, pixels + places, pixels))  # eq. 15
            words = self._among_words(words, valid)
            pixels = self.pixel_norms[0](pixels, self.pixel_cross(pixels + places, words, words, valid))  # eq. 16
        elif self.kind == "pwam":
            found = self.pixel_cross(pixels + places, words, words, valid)
            pixels = self.pixel_norms[0](pixels, self.mixed(self.multiplied(pixels) * found))
        else:
            pixels, words = self._both_at_once(pixels, words, places, valid)
            words = self._among_words(words, valid)
        pixels = self.pixel_norms[1](pixels, self.deform(pixels + places, references, pixels, sizes))
        pixels = self.pixel_norms[2](pixels, self.pixel_ffn(pixels))
        return pixels, words

    def _among_words(self, words: Tensor, valid: Tensor) -> Tensor:
        words = self.word_norms[1](words, self.word_self(words, words, words, valid))
        result: Tensor = self.word_norms[2](words, self.word_ffn(words))
        return result

    def _both_at_once(self, pixels: Tensor, words: Tensor, places: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        matrix = self.similar(pixels + places) @ words.transpose(1, 2) * words.shape[-1] ** -0.5
        to_pixels = matrix.masked_fill(~valid[:, None, :], -1e4).softmax(dim=2) @ self.word_value(words)
        to_words = matrix.transpose(1, 2).softmax(dim=2) @ self.pixel_value(pixels)
        return self.pixel_norms[0](pixels, self.pixel_out(to_pixels)), self.word_norms[0](words, self.word_out(to_words))


class MutualInteractionDecoder(nn.Module):
    """From the aggregated maps and the prompted text to the logits of a mask."""

    def __init__(self, settings: MidSettings, channels: Sequence[int], text_width: int) -> None:
        """Make it for maps of `channels`, finest first, and text of `text_width`."""
        super().__init__()
        self.settings = settings
        width = settings.width
        groups = math.gcd(32, width)
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[level - 1], width, 1), nn.GroupNorm(groups, width)) for level in settings.levels
        )
        self.text = nn.Linear(text_width, width)
        self.text_norm = nn.LayerNorm(width)
        self.level_codes = nn.Parameter(torch.randn(len(settings.levels), width) * 0.02)
        self.layers = nn.ModuleList(MutualLayer(settings) for _ in range(settings.layers))
        self.out = nn.Conv2d(width, width, 1)
        finer = [level for level in range(1, 5) if level not in settings.levels] if settings.pyramid else []
        self.finer = sorted(finer, reverse=True)
        # normed as the levels before: gated maps begin so small that the finest would hardly be heard
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[level - 1], width, 1), nn.GroupNorm(groups, width)) for level in self.finer
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(groups, width), nn.ReLU()) for _ in self.finer
        )
        self.scale = width**-0.5 if settings.scale_logits else 1.0

    def forward(self, maps: Sequence[Tensor], text: Tensor, valid: Tensor) -> Tensor:
        """Return mask logits (B, 1, H_1, W_1) from maps (B, C_i, H_i, W_i), text (B, L, width) and valid (B, L)."""
        chosen = [maps[level - 1] for level in self.settings.levels]
        projected = [layer(features) for layer, features in zip(self.project, chosen, strict=True)]
        sizes = [(features.shape[2], features.shape[3]) for features in projected]
        pixels = first = torch.cat([features.flatten(2).transpose(1, 2) for features in projected], dim=1)  # eq. 14
        words = self.text_norm(self.text(text))
        device = pixels.device
        codes = [sine_code(*size, self.settings.width, device) + code for size, code in zip(sizes, self.level_codes, strict=True)]
        places, references = torch.cat(codes), reference_points(sizes, device)
        for layer in self.layers:
            given = (pixels, words, places, valid, references, sizes)
            pixels, words = checkpoint(layer, *given, use_reentrant=False) if self._frugal() else layer(*given)
        both = pixels + first
        split = torch.split(both, [height * width for height, width in sizes], dim=1)
        refined = [part.transpose(1, 2).reshape(part.shape[0], -1, *size) for part, size in zip(split, sizes, strict=True)]
        embedding = self._embedded(refined, maps)
        return torch.einsum("bdhw,bd->bhw", embedding, words[:, 0])[:, None] * self.scale  # eq. 17; word 0 is [CLS]

    def _frugal(self) -> bool:
        return self.settings.checkpoint and torch.is_grad_enabled()

    def _embedded(self, refined: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """Return V_out (B, D, H_1, W_1): the levels, mapped alike, at the finest one's size and added up."""
        target = maps[0].shape[-2:]
        if self.finer:
            top = refined[0]
            for level, lateral, smooth in zip(self.finer, self.lateral, self.smooth, strict=True):
                fine = lateral(maps[level - 1])
                top = smooth(fine + _resized(top, fine.shape[-2:]))
            embedded: Tensor = self.out(top)
            return embedded
        total = self.out(refined[0]) if refined[0].shape[-2:] == target else _resized(self.out(refined[0]), target)
        for features in refined[1:]:
            total = total + _resized(self.out(features), target)
        result: Tensor = total
        return result


def _resized(features: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(features, tuple(size), mode="bilinear", align_corners=False)


def sine_code(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return the position code (height x width, channels) of DETR (arXiv 2005.12872): sines of y, then of x, over the whole side."""
    half = channels // 2
    periods = 10000 ** (2 * (torch.arange(half, device=device) // 2) / half)
    codes = []
    for count in (height, width):
        place = (torch.arange(count, device=device) + 1) / count * 2 * math.pi
        angles = place[:, None] / periods
        codes.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1))
    y, x = codes[0][:, None].expand(height, width, half), codes[1][None].expand(height, width, half)
    return torch.cat([y, x], dim=2).flatten(0, 1)
