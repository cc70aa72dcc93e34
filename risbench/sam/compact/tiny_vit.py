"""MobileSAM's image encoder: TinyViT-5M (Wu et al. 2022) under SAM's neck, with the names and shapes of MobileSAM's file.

Zhang et al. 2023, "Faster Segment Anything". The last stage keeps its resolution, so that the grid is S/16 as for SAM;
`norm_head` and `head` are carried by the file and never used.
"""

from __future__ import annotations

from itertools import product
from typing import Final

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

WIDTHS: Final = (64, 128, 160, 320)
DEPTHS: Final = (2, 2, 6, 2)
HEADS: Final = (2, 4, 5, 10)
WINDOWS: Final = (7, 7, 14, 7)
_EXPANSION: Final = 4
_CLASSES: Final = 1000


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch norm, named `c` and `bn` as in the file."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outside))


class PatchEmbed(nn.Module):
    """Two strided convolutions: (B, 3, S, S) to (B, C, S/4, S/4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, width // 2, 3, 2), nn.GELU(), ConvNorm(width // 2, width, 3, 2))

    def forward(self, image: Tensor) -> Tensor:
        """Return the embedded image."""
        embedded: Tensor = self.seq(image)
        return embedded


class InvertedResidual(nn.Module):
    """MobileNet's block: widen, convolve by channel, narrow, short cut, GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * _EXPANSION
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) from (B, C, H, W)."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Downsample(nn.Module):
    """Change the width, and halve the resolution where `stride` is 2."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inside, outside)
        self.conv2 = ConvNorm(outside, outside, 3, stride, groups=outside)
        self.conv3 = ConvNorm(outside, outside)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W') from (B, C, H, W)."""
        y: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return y


class WindowAttention(nn.Module):
    """Attention within a window whose biases depend on the absolute offset between two cells."""

    offsets: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        cells = list(product(range(window), range(window)))
        seen: dict[tuple[int, int], int] = {}
        index = [seen.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(seen)) for a in cells for b in cells]
        self.attention_biases = nn.Parameter(torch.zeros(heads, len(seen)))
        self.register_buffer("offsets", torch.tensor(index).view(len(cells), len(cells)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, cells, C) from (n, cells, C)."""
        count, cells, width = x.shape
        # The file lays out q, k and v head by head.
        q, k, v = self.qkv(self.norm(x)).view(count, cells, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.offsets].to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, cells, width))
        return out


class FeedForward(nn.Module):
    """Layer norm, widen four times, GELU, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C) from (..., C)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return y


class WindowBlock(nn.Module):
    """Window attention, a convolution by channel, a feed-forward net."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) from (B, C, H, W)."""
        batch, width, high, wide = x.shape
        side = self.window
        down, right = -high % side, -wide % side
        cells = F.pad(x, (0, right, 0, down))
        rows, columns = (high + down) // side, (wide + right) // side
        windows = cells.view(batch, width, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, width)
        mixed = self.attn(windows).view(batch, rows, columns, side, side, width).permute(0, 5, 1, 3, 2, 4)
        x = x + mixed.reshape(batch, width, high + down, wide + right)[:, :, :high, :wide]
        x = self.local_conv(x)
        y: Tensor = x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


class Stage(nn.Module):
    """Blocks of one width, then the step to the next."""

    def __init__(self, level: int) -> None:
        super().__init__()
        width, last = WIDTHS[level], level == len(WIDTHS) - 1
        if level == 0:
            blocks: list[nn.Module] = [InvertedResidual(width) for _ in range(DEPTHS[level])]
        else:
            blocks = [WindowBlock(width, HEADS[level], WINDOWS[level]) for _ in range(DEPTHS[level])]
        self.blocks = nn.ModuleList(blocks)
        self.downsample = None if last else Downsample(width, WIDTHS[level + 1], 1 if level == len(WIDTHS) - 2 else 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H', W') from (B, C, H, W)."""
        for block in self.blocks:
            x = block(x)
        y: Tensor = x if self.downsample is None else self.downsample(x)
        return y


class TinyViT(nn.Module):
    """MobileSAM's encoder: (B, 3, S, S) to (B, 256, S/16, S/16)."""

    def __init__(self, img_size: int = 1024, out_chans: int = 256) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_embed = PatchEmbed(WIDTHS[0])
        self.layers = nn.ModuleList(Stage(level) for level in range(len(WIDTHS)))
        self.norm_head = nn.LayerNorm(WIDTHS[-1])
        self.head = nn.Linear(WIDTHS[-1], _CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the embedding (B, 256, S/16, S/16) of a normalised image (B, 3, S, S)."""
        x = self.patch_embed(image)
        for layer in self.layers:
            x = layer(x)
        embedding: Tensor = self.neck(x)
        return embedding
