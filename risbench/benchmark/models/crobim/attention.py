"""Attention with several heads, as the modules of CroBIM share it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Scaled dot-product attention with four projections of one width."""

    def __init__(self, width: int, heads: int) -> None:
        """Make it for tokens of `width` channels; `heads` divides them."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return (B, Q, D) from query (B, Q, D), key and value (B, K, D); `valid` (B, K) is true for keys that may be attended to."""
        mask = None if valid is None else valid[:, None, None, :]
        queries, keys, values = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        if queries.is_cuda:
            found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        else:
            # one side is a sentence, so the matrix is small, and on CPUs its plain products beat the fused kernel's way back four times
            logits = queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5
            found = (logits if mask is None else logits.masked_fill(~mask, float("-inf"))).softmax(dim=-1).to(values.dtype) @ values
        merged: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return merged

    def _split(self, tokens: Tensor) -> Tensor:
        """Return (B, heads, N, D / heads) of (B, N, D)."""
        batch, count, _ = tokens.shape
        return tokens.view(batch, count, self.heads, -1).transpose(1, 2)
