"""SAM's image encoder of the same weights, in another precision and with its attention as one fused call.

Source of what is computed: segment-anything's `image_encoder.py` (Kirillov et al. 2023; relative positions as in MViTv2). Windows
differ in one respect only: keys and values are made before the image is cut into windows, not for the padding again and again.
"""

from __future__ import annotations

from typing import Final

import torch
from segment_anything.modeling.image_encoder import Attention, Block, ImageEncoderViT, get_rel_pos, window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

# What the relative positions of the heads that are attended to together may take; a whole layer's take 400 MB in bf16.
_BIAS_BYTES: Final = 1 << 27


def with_bias(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return attention (B, heads, N, C) with a bias for every row and every column of the keys' grid; the CPU's way.

    The bias is written out, for as many heads at a time as fit into 128 MiB.

    Args:
        q, k, v: (B, heads, N, C), N = H W.
        rows: (B, heads, N, H), what is added to the logits of a query with the keys of each row.
        columns: (B, heads, N, W), the same by column.
    """
    batch, heads, count, _ = q.shape
    at_once = max(1, _BIAS_BYTES // (batch * count * count * q.element_size()))
    parts = []
    for start in range(0, heads, at_once):
        part = slice(start, start + at_once)
        bias = (rows[:, part, :, :, None] + columns[:, part, :, None, :]).flatten(3)
        parts.append(F.scaled_dot_product_attention(q[:, part], k[:, part], v[:, part], attn_mask=bias))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def folded(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, places: Tensor) -> Tensor:
    """Return the same with the bias folded into longer queries and keys, which leaves attention without one; the GPU's way.

    [q / sqrt(C), rows, columns] . [k, one-hot row, one-hot column] is the biased logit exactly; no N x N bias is ever written.

    Args:
        q, k, v, rows, columns: as in `with_bias`.
        places: every key's row and column, one-hot (N, H + W).
    """
    width = q.shape[-1]
    # FlashAttention's kernels want heads of a multiple of 8 and one size for all three
    beyond = -(width + places.shape[1]) % 8
    batch, heads, count, _ = q.shape
    longer = F.pad(torch.cat([q * width**-0.5, rows, columns], dim=-1), (0, beyond))
    keys = F.pad(torch.cat([k, places.expand(batch, heads, count, -1)], dim=-1), (0, beyond))
    values = F.pad(v, (0, longer.shape[-1] - width))
    return F.scaled_dot_product_attention(longer, keys, values, scale=1.0)[..., :width]


class FusedAttention(nn.Module):
    """SAM's attention with decomposed relative positions, over a whole grid or over windows of it."""

    rel_h: Tensor
    rel_w: Tensor
    places: Tensor

    def __init__(self, source: Attention, window: int, grid: int, dtype: torch.dtype) -> None:
        """Take segment-anything's attention; `window` is 0 for the whole `grid` (tokens a side)."""
        super().__init__()
        self.window, self.heads = window, int(source.num_heads)
        self.qkv, self.proj = source.qkv.to(dtype), source.proj.to(dtype)
        side = window or grid
        for name, table in (("rel_h", source.rel_pos_h), ("rel_w", source.rel_pos_w)):
            self.register_buffer(name, get_rel_pos(side, side, table.detach()).to(dtype), persistent=False)
        index = torch.arange(side * side)
        places = torch.zeros(side * side, 2 * side, dtype=dtype)
        places[index, index // side] = places[index, side + index % side] = 1
        self.register_buffer("places", places.to(source.qkv.weight.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, H, W, C) from (B, H, W, C)."""
        height, width = x.shape[1:3]
        if not self.window:
            whole: Tensor = self.proj(self._attended(self.qkv(x)))
            return whole
        # padding comes after the layer norm, so that its queries, keys and values are the bias alone
        qkv, padded = window_partition(F.linear(x, self.qkv.weight), self.window)
        attended = self._attended(qkv if self.qkv.bias is None else qkv + self.qkv.bias)
        found: Tensor = self.proj(window_unpartition(attended, self.window, padded, (height, width)))
        return found

    def _attended(self, qkv: Tensor) -> Tensor:
        """Return (B, H, W, C) from queries, keys and values (B, H, W, 3 C)."""
        batch, height, width, _ = qkv.shape
        q, k, v = qkv.reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        grid = q.reshape(batch, self.heads, height, width, -1)
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, self.rel_h).flatten(2, 3)
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, self.rel_w).flatten(2, 3)
        # measured on two cores: in bf16 both take the same time over a whole grid, and only one writes 400 MB; else the bias is faster
        written = q.device.type == "cpu" and (bool(self.window) or q.dtype == torch.float32)
        found = with_bias(q, k, v, rows, columns) if written else folded(q, k, v, rows, columns, self.places)
        return found.transpose(1, 2).reshape(batch, height, width, -1)


class FusedBlock(nn.Module):
    """A transformer block; the sum that runs through all blocks stays in float32."""

    def __init__(self, source: Block, grid: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2 = source.norm1, source.norm2
        self.attn = FusedAttention(source.attn, int(source.window_size), grid, dtype)
        self.mlp = source.mlp.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, H, W, C) from (B, H, W, C), float32."""
        x = x + self.attn(self.norm1(x).to(self.dtype))
        found: Tensor = x + self.mlp(self.norm2(x).to(self.dtype))
        return found


class FusedEncoder(nn.Module):
    """SAM's plain transformer encoder; it takes the parts of segment-anything's over, which is not to be used afterwards."""

    def __init__(self, source: ImageEncoderViT, dtype: torch.dtype) -> None:
        """Take an encoder whose weights are loaded; matrix products are done in `dtype`."""
        super().__init__()
        self.img_size, self.dtype = int(source.img_size), dtype
        self.patch_embed, self.pos_embed = source.patch_embed.to(dtype), source.pos_embed
        grid = int(source.pos_embed.shape[1])
        self.blocks = nn.ModuleList(FusedBlock(block, grid, dtype) for block in source.blocks)
        self.neck = source.neck

    def forward(self, image: Tensor) -> Tensor:
        """Return the embedding (B, 256, S/16, S/16), float32, of normalised images (B, 3, S, S)."""
        x = self.patch_embed(image.to(self.dtype)).float().contiguous() + self.pos_embed
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return found


class AutocastEncoder(nn.Module):
    """Any other encoder, its matrix products in bf16."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.img_size, self.source = source.img_size, source

    def forward(self, image: Tensor) -> Tensor:
        """Return the embedding, float32, of normalised images (B, 3, S, S)."""
        with torch.autocast(image.device.type, torch.bfloat16):
            found: Tensor = self.source(image)
        return found.float()


def fused(encoder: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return an image encoder of the SAM family in `dtype`: the plain transformer with fused attention, others by autocast."""
    if isinstance(encoder, ImageEncoderViT) and encoder.pos_embed is not None and all(block.attn.use_rel_pos for block in encoder.blocks):
        return FusedEncoder(encoder, dtype).eval()
    return AutocastEncoder(encoder).eval() if dtype == torch.bfloat16 else encoder
