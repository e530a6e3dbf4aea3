"""Blocks one after another at one resolution: a whole isotropic model's body, or a stage of a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .. import registry
from ..context import NOTHING, Context, State
from ..errors import BadSpec, CannotRun
from ..layout import MOST_WORDS, parse, ramp
from ..parts.heads.head import Features
from ..parts.mixers.mixer import Mixer
from ..parts.part import Part
from ..spec import BlockSpec, ChannelSpec, MergeSpec, MixerSpec, Place, PositionSpec, SchemeSpec, build, options
from ..spec import parse as parse_spec
from .blocks.base import BaseBlock
from .blocks.spreading import spread_blocks
from .body import Body


class Stack(Body):
    """A merge where one is given, positions and prefix tokens where they are given, then `blocks`.

    `dim` is the width that comes to the blocks, that of the tokens that come in unless given (then a merge brings it
    about); blocks that give out more channels than they take in pass their width on to the next. `prefix`
    learned tokens (class token, registers) go in front of the flattened grid; positions are added to the grid's tokens
    before that, and to the prefix too where the position part has a table for it. With `lower_bounds` a learned bound
    that rises with depth is set to the forget gates of its blocks (HGRN, arXiv 2311.04823, section 3.2).
    """

    undecayed = ("prefix",)
    EXAMPLES = (
        {"layout": "attention*2", "blocks": {"attention": {"mixer": {"kind": "attention", "heads": 2}}}},
        {"depth": 2, "mixer": {"kind": "attention", "heads": 2}, "prefix": 1, "position": "learned"},
        {"depth": 2, "mixer": "hgrn", "lower_bounds": True},
    )
    unseen = ("position",)

    def __init__(
        self,
        dim: int,
        *,
        blocks: list[BlockSpec],
        dim_out: Annotated[int, Field(gt=0)] | None = None,
        merge: MergeSpec | None = None,
        position: PositionSpec | None = None,
        prefix: Annotated[int, Field(ge=0)] = 0,
        lower_bounds: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("body")
        if not isinstance(dim, int):
            raise BadSpec(f"a stack takes one tensor of tokens, here are {len(dim)}; put stacks into body 'branches'")
        if place.prefix and (merge is not None or prefix):
            raise BadSpec("prefix tokens stand in the last stage: a merge takes a grid and nothing else")
        width, self.grid, self.merge = dim_out or dim, place.grid, None
        if merge is not None:
            self.merge = build("merge", merge, dim, width, place=place.at("merge"))
            if place.grid and len(place.grid) not in self.merge.grids:
                ranks = " or ".join(f"{rank}-D" for rank in self.merge.grids)
                kind = merge if isinstance(merge, str) else merge["kind"]
                raise BadSpec(f"merge {kind!r} works on {ranks} grids, here the grid is {len(place.grid)}-D")
            self.grid, self.stride = self.merge.new_grid(place.grid), self.merge.stride
        elif width != dim:
            raise BadSpec(f"dim is {width}, but tokens come in with {dim}; make them equal or give a merge")
        inside = {"grid": self.grid}
        self.position = None
        if position is not None:
            self.position = build("position", position, width, place=place.at("position", **inside))
            if self.position.acts_on != "tokens":
                raise BadSpec("a body's position is added to tokens: learned or sincos; rope belongs inside attention")
        self.num_prefix = place.prefix + prefix
        self.prefix = nn.Parameter(torch.empty(prefix, width).normal_(std=1e-6)) if prefix else None
        self.blocks, self.first_width = nn.ModuleList(), width
        for i, block in enumerate(blocks):
            here = place.at(f"blocks.{i}", index=place.index + i, **inside)
            built: BaseBlock = build("block", block, width, place=here)
            self.blocks.append(built)
            width = built.dim
        self.dim = width
        if lower_bounds and width != self.first_width:
            raise BadSpec("lower_bounds go with blocks of one width; set it to false")
        self.lower_bounds = nn.Parameter(torch.zeros(len(blocks), width)) if lower_bounds else None
        if lower_bounds and not any(isinstance(m, Mixer) and m.bounded for m in self.blocks[1:].modules()):
            raise BadSpec("no block but the first has a forget gate that takes a bound; set lower_bounds to false")
        self.share()
        if self.num_prefix and any(
            isinstance(m, Mixer) and m.fixed_grid and 1 in m.grids for m in self.blocks.modules()
        ):
            raise BadSpec("a mixer that is bound to the grid's tokens has no room for prefix tokens; set prefix to 0")

    def share(self) -> None:
        first: dict[tuple[type, str, torch.Size], nn.Parameter] = {}
        for part in self.blocks.modules():
            for name in part.shares if isinstance(part, Part) else ():
                own = getattr(part, name)
                setattr(part, name, first.setdefault((type(part), name, own.shape), own))

    @classmethod
    def is_full(cls, given: Mapping[str, Any]) -> bool:
        """Whether these are the full options, every block written out."""
        return isinstance(given.get("blocks"), list | tuple)

    @classmethod
    def shorthand(
        cls,
        *,
        layout: str | None = None,
        depth: Annotated[int, Field(ge=0, le=MOST_WORDS)] | None = None,
        blocks: dict[str, BlockSpec] | None = None,
        mixer: MixerSpec | None = None,
        channel: ChannelSpec | None = "mlp",
        scheme: SchemeSpec = "pre",
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        dim: Annotated[int, Field(gt=0)] | None = None,
        merge: MergeSpec | None = None,
        position: PositionSpec | None = None,
        prefix: Annotated[int, Field(ge=0)] = 0,
        lower_bounds: bool = False,
    ) -> dict[str, Any]:
        """Either a `layout` of words, or `depth` blocks of one `mixer` (null: channel mixer only).

        A word names an entry of `blocks`, or a mixer, or a channel mixer (in a block without mixer). `channel` and
        `scheme` are those of every block that does not say its own. `drop_path` rises evenly from 0 in the first block
        to its value in the last.
        """
        if (layout is None) == (depth is None):
            raise BadSpec("a stack has a layout, or a depth (with a mixer): give one of them")
        if layout is not None and mixer is not None:
            raise BadSpec("mixer goes with depth; in a layout the words name the mixers")
        if depth is not None and blocks is not None:
            raise BadSpec("blocks go with a layout, whose words name them; with depth give a mixer")
        if layout is not None:
            nodes = [_block(word, blocks or {}, channel, scheme) for word in parse(layout).words()]
        else:
            nodes = [{"mixer": mixer, "channel": channel, "scheme": scheme}] * (depth or 0)
        nodes = [ramped(node, ramp(drop_path, i, len(nodes))) for i, node in enumerate(nodes)]
        own = {"merge": merge, "position": position, "prefix": prefix, "lower_bounds": lower_bounds}
        return {"blocks": nodes, "dim_out": dim, **own}

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """`mixer`, `channel` (a layout of words, or one spec), `scheme`, `norm`, `scale`, `drop_path` of all blocks."""
        return spread_blocks(node, key, value)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Features:
        if self.merge is not None:
            x = self.merge(x, ctx)
        x, ctx = placed(x, ctx, self.prefix, self.position)
        maps: dict[int, Tensor] = {}
        x = self.run(x, ctx, state, maps)
        return Features(x, ctx.grid if x.dim() == 3 else (), ctx.prefix, maps)

    def run(self, x: Tensor, ctx: Context, state: State | None, maps: dict[int, Tensor]) -> Tensor:
        """The blocks. The stream passes on from block to block while the scheme stays of one kind."""
        stream: Any = x
        scheme: Any = None
        bounds = None if self.lower_bounds is None else rising(self.lower_bounds)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, BaseBlock)
            if bounds is not None:  # the first block's is zero, which is none
                ctx = ctx.but(lower_bound=bounds[index - 1] if index else None)
            if scheme is None or type(block.scheme) is not type(scheme):
                stream = block.scheme.start(stream if scheme is None else scheme.finish(stream))
            scheme = block.scheme
            below = None if state is None else state.under(f"blocks.{index}")
            if self.checkpointing and torch.is_grad_enabled() and below is None:
                stream = checkpoint(block, stream, ctx.but(memo=None), use_reentrant=False)
            else:
                stream = block(stream, ctx, below)
            if index in ctx.taps:
                maps[index] = scheme.finish(stream)
            if index == ctx.last_map:
                break
        return stream if scheme is None else scheme.finish(stream)

    def feature_info(self) -> list[dict[str, Any]]:
        return [
            {"num_chs": block.dim, "reduction": self.stride, "module": f"blocks.{i}"}
            for i, block in enumerate(self.blocks)
        ]


def placed(x: Tensor, ctx: Context, prefix: Tensor | None, position: Any) -> tuple[Tensor, Context]:
    """Positions added, prefix in front; what the context says of the grid's tokens then holds behind the prefix."""
    if prefix is None:
        return x if position is None else position(x, ctx), ctx
    if ctx.bounds is not None:
        raise CannotRun("packed sequences have no place for this model's prefix tokens; give each a row")
    front = prefix.to(x.dtype).expand(x.shape[0], -1, -1)
    count, grid = len(prefix), tuple(x.shape[1:-1])
    x = torch.cat([front, x.flatten(1, -2)], dim=1)
    if position is not None:  # which numbers the grid's tokens as they were
        x = position(x, ctx.but(grid=grid, prefix=count))
    return x, behind(ctx, count, grid)


