"""LAVT-style: words enter between the stages of the image encoder (Yang et al. 2022, arXiv 2112.02244), from its mathematics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SwinBackbone

from risbench.benchmark.models.backbones import STRIDE, Backbone, shared
from risbench.benchmark.models.text import TextEncoder
from risbench.benchmark.settings import Settings


class PixelWordAttention(nn.Module):
    """What every pixel finds among the words, times the pixel (LAVT, eqs. 1 to 6)."""

    def __init__(self, channels: int, text_width: int) -> None:
        """Make it for maps of `channels` and words of `text_width`."""
        super().__init__()
        self.pixel = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())
        self.query = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.InstanceNorm2d(channels))
        self.key, self.value = nn.Linear(text_width, channels), nn.Linear(text_width, channels)
        self.found = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.InstanceNorm2d(channels))
        self.out = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU())

    def forward(self, features: Tensor, words: Tensor, valid: Tensor) -> Tensor:
        """Return (B, C, H, W) from a map (B, C, H, W), words (B, L, width) and valid (B, L)."""
        query = self.query(features).flatten(2).transpose(1, 2)
        attended = functional.scaled_dot_product_attention(query, self.key(words), self.value(words), attn_mask=valid[:, None, :])
        found = self.found(attended.transpose(1, 2).reshape(features.shape))
        result: Tensor = self.out(self.pixel(features) * found)
        return result


class Lavt(nn.Module):
    """Swin with words between its stages, and a decoder of convolutions from coarse to fine."""

    def __init__(self, settings: Settings, vocabulary: int) -> None:
        """Build it for `vocabulary` word pieces.

        Raises:
            MissingRequirementError, InputError: named weights cannot be had or used.
        """
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone, settings.side)
        assert isinstance(self.backbone.net, SwinBackbone), "settings of another kind are refused where they are read"
        self.text = TextEncoder(settings.text, vocabulary)
        channels = self.backbone.channels
        self.attentions = nn.ModuleList(PixelWordAttention(count, self.text.width) for count in channels)
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(count, count, bias=False), nn.ReLU(), nn.Linear(count, count, bias=False), nn.Tanh())
            for count in channels
        )
        width = settings.lavt.width or channels[-1] // 2
        below = [channels[-1], width, width]
        self.levels = nn.ModuleList(
            nn.Sequential(*_convolution(above + count, width), *_convolution(width, width))
            for above, count in zip(below, reversed(channels[:-1]), strict=True)
        )
        self.out = nn.Conv2d(width, 2, 1)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return what needs no sentence: the padded image alone (1 entry), as words enter in the first stage."""
        height, width = image.shape[-2:]
        return [functional.pad(image, (0, -width % STRIDE, 0, -height % STRIDE))]

    def decode(self, maps: list[Tensor], tokens: Tensor, valid: Tensor) -> Tensor:
        """Return mask logits (B, 1, H / 4, W / 4): of two classes' logits the object's less the background's."""
        words = self.text(tokens, valid)
        features = self._features(maps[0], words, valid)
        top = features[-1]
        for level, fine in zip(self.levels, reversed(features[:-1]), strict=True):
            raised = functional.interpolate(top, fine.shape[-2:], mode="bilinear", align_corners=True)
            top = level(torch.cat([raised, fine], dim=1))
        background, thing = self.out(top).split(1, dim=1)
        result: Tensor = thing - background
        return result

    def forward(self, image: Tensor, tokens: Tensor, valid: Tensor, image_of: Tensor | None = None) -> Tensor:
        """Return mask logits (B, 1, H / 4, W / 4), rounded up, from a normalised image (B, 3, H, W) and token ids (B, L).

        Where sentences share images (U, 3, H, W), `image_of` (B,) says which is whose.
        """
        logits = self.decode(shared(self.encode(image), image_of), tokens, valid)
        return logits[:, :, : -(-image.shape[2] // 4), : -(-image.shape[3] // 4)]

    def _features(self, image: Tensor, words: Tensor, valid: Tensor) -> list[Tensor]:
        net = self.backbone.net
        hidden, size = net.swin.embeddings(image)
        found = []
        for number, stage in enumerate(net.swin.encoder.layers):
            for block in stage.blocks:
                hidden = block(hidden, size, always_partition=True)[0]
            normed = net.hidden_states_norms[f"stage{number + 1}"](hidden).transpose(1, 2).unflatten(2, tuple(size))
            product = self.attentions[number](normed, words, valid)
            found.append(product)
            flat = product.flatten(2).transpose(1, 2)
            hidden = hidden + self.gates[number](flat) * flat
            if stage.downsample is not None:
                hidden = stage.downsample(hidden, size)
                size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        return found


def _convolution(before: int, after: int) -> Sequence[nn.Module]:
    return nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
