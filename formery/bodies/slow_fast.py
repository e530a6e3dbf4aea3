"""Slow and fast updates: tokens that matter pass through a block, the others through one that stands for them all.

Evo-ViT (arXiv 2108.01390), as the light models of UniFormer use it: the map stays whole between blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..context import NOTHING, Context, State
from ..errors import BadSpec, CannotRun
from ..parts.dense import Dense
from ..parts.heads.head import Features
from ..parts.mixers.mixer import CLASS_ROW, Mixer
from ..parts.strides import per_axis
from ..spec import BlockSpec, MergeSpec, Place, build
from .blocks.base import WATCH, WATCH_WHOLE, BaseBlock
from .blocks.spreading import spread_blocks
from .body import Body

Ratio = Annotated[float, Field(gt=0, le=1)]
POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class Tokens(NamedTuple):
    """What passes from block to block."""

    map: Tensor
    """(B, *grid, C)"""
    token: Tensor
    """(B, 1, C) the class token."""
    scores: Tensor | None
    """(B, *grid) how much the class token has attended to each; None before the first block."""


class SlowFast(Body):
    """A merge where one is given, then `blocks`, of which number i works on a share `keep[i]` of the tokens.

    Where that is less than 1, the tokens of the highest scores (the first of equal ones) go through the block together
    with the class token and a representative, the mean of the others weighted by their scores. What the block adds to
    the representative (no branch dropped) is added to each of the others, and the map is whole again. Sublayers in
    front that work on maps (positions) always get the whole map; the class token passes them by.

    Scores are the mean over heads of the class token's attention, mixed into the old ones by `trade`; those of tokens
    that were left out stay. A mixer without attention is judged by the likeness of tokens and class token. `token` is
    "new" in the first such stage; in later ones it is "carried", through a dense layer, and the scores are pooled as
    the map was and keep their sum. Both travel in `Features.extras` and `Context.carried`.
    """

    EXAMPLES = (
        {"blocks": [{"mixer": {"kind": "attention", "heads": 2}}] * 2, "keep": [1.0, 0.5]},
        {"blocks": [{"mixer": "identity", "scheme": {"kind": "pre", "scale": 0.1}}] * 2, "keep": [0.5, 0.25]},
    )

    def __init__(
        self,
        dim: int,
        *,
        blocks: list[BlockSpec],
        keep: list[Ratio],
        trade: Annotated[float, Field(ge=0, le=1)] = 0.5,
        token: Literal["new", "carried"] = "new",
        dim_out: Annotated[int, Field(gt=0)] | None = None,
        merge: MergeSpec | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("body")
        if len(place.grid) == 1:
            raise BadSpec("slow_fast works on maps and videos, here the grid is 1-D")
        if len(keep) != len(blocks):
            raise BadSpec(f"keep has a share for each block: {len(blocks)} are needed, got {len(keep)}")
        self.dim, self.grid, self.keep, self.trade, self.merge = dim_out or dim, place.grid, keep, trade, None
        if merge is not None:
            self.merge = build("merge", merge, dim, self.dim, place=place.at("merge"))
            self.grid, self.stride = self.merge.new_grid(place.grid), self.merge.stride
        elif self.dim != dim:
            raise BadSpec(f"dim is {self.dim}, but tokens come in with {dim}; make them equal or give a merge")
        self.token = nn.Parameter(torch.zeros(1, 1, self.dim)) if token == "new" else None
        self.carry = None if token == "new" else Dense(dim, self.dim)
        self.undecayed = () if self.token is None else ("token",)
        self.blocks = nn.ModuleList(
            build("block", block, self.dim, place=place.at(f"blocks.{i}", index=place.index + i, grid=self.grid))
            for i, block in enumerate(blocks)
        )
        for number, block in enumerate(self.blocks):
            _check(block, f"blocks.{number}")

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """`mixer`, `channel` (a layout of words, or one spec), `scheme`, `norm`, `scale`, `drop_path` of all blocks."""
        return spread_blocks(node, key, value)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Features:
        if state is not None:
            raise CannotRun("slow_fast does not stream: what is kept of a map depends on all of it")
        tokens = self._begun(x, ctx)
        told = None if ctx.record is None else ctx.record.get(WATCH_WHOLE)
        maps: dict[int, Tensor] = {}
        for index, (block, share) in enumerate(zip(self.blocks, self.keep, strict=True)):
            before = tokens.map
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(self._through, block, share, tokens, ctx.but(memo=None), use_reentrant=False)
            else:
                tokens = self._through(block, share, tokens, ctx)
            if told is not None:
                told(block, before, tokens.map)
            if index in ctx.taps:
                maps[index] = tokens.map
            if index == ctx.last_map:
                break
        extras = {"token": tokens.token, "scores": tokens.scores}
        return Features(tokens.map, maps=maps, extras=extras)

    def _begun(self, x: Tensor, ctx: Context) -> Tokens:
        """Merged map, class token and scores at the beginning."""
        merged = x if self.merge is None else self.merge(x, ctx)
        if self.token is not None:
            return Tokens(merged, self.token.to(x.dtype).expand(x.shape[0], -1, -1), None)
        if "token" not in ctx.carried or self.carry is None:
            raise CannotRun("a stage of slow_fast whose token is 'carried' stands behind another one of slow_fast")
        scores: Tensor | None = ctx.carried["scores"]
        if scores is not None and self.merge is not None:
            scores = _pooled(scores, per_axis(self.merge.stride, merged.dim() - 2), tuple(merged.shape[1:-1]))
        return Tokens(merged, self.carry(ctx.carried["token"]), scores)

    def _through(self, block: Any, share: float, tokens: Tokens, ctx: Context) -> Tokens:
        """One block."""
        x, token, scores = tokens
        steps = list(block.steps())
        told = None if ctx.record is None else ctx.record.get(WATCH)
        while steps and _on_maps(steps[0][2]):
            index, name, part = steps.pop(0)
            before, x = x, block.scheme.step(x, index, _Calls(part, ctx, None), ctx)
            if told is not None:
                told(block, name, before, x)
        if not steps:  # the rest of the block was taken away
            return Tokens(x, token, scores)
        grid = tuple(x.shape[1:-1])
        flat = x.flatten(1, -2)
        count = flat.shape[1]
        kept = max(1, int(count * share))
        watch = _Calls(nn.Identity(), ctx.but(grid=(), prefix=0), [])
        if kept == count:
            whole = self._slow(block, steps, torch.cat([token, flat], dim=1), watch, ctx)
            marks = self._mixed(None if scores is None else scores.flatten(1), watch.row(1, count))
            after = None if marks is None else marks.unflatten(1, grid)
            return Tokens(whole[:, 1:].unflatten(1, grid), whole[:, :1], after)
        marks = flat.new_full(flat.shape[:2], 1 / count) if scores is None else scores.flatten(1)
        order = marks.sort(dim=1, descending=True, stable=True).indices
        chosen, others = order[:, :kept], order[:, kept:]
        weights = marks.gather(1, others)
        weights = weights / weights.sum(1, keepdim=True)
        left = flat.gather(1, _wide(others, flat))
        stands = (weights[..., None].to(left.dtype) * left).sum(1, keepdim=True)
        front = torch.cat([token, flat.gather(1, _wide(chosen, flat)), stands], dim=1)
        whole = self._slow(block, steps, front, watch, ctx)
        left = left + watch.added()
        flat = flat.scatter(1, _wide(chosen, flat), whole[:, 1:-1]).scatter(1, _wide(others, flat), left)
        renewed = self._mixed(None if scores is None else marks.gather(1, chosen), watch.row(1, kept))
        marks = marks if renewed is None else marks.scatter(1, chosen, renewed.to(marks.dtype))
        return Tokens(flat.unflatten(1, grid), whole[:, :1], marks.unflatten(1, grid))

    def _slow(self, block: Any, steps: list[Any], x: Tensor, watch: _Calls, ctx: Context) -> Tensor:
        """The block's sublayers on the tokens handed in."""
        stream = block.scheme.start(x)
        told = None if ctx.record is None else ctx.record.get(WATCH)
        for index, name, part in steps:
            watch.part, watch.scale = part, block.scheme.scales[index]
            before, stream = stream, block.scheme.step(stream, index, watch, ctx)
            if told is not None:
                told(block, name, block.scheme.finish(before), block.scheme.finish(stream))
        finished: Tensor = block.scheme.finish(stream)
        return finished

    def _mixed(self, old: Tensor | None, new: Tensor | None) -> Tensor | None:
        """Scores after a block; the first takes what there is, one without a mixer leaves them."""
        return new if old is None else old if new is None else torch.lerp(old, new.to(old.dtype), self.trade)

    def feature_info(self) -> list[dict[str, Any]]:
        return [
            {"num_chs": self.dim, "reduction": self.stride, "module": f"blocks.{i}"} for i in range(len(self.blocks))
        ]


