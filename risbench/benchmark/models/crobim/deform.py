"""Multi-scale deformable attention (Zhu et al. 2021, arXiv 2010.04159, eq. 3): each query looks at a few points of every scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_CACHE_BYTES: Final = 1 << 24


class _WeightedSamples(torch.autograd.Function):
    """Values (M, C, H, W) at places (M, P, N, 2), times shares (M, P, N), added up over the P points: (M, C, N).

    Written out, what is sampled (P times as much as what comes out, at every level of every layer) would be kept for the way back,
    and on a CPU the products would run through memory three times. Here it is sampled again, a few rows at a time, which stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, shares: Tensor) -> Tensor:
        """Return the sums."""
        ctx.save_for_backward(values, places, shares)
        found = values.new_empty(values.shape[0], values.shape[1], places.shape[2])
        for rows in _rows(values, places):
            torch.sum(_sampled(values[rows], places[rows]).mul_(shares[rows].unsqueeze(1)), dim=2, out=found[rows])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of values, places and shares."""
        values, places, shares = ctx.saved_tensors
        given = gradients[0].contiguous().unsqueeze(2)
        made = torch.empty_like(values), torch.empty_like(places), torch.empty_like(shares)
        for rows in _rows(values, places):
            sampled = _sampled(values[rows], places[rows])
            torch.sum(sampled.mul_(given[rows]), dim=1, out=made[2][rows])
            torch.mul(given[rows], shares[rows].unsqueeze(1), out=sampled)
            back = torch.ops.aten.grid_sampler_2d_backward(sampled, values[rows], places[rows], 0, 0, False, [True, True])
            made[0][rows], made[1][rows] = back
        return made


def _sampled(values: Tensor, places: Tensor) -> Tensor:
    return functional.grid_sample(values, places, mode="bilinear", padding_mode="zeros", align_corners=False)


def _rows(values: Tensor, places: Tensor) -> Iterator[slice]:
    """Yield all rows at once on a GPU, and on a CPU as many as its cache may hold, at least one a thread."""
    count, size = values.shape[0], values.shape[1] * places.shape[1] * places.shape[2] * 4
    step = count if values.is_cuda else max(torch.get_num_threads(), _CACHE_BYTES // size)
    for start in range(0, count, step):
        yield slice(start, start + step)


class DeformableAttention(nn.Module):
    """Samples `points` positions a head and level at learned offsets from a reference, and adds them up with learned weights."""

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        """Make it; offsets begin as a ring of directions, 1 to `points` cells away, the weights all alike."""
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.offsets.weight)
        angles = torch.arange(heads) * (2 * math.pi / heads)
        ring = torch.stack([angles.cos(), angles.sin()], dim=-1)
        ring = ring / ring.abs().max(dim=-1, keepdim=True).values
        steps = torch.arange(1, points + 1)
        with torch.no_grad():
            self.offsets.bias.copy_((ring[:, None, None, :] * steps[None, None, :, None]).expand(heads, levels, points, 2).flatten())
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def forward(self, query: Tensor, references: Tensor, value: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return (B, Q, D) from query (B, Q, D), references (Q, 2) as (x, y) in 0-1, and value (B, N, D).

        `sizes` are (height, width) of the levels that lie behind one another in `value`.
        """
        batch, count, _ = query.shape
        offsets = self.offsets(query).view(batch, count, self.heads, self.levels, self.points, 2)
        weights = self.weights(query).view(batch, count, self.heads, -1).float().softmax(dim=-1)
        weights = weights.view(batch, count, self.heads, self.levels, self.points)
        per_head = self.value(value).view(batch, value.shape[1], self.heads, -1)
        found: Tensor | None = None
        first = 0
        for level, (height, width) in enumerate(sizes):
            part = per_head[:, first : first + height * width].permute(0, 2, 3, 1).reshape(batch * self.heads, -1, height, width)
            first += height * width
            cells = offsets.new_tensor([width, height])
            places = references[None, :, None, None, :] + offsets[:, :, :, level] / cells
            # points before queries: then sums over points run along contiguous queries
            grid = (2 * places.float() - 1).permute(0, 2, 3, 1, 4).flatten(0, 1).contiguous()
            # in 32 bits: a bfloat16 cannot tell neighbouring cells of a fine level apart
            share = weights[:, :, :, level].permute(0, 2, 3, 1).flatten(0, 1).contiguous()
            added: Tensor = _WeightedSamples.apply(part.float().contiguous(), grid, share)
            found = added if found is None else found + added
        assert found is not None, "there is a level"
        together = found.view(batch, self.heads, -1, count).permute(0, 3, 1, 2).flatten(2)
        result: Tensor = self.out(together.to(query.dtype))
        return result


def reference_points(sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Return the centres (N, 2) of all cells of all levels as (x, y) in 0-1."""
    made = []
    for height, width in sizes:
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) / height, (torch.arange(width, device=device) + 0.5) / width, indexing="ij"
        )
        made.append(torch.stack([x.flatten(), y.flatten()], dim=-1))
    return torch.cat(made)
