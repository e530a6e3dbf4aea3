"""Attention inside windows of a map (Swin, arXiv 2103.14030, section 3.2; Swin V2, arXiv 2111.09883)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...ops.token_groups import Cut
from ...spec import Place, PositionSpec
from .group_attention import GroupAttention, Options, Scaling


class WindowAttention(GroupAttention):
    """Each window of `window` x `window` neighbours is a group; with `shift` the windows stand half a window further.

    The shifted windows come about by a roll of the map, and a mask keeps apart what it brings together; a map whose
    shorter side fits in one window is not shifted. `heads` of `head_dim` channels: one of them is enough, and 32
    channels are usual. `scaling` cosine takes the angle of query and key, times a learned factor a head of at most 100,
    for their product. `key_bias` is whether keys have a bias where queries and values have one (in Swin V2 they have
    not). `published` lets tokens see what fills up a map that is no whole number of windows.
    """

    EXAMPLES = (
        {"window": 4, "heads": 2},
        {"window": 3, "shift": True, "head_dim": 8},
        {
            "window": 3, "shift": True, "heads": 2, "position": {"kind": "log_offsets", "hidden": 8},
            "scaling": "cosine", "key_bias": False,
        },
        {"window": 3, "shift": True, "heads": 2, "position": None, "published": True},
    )  # fmt: skip
    unseen = ("window", "shift", "heads", "position", "scaling", "published")

    def __init__(
        self,
        dim: int,
        *,
        window: Annotated[int, Field(gt=0)] = 7,
        shift: bool = False,
        heads: int | None = None,
        head_dim: int | None = None,
        position: PositionSpec | None = "relative_table",
        scaling: Scaling = "dot",
        bias: bool = True,
        key_bias: bool = True,
        published: bool = False,
        place: Place | None = None,
    ) -> None:
        place = place or Place("window_attention")
        size = min(window, *(n for n in place.grid if n), window)
        options = Options(heads, head_dim, position, scaling, bias, key_bias, published)
        super().__init__(dim, Cut(size, shift=size // 2 if shift else 0), options, place)
