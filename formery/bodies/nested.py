"""Transformers inside a Transformer's tokens (TNT, arXiv 2103.00112, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..context import NOTHING, Context, State
from ..errors import BadSpec
from ..layout import MOST_WORDS, ramp
from ..parts.dense import Dense
from ..parts.heads.head import Features
from ..parts.part import Part
from ..spec import BlockSpec, NormSpec, Place, PositionSpec, build
from .blocks.base import BaseBlock
from .blocks.spreading import spread_blocks
from .body import Body, Groups
from .stack import placed, ramped


class Pair(NamedTuple):
    """The state between two blocks."""

    words: Tensor
    """(B tokens, side * side, C / side^2): each token's words are a batch item."""
    tokens: Tensor
    """(B, prefix + tokens, width), or (B, *grid, width) without prefix."""


class Nested(Body):
    """Tokens of C channels come in as maps of `side` x `side` words; each has a token of `width` channels over them.

    In turn an `inner` block mixes the words of each token, these are joined and added to the token, and an `outer`
    block mixes tokens; prefix tokens (class token) have no words. A join is norm, dense layer, norm; the first, with a
    bias, makes the tokens. With `join` "word" the first norm is of each word alone, the dense layer has a bias, and no
    norm follows (timm's `tnt_s_legacy`). Words have positions (`inner_position`) that all tokens share.
    """

    EXAMPLES = (
        {
            "depth": 2,
            "width": 24,
            "side": 2,
            "inner": {"mixer": {"kind": "attention", "heads": 2}},
            "outer": {"mixer": {"kind": "attention", "heads": 3}},
            "prefix": 1,
            "position": {"kind": "learned", "prefix": 1},
            "inner_position": "learned",
        },
        {
            "depth": 2,
            "width": 16,
            "side": 2,
            "inner": {"mixer": "depthwise_conv"},
            "outer": {"mixer": "retention", "channel": None},
            "join": "word",
        },
    )
    unseen = ("position",)
    parallel = ("inner", "outer")
    undecayed = ("prefix",)

    def __init__(
        self,
        dim: int,
        *,
        inner: Annotated[list[BlockSpec], Field(min_length=1)],
        outer: Annotated[list[BlockSpec], Field(min_length=1)],
        width: Annotated[int, Field(gt=0)],
        side: Annotated[int, Field(gt=0)] = 4,
        join: Literal["token", "word"] = "token",
        norm: NormSpec = "layer",
        position: PositionSpec | None = None,
        inner_position: PositionSpec | None = None,
        prefix: Annotated[int, Field(ge=0)] = 0,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("body")
        if not isinstance(dim, int) or dim % side**2:
            raise BadSpec(f"side {side} asks for tokens of {side**2} words, a divisor of the width; got {dim} channels")
        if len(inner) != len(outer) or place.prefix:
            raise BadSpec(f"as many inner as outer blocks, and no prefix tokens before; got {len(inner)}, {len(outer)}")
        self.dim, self.grid, self.side, self.num_prefix = width, place.grid, side, prefix
        on_words, on_tokens = {"grid": (side, side)}, {"prefix": prefix}
        word = dim // side**2

        def positions(spec: Any, name: str, width: int, **where: Any) -> Any:
            part = None if spec is None else build("position", spec, width, place=place.at(name, **where))
            if part is not None and part.acts_on != "tokens":
                raise BadSpec(f"{name} is added to tokens: learned or sincos; rope belongs inside attention")
            return part

        def blocks(specs: list[Any], name: str, width: int, **where: Any) -> nn.ModuleList:
            return nn.ModuleList(
                build("block", spec, width, place=place.at(f"{name}.{i}", index=place.index + i, **where))
                for i, spec in enumerate(specs)
            )

        self.inner_position = positions(inner_position, "inner_position", word, **on_words)
        self.prefix = nn.Parameter(torch.empty(prefix, width).normal_(std=1e-6)) if prefix else None
        self.position = positions(position, "position", width)
        self.enter = Join(dim, 1, width, norm, place.at("enter"), bias=True, behind=True)
        self.inner = blocks(inner, "inner", word, **on_words)
        whole = join == "token"
        self.joins = nn.ModuleList(
            Join(dim, 1 if whole else side**2, width, norm, place.at(f"joins.{i}"), bias=not whole, behind=whole)
            for i in range(len(inner))
        )
        self.outer = blocks(outer, "outer", width, **on_tokens)

    @classmethod
    def is_full(cls, given: Mapping[str, Any]) -> bool:
        """Whether these are the full options, every block written out."""
        return isinstance(given.get("inner"), list | tuple)

    @classmethod
    def shorthand(
        cls,
        *,
        depth: Annotated[int, Field(gt=0, le=MOST_WORDS)],
        inner: BlockSpec,
        outer: BlockSpec,
        width: Annotated[int, Field(gt=0)],
        side: Annotated[int, Field(gt=0)] = 4,
        join: Literal["token", "word"] = "token",
        norm: NormSpec = "layer",
        position: PositionSpec | None = None,
        inner_position: PositionSpec | None = None,
        prefix: Annotated[int, Field(ge=0)] = 0,
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> dict[str, Any]:
        """`depth` blocks of each kind; `drop_path` rises evenly from 0 in the first to its value in the last."""
        rates = [ramp(drop_path, i, depth) for i in range(depth)]
        nodes = {
            name: [ramped({"kind": block} if isinstance(block, str) else block, rate) for rate in rates]
            for name, block in (("inner", inner), ("outer", outer))
        }
        own = {"width": width, "side": side, "join": join, "norm": norm, "prefix": prefix}
        return {**nodes, **own, "position": position, "inner_position": inner_position}

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """`mixer` and `channel` mean those of the outer blocks; `scheme` and its options those of all blocks."""
        names = ("outer",) if key in ("mixer", "channel") else ("inner", "outer")
        return {
            path.replace("blocks", name, 1): written
            for name in names
            for path, written in spread_blocks({"blocks": node[name]}, key, value).items()
        }

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Features:
        words = x.reshape(-1, self.side, self.side, x.shape[-1] // self.side**2)
        if self.inner_position is not None:
            words = self.inner_position(words)
            x = words.reshape(x.shape)
        tokens, ctx = placed(self.enter(x, ctx), ctx, self.prefix, self.position)
        pair = Pair(words.flatten(1, 2), tokens)
        maps: dict[int, Tensor] = {}
        for index in range(len(self.outer)):
            below = None if state is None else state.under(f"outer.{index}")
            if self.checkpointing and torch.is_grad_enabled() and below is None:
                pair = checkpoint(self.step, index, pair, ctx.but(memo=None), use_reentrant=False)
            else:
                pair = self.step(index, pair, ctx, below)
            if index in ctx.taps:
                maps[index] = pair.tokens
            if index == ctx.last_map:
                break
        return Features(pair.tokens, ctx.grid if pair.tokens.dim() == 3 else (), ctx.prefix, maps)

    def step(self, index: int, pair: Pair, ctx: Context = NOTHING, state: State | None = None) -> Pair:
        """The pair after blocks number `index`: nothing is written in place."""
        words = _through(self.inner[index], pair.words, Context(grid=(self.side, self.side), record=ctx.record))
        before, count = pair.tokens, self.num_prefix
        number = prod(before.shape[1:-1]) - count  # every size is said: of an empty batch none could be worked out
        told = self.joins[index](words.reshape(before.shape[0], number, words.shape[1] * words.shape[2]), ctx)
        if count:
            tokens = torch.cat([before[:, :count], before[:, count:] + told], dim=1)
        else:
            tokens = before + told.view_as(before)
        return Pair(words, _through(self.outer[index], tokens, ctx, state))

    def feature_info(self) -> list[dict[str, Any]]:
        return [{"num_chs": self.dim, "reduction": 1, "module": f"outer.{i}"} for i in range(len(self.outer))]

    def groups(self) -> Groups:
        """An inner block, its join and the outer block are one depth; the first join goes with the stem."""
        blocks = ((r"(?:inner|joins|outer)\.(\d+)", ()),)
        return Groups("prefix|position|inner_position|enter", blocks, blocks)


def _through(block: nn.Module, x: Tensor, ctx: Context, state: State | None = None) -> Tensor:
    assert isinstance(block, BaseBlock)
    y: Tensor = block.scheme.finish(block(block.scheme.start(x), ctx, state))
    return y


class Join(Part):
    """dense(norm(words of a token)), and a norm `behind`: (..., words of `dim` channels in all) -> (..., width)."""

    writes = ("out_norm",)

    def __init__(self, dim: int, words: int, width: int, norm: Any, place: Place, *, bias: bool, behind: bool) -> None:
        super().__init__()
        self.words = words
        within = () if words > 1 else (("norm", "dense"),)  # a norm of each word alone has fewer channels
        self.neighbours = (*within, ("dense", "out_norm"))
        self.norm = build("norm", norm, dim // words, place=place.at("norm"))
        self.dense = Dense(dim, width, bias=bias)
        self.out_norm = build("norm", norm, width, place=place.at("out_norm")) if behind else None

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        if self.norm is not None:  # it may have been folded away
            x = self.norm(x, ctx) if self.words == 1 else self.norm(x.unflatten(-1, (self.words, -1)), ctx).flatten(-2)
        y: Tensor = self.dense(x)
        return y if self.out_norm is None else self.out_norm(y, ctx)