class _Calls:
    """The sublayer at work, which notes what it adds to the last token and whom the first one looks at."""

    def __init__(self, part: nn.Module, ctx: Context, notes: list[Tensor] | None) -> None:
        self.part, self.ctx, self.notes = part, ctx, notes
        self.scale: nn.Module = nn.Identity()
        self.rows: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        if self.notes is None:
            y: Tensor = self.part(x, self.ctx)
            return y
        record = {**(self.ctx.record or {}), CLASS_ROW: None}
        y = self.part(x, self.ctx.but(record=record))
        self.notes.append(self.scale(y[:, -1:]))
        if isinstance(self.part, Mixer):
            row = record[CLASS_ROW]
            self.rows.append(_likeness(x) if row is None else row)
        return y

    def added(self) -> Tensor:
        """(B, 1, C) what all sublayers together added to the last token."""
        return torch.stack(self.notes or []).sum(0)

    def row(self, first: int, count: int) -> Tensor | None:
        """(B, count) of the class token's attention, from token `first` on, the mean over mixers; None without any."""
        rows = [row[:, first : first + count] for row in self.rows]
        return None if not rows else rows[0] if len(rows) == 1 else torch.stack(rows).mean(0)


def _likeness(x: Tensor) -> Tensor:
    """(B, N) softmax over tokens of the first one's products with them: attention without projections."""
    return (x[:, :1] @ x.mT * x.shape[-1] ** -0.5).softmax(-1)[:, 0]


