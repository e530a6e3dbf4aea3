"""Causal softmax attention in which each token sees the last `window` tokens, itself included (Longformer, arXiv
2004.05150, section 3.1).

q (B, H, L, D); k and v (B, G, L, D), H a multiple of G (grouped heads). Every form returns (B, H, L, D).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def reference(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """The definition: scores of all pairs, those outside the window left out of the softmax."""
    steps = torch.arange(q.shape[2], device=q.device)
    distance = steps[:, None] - steps
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = (q @ k.mT * scale).masked_fill((distance < 0) | (distance >= window), -torch.inf)
    return scores.softmax(-1) @ v


def sliding_window(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """By blocks of `window` tokens that see themselves and the block before: L times 2 `window` scores, not L^2."""
    batch, length = q.shape[0], q.shape[2]
    count = -(-length // window)
    q, k, v = (F.pad(t, (0, 0, 0, count * window - length)).unflatten(2, (count, window)) for t in (q, k, v))
    k, v = (torch.cat([F.pad(t, (0, 0, 0, 0, 1, 0))[:, :, :-1], t], dim=3) for t in (k, v))
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))  # (B blocks, heads, window or 2 window, D)
    mask = _mask(count, window, q.device).repeat(batch, 1, 1)[:, None]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=k.shape[1] != q.shape[1])
    return y.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)[:, :, :length]


def _mask(count: int, window: int, device: torch.device) -> Tensor:
    """(blocks, window, 2 window) True where a query may look; nothing stands before the first block."""
    queries = torch.arange(window, device=device)[:, None]
    keys = torch.arange(-window, window, device=device)
    inside = (keys <= queries) & (keys > queries - window)
    blocks = torch.arange(count, device=device)[:, None, None]
    return inside & ((blocks > 0) | (keys >= 0))