def behind(ctx: Context, count: int, grid: Any) -> Context:
    """What the context says of the grid's tokens, said of them behind `count` (more) prefix tokens."""
    ctx = ctx.but(grid=grid, prefix=ctx.prefix + count)
    if ctx.positions is not None and count:
        first = torch.arange(count, device=ctx.positions.device).expand(*ctx.positions.shape[:-1], -1)
        ctx = ctx.but(positions=torch.cat([first, ctx.positions + count], dim=-1))
    padding, keys = (None if p is None else F.pad(p, (count, 0)) for p in (ctx.padding, ctx.key_padding))
    return ctx.but(padding=padding, key_padding=keys)


def rising(table: Tensor) -> Tensor:
    """(depth, C) -> (depth - 1, C): logs of the bounds of all blocks but the first, float32 at least.

    With p the softmax of the table over depth, the bound of block l is p_1 + ... + p_l: nothing for block 0, nearly
    all for the last. In logarithms, so that none of them can be rounded to zero; nor to one, which lets nothing in.
    """
    table = table.to(torch.promote_types(table.dtype, torch.float32))
    return (table[1:].logcumsumexp(0) - table.logsumexp(0)).clamp(max=-1e-7)


def _block(word: str, blocks: Mapping[str, Any], channel: Any, scheme: Any) -> dict[str, Any]:
    if word in blocks:
        kind, given = parse_spec("block", blocks[word], f"blocks.{word}")
        known_kind = kind in registry.index("block")
        takes = options(registry.find("block", kind).__init__) if known_kind else {}
        inherited = {"channel": channel, "scheme": scheme}
        return {"kind": kind} | {name: value for name, value in inherited.items() if name in takes} | given
    if word in registry.index("mixer"):
        return {"mixer": word, "channel": channel, "scheme": scheme}
    if word in registry.index("channel"):
        return {"mixer": None, "channel": word, "scheme": scheme}
    known = {*blocks, *registry.index("sublayer")}
    raise BadSpec(f"layout: no block, mixer or channel mixer is called {word!r}; {registry.nearest(word, known)}")


def ramped(node: Mapping[str, Any], drop_path: float) -> dict[str, Any]:
    """A block's short spec with its scheme's drop path, where there is any to set."""
    if not drop_path:
        return dict(node)
    scheme = node.get("scheme", "pre")
    scheme = {"kind": scheme} if isinstance(scheme, str) else dict(scheme)
    return {**node, "scheme": {**scheme, "drop_path": drop_path}}
