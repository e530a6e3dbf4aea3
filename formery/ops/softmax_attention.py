"""Softmax attention as torch has it, by products and a softmax of their own where those are faster.

torch's fused attention for CPUs works in float32 inside, whatever comes in. For bfloat16 its products are therefore no
faster than float32's, while oneDNN's are: for inputs as short as images are, scores of all pairs fit the cache, and
products, softmax and product take 0.55 to 0.9 of the fused form's time (two threads of an AMD EPYC, torch 2.13; batch,
tokens, heads, channels a head):

    8 x 197, 6 x 64      4.7 ms fused, 2.6 ms          512 x 49, 3 x 32, with bias      11.9 ms fused, 8.9 ms
    1 x 197, 6 x 64      0.54 ms fused, 0.35 ms        1568 x 16, 4 x 6                  9.7 ms fused, 5.7 ms

In float32 the fused form is as fast or faster, unless values have another width than keys: for those torch has no fused
form on CPUs, and products take half to three quarters of what it does (49 queries, 8 heads, keys of 32 and values of
128 channels: 0.13 against 0.20 ms for one image, 1.2 against 2.1 for eight; one thread).

Scores are rounded to the inputs' dtype before the softmax, which itself sums in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .forms import plain

FEW, SHORT = 8, 512
"""Queries from which on, and queries and keys up to which, scores of all pairs are made."""


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T scale + mask) v for q (B, H, N, D), k (B, H, M, D), v (B, H, M, E), to (B, H, N, E).

    `mask` is added to the scores (B, H, N, M), over which its shape spreads.
    """
    scores = q @ k.mT * scale
    return (scores if mask is None else scores + mask).softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """torch's; a mask of booleans says where to look."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Products over matrices that lie one after another in memory."""
    (batch, heads, length, _), keys = q.shape, k.shape[2]
    q, k, v = (t.reshape(batch * heads, t.shape[2], t.shape[3]) for t in (q, k, v))
    scores = torch.bmm(q * scale, k.mT)
    if mask is not None:
        scores.view(batch, heads, length, keys).add_(mask)
    return torch.bmm(torch.softmax(scores, -1), v).unflatten(0, (batch, heads))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The faster one. What gradients pass, or somebody watches, goes to torch's."""
    if not plain(q) or (q.dtype is not torch.bfloat16 and q.shape[-1] == v.shape[-1]):
        return fused(q, k, v, mask, scale)
    (_, heads, length, _), keys = q.shape, k.shape[2]
    fits = FEW <= length <= SHORT and 0 < keys <= SHORT and heads == k.shape[1]
    adds = mask is None or mask.is_floating_point()
    return (by_products if fits and adds and len(q) else fused)(q, k, v, mask, scale)
