"""Bodies side by side that tell each other what they see (CrossViT, arXiv 2103.14899, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..context import NOTHING, Context, State
from ..errors import BadSpec
from ..parts.activations import ACTIVATIONS, Activation
from ..parts.dense import Dense
from ..parts.heads.head import Features
from ..parts.several import Tokens, Widths, grids
from ..spec import BlockSpec, BodySpec, NormSpec, Place, build
from .blocks.spreading import spread_members
from .body import Body, Groups, joined


class Branches(Body):
    """Tokens that are several tensors, one for each of `branches` (one tensor goes to all of them alike); then, with
    `fusions`, the class tokens of each branch look at the grid of the next one:

        c = leave(class tokens);  c' = first tokens of fusion([c, grid tokens of the next]);  class tokens = return(c')

    Fusion b is a block at the next branch's width; `leave` and `return` are norm, `activation`, dense layer, to that
    width and back. Grid tokens pass unchanged. With the mixer `class_attention` the cost is linear in their number.
    """

    EXAMPLES = (
        {
            "branches": [
                {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": 2}, "prefix": 1},
                {"kind": "stack", "depth": 2, "mixer": "identity", "prefix": 1, "position": "learned"},
            ],
            "fusions": [{"mixer": {"kind": "class_attention", "heads": heads}, "channel": None} for heads in (2, 4)],
        },
        {"branches": [{"kind": "stack", "depth": n, "mixer": "retention"} for n in (1, 2, 1)]},
    )
    unseen = ("activation",)
    parallel = ("branches",)

    def __init__(
        self,
        dim: Widths,
        *,
        branches: Annotated[list[BodySpec], Field(min_length=1)],
        fusions: list[BlockSpec] | None = None,
        norm: NormSpec = "layer",
        activation: Activation = "gelu",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place, count = place or Place("body"), len(branches)
        widths = dim if isinstance(dim, tuple) else (dim,) * count
        given = grids(place.grid) if isinstance(dim, tuple) else (place.grid,) * count
        if len(widths) != count:
            raise BadSpec(f"{len(widths)} tensors of tokens come in for {count} branches; give as many")
        members = [
            build("body", branch, widths[b], place=place.at(f"branches.{b}", grid=given[b]))
            for b, branch in enumerate(branches)
        ]
        self.branches = nn.ModuleList(members)
        self.dim = dims = tuple(member.dim for member in members)
        self.grid = tuple(member.grid for member in members)
        self.stride = tuple(member.stride for member in members)
        self.num_prefix = members[0].num_prefix
        if not all(isinstance(width, int) for width in dims):
            raise BadSpec("a branch gives one tensor of tokens; put branches into a pyramid, not into each other")
        if any(member.num_prefix != self.num_prefix for member in members):
            raise BadSpec(f"branches have as many prefix tokens, got {[m.num_prefix for m in members]}")
        self.fusions = nn.ModuleList()
        self.leaving, self.returning = nn.ModuleList(), nn.ModuleList()
        if fusions is None:
            return
        if len(fusions) != count or not self.num_prefix:
            raise BadSpec(
                f"fusions: one for each of the {count} branches, which have class tokens (prefix) of their own"
            )
        for b, fusion in enumerate(fusions):
            other = (b + 1) % count
            here = place.at(f"fusions.{b}", grid=self.grid[other], prefix=self.num_prefix)
            self.fusions.append(build("block", fusion, dims[other], place=here))
            self.leaving.append(Passage(dims[b], dims[other], norm, activation, place.at(f"leaving.{b}")))
            self.returning.append(Passage(dims[other], dims[b], norm, activation, place.at(f"returning.{b}")))

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """What stacks spread over their blocks, over all branches; fusions keep their own mixers."""
        return spread_members(node["branches"], "branches", key, value)

    def forward(self, x: Tokens, ctx: Context = NOTHING, state: State | None = None) -> Features:
        count, inner = len(self.branches), ctx.but(taps=(), last_map=None)
        given = x if isinstance(x, tuple) else (x,) * count
        on = grids(ctx.grid) if isinstance(x, tuple) and ctx.grid else (ctx.grid,) * count
        found: list[Features] = [
            branch(given[b], inner.but(grid=on[b]), None if state is None else state.under(f"branches.{b}"))
            for b, branch in enumerate(self.branches)
        ]
        prefix, grid = found[0].prefix, tuple(grids(features.grid)[0] for features in found)
        tokens = tuple(features.x for features in found)
        if len(self.fusions):
            tokens = tuple(self._fused(b, tokens, inner.but(prefix=prefix), grid) for b in range(count))
        maps = {b: tokens[b] for b in ctx.taps}
        return Features(tokens, grid, prefix, maps, branch_of={b: b for b in maps})

    def _fused(self, b: int, tokens: Sequence[Tensor], ctx: Context, grid: Sequence[tuple[int, ...]]) -> Tensor:
        """Branch b with class tokens that have seen the next branch."""
        own, other = tokens[b], (b + 1) % len(tokens)
        n = ctx.prefix
        x = torch.cat([self.leaving[b](own[:, :n], ctx), tokens[other][:, n:]], dim=1)
        block: Any = self.fusions[b]
        seen = block.scheme.finish(block(block.scheme.start(x), ctx.but(grid=grid[other])))
        return torch.cat([self.returning[b](seen[:, :n], ctx), own[:, n:]], dim=1)

    def feature_info(self) -> list[dict[str, Any]]:
        return [
            {"num_chs": width, "reduction": self.stride[b], "module": f"branches.{b}", "branch": b}
            for b, width in enumerate(self.dim)
        ]

    def groups(self) -> Groups:
        """Those of the branches, side by side; fusions come behind the last blocks."""
        fusing = (r"fusions|leaving|returning", (9999,))
        inside = joined(self.branches, r"branches\.\d+")
        return Groups(inside.first, (*inside.depths, fusing), (*inside.coarse, fusing))


class Passage(nn.Module):
    """dense(activation(norm(x))): the activation comes before the dense layer, that goes to another branch's width."""

    def __init__(self, dim: int, width: int, norm: Any, activation: Activation, place: Place) -> None:
        super().__init__()
        self.norm, self.dense = build("norm", norm, dim, place=place.at("norm")), Dense(dim, width)
        self.activation: Activation = activation

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        y: Tensor = self.dense(ACTIVATIONS[self.activation](self.norm(x, ctx)))
        return y
