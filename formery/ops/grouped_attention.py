"""Softmax attention inside groups of tokens, with a bias for each head and pair and a mask for each group.

q, k and v (B G, H, N, D) of B items with G groups each; bias (H, N, N) or None; mask (G, 1, N, N), added, or None.
Every form returns (B G, H, N, D). Of 49 tokens and 32 channels a head torch's fused form takes two thirds of the time
of products and softmax on one thread, and as long on two (64 and 512 groups, float32, AMD EPYC, torch 2.13); in
bfloat16 products are faster, as `softmax_attention` knows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .softmax_attention import softmax_attention
from .token_groups import Arrangement


def reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None, scale: float) -> Tensor:
    """The definition."""
    scores = q @ k.mT * scale
    scores = scores if bias is None else scores + bias
    if mask is not None:
        scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask).flatten(0, 1)
    return scores.softmax(-1) @ v


def grouped_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None, scale: float
) -> Tensor:
    """The same by `softmax_attention`, which takes bias and mask as one."""
    return fused(q, k, v, added(bias, mask), scale)


def added(bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Bias and mask as one tensor (G or 1, H or 1, N, N)."""
    if mask is None:
        return None if bias is None else bias[None]
    return mask if bias is None else bias + mask.to(bias.dtype)


def fused(q: Tensor, k: Tensor, v: Tensor, both: Tensor | None, scale: float) -> Tensor:
    """`grouped_attention` with what `added` gives."""
    if both is not None:
        both = both.to(q.dtype)
        if both.shape[0] != 1:
            both = both.expand(q.shape[0] // both.shape[0], *both.shape).flatten(0, 1)
    return softmax_attention(q, k, v, both, scale)


def by_order(
    x: Tensor,
    to: Arrangement,
    size: int,
    heads: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    bias: Tensor | None,
    both: Callable[[Tensor, Tensor], Tensor | None],
    scale: float,
) -> Tensor:
    """The same of maps x (B, H, W, C) in groups of `size` tokens, to (B, H, W, heads D) with all heads side by side.

    One gather brings tokens into the groups that `to` arranges, one brings them back, and only groups that need a mask
    get one. `heads` makes q, k and v of the groups (B G, N, C); `both` is `added`, or what remembers its results.
    """
    rows = x.reshape(-1, x.shape[-1])
    rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])]) if to.fills else rows
    q, k, v = heads(rows.index_select(0, to.order).unflatten(0, (-1, size)))
    free, met = to.num_free, []
    if free:
        met.append(fused(q[:free], k[:free], v[:free], added(bias, None), scale))
    if to.mask is not None:
        masked = to.mask if bias is None else both(bias, to.mask)
        met.append(fused(q[free:], k[free:], v[free:], masked, scale))
    y = torch.cat([part.transpose(1, 2) for part in met]) if len(met) > 1 else met[0].transpose(1, 2)
    return y.reshape(-1, y.shape[2] * y.shape[3]).index_select(0, to.back).view(*x.shape[:-1], -1)
