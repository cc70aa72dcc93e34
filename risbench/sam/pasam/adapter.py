"""PA-SAM's prompt adapter: what it looks at, what it adds to SAM's tokens, and the points it chooses for itself.

Source: Xie et al. 2024, "PA-SAM: Prompt Adapter SAM for High-Quality Image Segmentation" (arXiv 2401.13051), sections 3.2 to 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

POINTS: Final = 4
EdgeSource = Literal["official", "pixels"]
_CANNY: Final = (10, 100)
_TINY: Final = 1.1754944e-38


def edge_map(image: Tensor, source: EdgeSource = "official") -> Tensor:
    """Return the edges (N, 1, H, W) of images (N, 3, H, W), 1 on an edge: OpenCV's Canny at 10 and 100.

    `official` takes images as SAM normalises them and casts those to bytes by truncation modulo 256, an accident that the
    published weights have learnt with; `pixels` takes 0-255.
    """
    # a float's cast to a byte is undefined below zero: by way of an integer it is the same on every machine
    whole = image.trunc().to(torch.int32) & 255 if source == "official" else image.round().clamp(0, 255)
    stacked = whole.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    edges = np.stack([cv2.Canny(np.ascontiguousarray(picture), *_CANNY) for picture in stacked])
    return torch.from_numpy(edges).to(image.device, image.dtype)[:, None] / 255


class GuidingEmbedding(nn.Sequential):
    """Image and edges as an embedding of the grid's size (PA-SAM's guiding convolution)."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv2d(4, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.Conv2d(width // 4, width, 2, stride=2),
            LayerNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
        )


def guiding_input(image: Tensor, grid: tuple[int, int], source: EdgeSource = "official", pixels: Tensor | None = None) -> Tensor:
    """Return normalised images (N, 3, H, W) at four times the grid with their edges (N, 4, 4 rows, 4 columns).

    `pixels` are the same images in 0-255, needed for the edges of source "pixels".
    """
    size = (4 * grid[0], 4 * grid[1])
    small = F.interpolate(image, size, mode="bilinear", align_corners=False)
    seen = small if source == "official" or pixels is None else F.interpolate(pixels, size, mode="bilinear", align_corners=False)
    return torch.cat([small, edge_map(seen, source)], dim=1)


@dataclass(frozen=True)
class PaMaps:
    """What the adapter thinks of every cell, each (B, 1, rows, columns).

    `uncertain` is a probability; `coarse`, `refined` and `final` are logits of the object: SAM's own, the adapter's, and the
    adapter's where it is uncertain.
    """

    uncertain: Tensor
    coarse: Tensor
    refined: Tensor
    final: Tensor


@dataclass(frozen=True)
class Adaptation:
    """What is added: to the tokens (B, T + 2k, D), to the keys (B, n, D); the tokens' new codes (B, T + 2k, D); the maps."""

    tokens: Tensor
    keys: Tensor
    codes: Tensor
    maps: PaMaps


class PromptAdapter(nn.Module):
    """Looks at the image through the guiding embedding; refines the mask token and adds points where it is uncertain."""

    def __init__(self, width: int = 256, heads: int = 8, points: int = POINTS) -> None:
        super().__init__()
        self.points = points
        self.static_uncertain_token = nn.Embedding(1, width)
        self.static_refined_token = nn.Embedding(1, width)
        self.uncertain_mlp = MLP(2 * width, width // 4, width, 3)
        self.refined_mlp = MLP(2 * width, width // 4, width, 3)
        self.cross_attn_token_to_image = Attention(width, heads, downsample_rate=2)

    def forward(
        self,
        tokens: Tensor,
        keys: Tensor,
        codes: Tensor,
        position: Tensor,
        guide: Tensor,
        point_codes: Tensor,
        grid: tuple[int, int],
        *,
        points_active: bool = True,
        gumbel: Tensor | None = None,
    ) -> Adaptation:
        """Return what to add to tokens (B, T, D) and keys (B, n, D).

        Args:
            codes: the tokens' positional codes (B, T, D).
            position: the grid's codes (1, n, D).
            guide: the guiding embedding (B, n, D).
            point_codes: SAM's embeddings of a negative and a positive point (2, D).
            grid: rows and columns, n = rows * columns.
            points_active: append 2k points; off in the first epochs of training.
            gumbel: noise (B, 2, n) for drawing points while training, for the positive and the negative; None chooses the best.
        """
        guidance = guide * keys
        added = self.cross_attn_token_to_image(q=tokens + codes, k=guidance + position, v=guidance)
        mask_token = added[:, 1]
        count = len(mask_token)
        uncertain_token = self.uncertain_mlp(torch.cat([self.static_uncertain_token.weight.expand(count, -1), mask_token], dim=1))
        refined_token = self.refined_mlp(torch.cat([self.static_refined_token.weight.expand(count, -1), mask_token], dim=1))
        uncertain = torch.sigmoid(torch.einsum("bnd,bd->bn", guidance, uncertain_token))
        refined = torch.einsum("bnd,bd->bn", guidance, refined_token)
        coarse = torch.einsum("bnd,bd->bn", guidance, mask_token)
        final = torch.where(uncertain.detach() >= 0.5, refined, coarse)
        added = torch.cat([added[:, :1], refined_token[:, None], added[:, 2:]], dim=1)
        if points_active:
            gain = uncertain * (refined.sigmoid() - coarse.sigmoid())
            for sign in (1, -1):
                noise = None if gumbel is None else gumbel[:, 0 if sign == 1 else 1]
                where, weight = sampled(sign * gain, self.points, noise)
                index = where[..., None].expand(-1, -1, keys.shape[2])
                content = torch.gather(keys + guidance, 1, index) * weight[..., None]
                code = torch.gather(position.expand(count, -1, -1), 1, index) * weight[..., None] + point_codes[1 if sign == 1 else 0]
                added, codes = torch.cat([added, content], dim=1), torch.cat([codes, code], dim=1)
        maps = PaMaps(*(values.reshape(count, 1, *grid) for values in (uncertain, coarse, refined, final)))
        return Adaptation(added, guidance, codes, maps)


def sampled(score: Tensor, count: int, gumbel: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the places (B, k) of the highest scores (B, n), in raster order, and their weights (B, k), which are 1.

    With `gumbel` noise (B, n) they are drawn by the soft top-k of Plötz and Roth (2018), and the weights carry its gradient.
    Of equal scores the first wins.
    """
    if gumbel is None:
        where = _highest(score, count)
        return where, torch.ones_like(where, dtype=score.dtype)
    level, hot, once = score + gumbel, torch.zeros_like(score), torch.zeros_like(score)
    for _ in range(count):
        level = level + torch.log((1 - once).clamp(min=_TINY))
        once = torch.softmax(level, dim=1)
        hot = hot + once
    where = _highest(hot, count)
    chosen = torch.gather(hot, 1, where)
    return where, 1 - chosen.detach() + chosen


def _highest(score: Tensor, count: int) -> Tensor:
    order = torch.argsort(score.detach(), dim=1, descending=True, stable=True)
    return order[:, :count].sort(dim=1).values