def _on_maps(part: nn.Module) -> bool:
    return isinstance(part, Mixer) and 1 not in part.grids


def _wide(indices: Tensor, x: Tensor) -> Tensor:
    """Indices (B, K) of tokens for all channels of x (B, N, C)."""
    return indices[..., None].expand(-1, -1, x.shape[-1])


def _pooled(scores: Tensor, strides: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """Scores (B, *old grid) at the `grid` behind a merge, with the sum that they had."""
    pooled = POOLS[len(strides)](scores[:, None], strides, strides, ceil_mode=True)[:, 0]
    pooled = pooled[(slice(None), *(slice(n) for n in grid))]
    axes = tuple(range(1, pooled.dim()))
    return pooled * (scores.sum(axes, keepdim=True) / pooled.sum(axes, keepdim=True))


def _check(block: Any, where: str) -> None:
    """BadSpec unless maps are worked on first, then tokens, by a scheme whose stream is a tensor, with one mixer."""
    kinds: Iterator[tuple[bool, bool]] = ((_on_maps(p), isinstance(p, Mixer)) for _, _, p in block.steps())
    listed = list(kinds)
    maps = [on for on, _ in listed]
    if maps != sorted(maps, reverse=True):
        raise BadSpec(f"{where}: in slow_fast sublayers that work on maps stand in front of those that take tokens")
    if not any(mixer and not on for on, mixer in listed):
        raise BadSpec(f"{where}: slow_fast needs a mixer that takes tokens, such as attention")
    if not isinstance(block, BaseBlock) or not isinstance(block.scheme.start(torch.zeros(1)), Tensor):
        raise BadSpec(f"{where}: slow_fast needs a scheme whose stream is one tensor, such as pre")
