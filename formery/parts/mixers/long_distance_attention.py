"""Attention among tokens at equal distances (CrossFormer, arXiv 2108.00154, section 3.2.1)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...ops.token_groups import Cut
from ...spec import Place, PositionSpec
from .group_attention import GroupAttention, Options, Scaling


class LongDistanceAttention(GroupAttention):
    """Each `size` x `size` tokens that stand `interval` apart are a group; offsets are counted in steps from one to the
    next. A map whose shorter side is at most `size` is cut into windows of neighbours instead, which shrink to it.

    `heads` of `head_dim` channels: one of them is enough. `scaling`, `bias`, `key_bias` and `published` are those of
    window_attention.
    """

    EXAMPLES = (
        {"size": 2, "interval": 2, "heads": 2, "position": "relative_table"},
        {
            "size": 3,
            "interval": 2,
            "head_dim": 8,
            "position": "relative_table",
            "scaling": "cosine",
        },
        {"size": 2, "interval": 3, "heads": 2, "position": None, "published": True},
    )
    unseen = ("size", "interval", "heads", "position", "scaling", "published")

    def __init__(
        self,
        dim: int,
        *,
        size: Annotated[int, Field(gt=0)] = 7,
        interval: Annotated[int, Field(gt=0)],
        heads: int | None = None,
        head_dim: int | None = None,
        position: PositionSpec | None = "offset_mlp",
        scaling: Scaling = "dot",
        bias: bool = True,
        key_bias: bool = True,
        published: bool = False,
        place: Place | None = None,
    ) -> None:
        place = place or Place("long_distance_attention")
        options = Options(heads, head_dim, position, scaling, bias, key_bias, published)
        super().__init__(dim, Cut(min(size, *(n for n in place.grid if n), size), interval), options, place)
