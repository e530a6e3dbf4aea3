"""What every body is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from ..context import NOTHING, Context, State
from ..parts.heads.head import Features
from ..parts.part import Part
from .blocks.base import BaseBlock

BESIDE = "prefix|position|lower_bounds"
"""What a body has beside its blocks."""


class Groups(NamedTuple):
    """How parameters of a body are grouped by depth, as regular expressions of names inside it."""

    first: str | None
    """What goes with the stem."""
    depths: tuple[tuple[str, tuple[int, ...]], ...]
    """(expression, numbers behind those that it captures): in order of these numbers, the first match counts."""
    coarse: tuple[tuple[str, tuple[int, ...]], ...]
    """The same in few groups: stages, where there are any."""


class Body(Part):
    """Maps tokens (a tensor, or a tuple of several) to `Features`.

    Built as `Body(dim, *, ..., place)`, where `dim` is the width that comes in (of several tensors, a tuple).
    """

    dim: Any
    """Width that goes out; of tokens that are several tensors, one each, as with `grid` and `stride`."""
    grid: Any
    """Nominal grid that goes out."""
    stride: Any = 1
    """Tokens that came in for one that goes out, along each axis."""
    num_prefix: int = 0
    """Prefix tokens (class token, registers) in front of the tokens that go out."""
    checkpointing: bool = False
    """Whether blocks are worked out again in the backward pass instead of remembered."""

    def forward(self, x: Any, ctx: Context = NOTHING, state: State | None = None) -> Features:
        raise NotImplementedError

    def share(self) -> None:
        """Make parameters that parts of one class have in common (`Part.shares`) those of the first of them."""

    def num_blocks(self) -> int:
        """Blocks inside it, however deep."""
        return sum(isinstance(module, BaseBlock) for module in self.modules())

    def feature_info(self) -> list[dict[str, Any]]:
        """`num_chs` (width), `reduction` (stride in tokens) and `module` (dotted path) of each map to be tapped, and
        its `branch` where tokens are several tensors."""
        raise NotImplementedError

    def groups(self) -> Groups:
        """Blocks by number; what stands before them goes with the stem."""
        blocks = ((r"blocks\.(\d+)", ()),)
        return Groups(BESIDE, blocks, blocks)


def joined(members: Iterable[nn.Module], within: str) -> Groups:
    """The groups of bodies that stand side by side or in turn, each below the expression `within`."""
    given = [member.groups() for member in members if isinstance(member, Body)]
    firsts = dict.fromkeys(groups.first for groups in given if groups.first)
    depths = dict.fromkeys((rf"{within}\.(?:{name})", last) for groups in given for name, last in groups.depths)
    coarse = dict.fromkeys((rf"{within}\.(?:{name})", last) for groups in given for name, last in groups.coarse)
    return Groups(rf"{within}\.(?:{'|'.join(firsts)})" if firsts else None, tuple(depths), tuple(coarse))
