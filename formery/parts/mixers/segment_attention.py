"""Attention over a segment and a memory of what came before it, by relative places (Transformer-XL, arXiv 1901.02860;
as GTrXL has it, arXiv 1910.06764, section 2.3)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context, Slot, State
from ...spec import NormSpec, Place, build
from ..attention_heads import join_heads, split_heads
from ..dense import Dense
from ..part import idle
from ..positions.sincos import sine_table
from ..widths import shared_width
from .mixer import Mixer
from .ragged import along_rows, last_tokens


class SegmentAttention(Mixer):
    """A token sees the tokens of its segment up to itself, and the `memory` tokens before that segment.

    Segments of `segment` tokens are counted from the beginning of a row, so that any split of it into chunks gives what
    the whole gives. Scores are ((q + content) k + (q + place) r) / sqrt(head_dim), where r is a projection of the
    sines and cosines of the distance, and `head_dim` the width divided by the heads unless given. Unless `through` is
    true, no gradient passes into the memory. With a `norm` the part norms tokens itself: the memory holds them as they
    came, and its tokens are normed too unless `norm_memory` is false. With `shared` all such parts of a body have the
    same `content` and `place`.
    """

    EXAMPLES = (
        {"heads": 4, "head_dim": 6, "segment": 5, "memory": 6, "norm": "layer"},
        {"heads": 2, "segment": 7, "memory": 3, "through": True},
        {"heads": 2, "segment": 1, "memory": 4, "norm": "rms", "norm_memory": False, "through": True},
    )
    unseen = ("heads",)
    grids = (1,)
    causal, streams, packs = "always", "any", True
    reads: tuple[str, ...] = ("q", "kv")
    writes = ("out",)
    undecayed = ("content", "place")

    def __init__(
        self,
        dim: int,
        *,
        heads: Annotated[int, Field(gt=0)] = 8,
        head_dim: Annotated[int, Field(gt=0)] | None = None,
        segment: Annotated[int, Field(gt=0)] = 64,
        memory: Annotated[int, Field(ge=0)] = 64,
        norm: NormSpec | None = None,
        norm_memory: bool = True,
        through: bool = False,
        shared: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        at = place or Place("segment_attention")
        self.heads, self.head_dim = heads, shared_width("head_dim", head_dim, dim, heads)
        self.segment, self.memory, self.dim = segment, memory, dim
        if norm is None:
            idle(SegmentAttention, "without a norm", norm_memory=norm_memory)
        self.norm_memory, self.through = norm_memory, through
        self.surrogate = not through
        width = heads * self.head_dim
        self.norm = None if norm is None else build("norm", norm, dim, place=at.at("norm"))
        self.q, self.kv = Dense(dim, width, bias=False), Dense(dim, 2 * width, bias=False)
        self.distance = Dense(2 * -(-dim // 2), width, bias=False)
        self.out = Dense(width, dim, bias=False)
        self.content, self.place = (nn.Parameter(torch.zeros(heads, self.head_dim)) for _ in range(2))
        self.shares = ("content", "place") if shared else ()
        if norm is not None:
            self.reads = ("norm",) if norm_memory else ()

    @property
    def reach(self) -> int:
        """Tokens before a token that it, or a later one of its segment, may see."""
        return self.memory + self.segment - 1

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count; long ones piece by piece."""
        if state is None:
            past, count = x.new_zeros(x.shape[0], self.reach, x.shape[2]), x.new_zeros(x.shape[0], dtype=torch.long)
            return self._pieces(x, past, count)
        past, count = state.slot("past").value.to(x.dtype), state.slot("count").value
        y = self._pieces(x, past, count)
        state.slot("past").put(last_tokens(past, x, lengths).clone())
        state.slot("count").put(count + (x.shape[1] if lengths is None else lengths))
        return y

    def _pieces(self, x: Tensor, past: Tensor, count: Tensor) -> Tensor:
        piece = 4 * max(16, self.reach)
        if torch.compiler.is_compiling() or x.shape[1] <= piece:
            return self._seen(x, past, count)
        found = []
        for part in x.split(piece, dim=1):
            found.append(self._seen(part, past, count))
            past, count = last_tokens(past, part, None), count + part.shape[1]
        return torch.cat(found, dim=1)

    def _seen(self, x: Tensor, past: Tensor, count: Tensor) -> Tensor:
        """x (B, L, C) after past (B, reach, C), of whose rows `count` (B,) tokens have been."""
        length, total = x.shape[1], past.shape[1] + x.shape[1]
        together = torch.cat([past, x], dim=1)
        normed = together if self.norm is None else self.norm(together)
        q = split_heads(self.q(normed[:, total - length :]), self.heads)
        scale = self.head_dim**-0.5
        q_content, q_place = ((q + bias[:, None]) * scale for bias in (self.content, self.place))
        steps = torch.arange(total, device=x.device)
        own = steps[total - length :, None]
        far = sine_table(steps, self.distance.in_features, 10000.0).to(x.dtype)
        r = self.distance(far).unflatten(-1, (self.heads, -1)).transpose(0, 1)  # (H, total, D)
        by_place = torch.gather(q_place @ r.mT, -1, (own - steps).clamp(min=0).expand(*q.shape[:2], -1, -1))
        places = count[:, None] + steps - past.shape[1]  # (B, total)
        first = places[:, total - length :] // self.segment * self.segment
        visible = (steps <= own) & (places[:, None] >= (first - self.memory).clamp(min=0)[..., None])
        k, v = self._keys(normed)
        if self.norm_memory and (self.through or not torch.is_grad_enabled()):
            weights = self._softmax(q_content @ k.mT + by_place, visible)
            return self.out(join_heads(weights @ v))
        remembered = together if self.through else together.detach()
        if self.norm is not None and self.norm_memory:
            remembered = self.norm(remembered)
        k_past, v_past = self._keys(remembered)
        same = (places[:, None] >= first[..., None])[:, None]
        weights = self._softmax(torch.where(same, q_content @ k.mT, q_content @ k_past.mT) + by_place, visible)
        y = weights.masked_fill(~same, 0) @ v + weights.masked_fill(same, 0) @ v_past
        return self.out(join_heads(y))

    def _keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.kv(x).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def _softmax(self, scores: Tensor, visible: Tensor) -> Tensor:
        wide = torch.promote_types(scores.dtype, torch.float32)
        return scores.masked_fill(~visible[:, None], float("-inf")).softmax(-1, dtype=wide).to(scores.dtype)

    def new_state(self, batch: int, capacity: int) -> State:
        weight = self.out.weight
        past = weight.new_zeros(batch, self.reach, self.dim)
        return State(past=Slot(past), count=Slot(torch.zeros(batch, dtype=torch.long, device=weight.device)))

    def macs(self, tokens: int, past: int = 0) -> int:
        seen = min(self.reach + 1, tokens + past)
        width = self.heads * self.head_dim
        return 3 * width * tokens * seen
