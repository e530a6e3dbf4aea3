"""The heads of attention: how many there are, and tokens taken apart into them and put together again."""

from __future__ import annotations

from torch import Tensor

from ..errors import BadSpec
from .widths import positive, shared_width


def split_heads(x: Tensor, heads: int = -1, head_dim: int = -1) -> Tensor:
    """(B, N, heads D) as (B, heads, N, D); one of both numbers is enough."""
    return x.unflatten(-1, (heads, head_dim)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """What `split_heads` undoes."""
    return x.transpose(1, 2).flatten(2)


def heads_of(dim: int, heads: int | None, head_dim: int | None) -> tuple[int, int]:
    """(heads, channels a head) of a width: one of them given is enough."""
    if heads is None:
        width = positive("head_dim", head_dim or 32)
        if dim % width:
            raise BadSpec(f"head_dim ({width}) does not divide {dim}; choose a divisor or give heads")
        return dim // width, width
    return heads, shared_width("head_dim", head_dim, dim, heads)
