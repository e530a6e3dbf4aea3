"""Mega's gated attention of one head inside chunks, behind something that moves information between them: the moving
average there (arXiv 2209.10655, sections 3.2 and 3.5), a convolution network in TCNCA (arXiv 2312.05605)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, Slot, State
from ...errors import BadSpec
from ...spec import MixerSpec, NormSpec, Place, build
from ..dense import Dense
from .mixer import Causality, Mixer, Splits
from .ragged import along_rows, last_tokens, real

Function = Literal["softmax", "laplace", "relu2"]
MEAN, DEVIATION = 0.707107, 0.282095
"""Of the Laplace function, to the digits that Mega's code has."""


class GatedChunkAttention(Mixer):
    """u (h - x), which a residual sum makes the highway (1 - u) x + u h.

    With n the normed tokens and m what `move` (a token mixer) makes of them: u = sigmoid(.), z = silu(.), r = silu(.)
    and c of one projection of m; v = silu(.) of n, `values` wide; queries and keys are the `shared` channels of z, each
    with a gain and an offset a channel; inside chunks of `chunk` tokens v is averaged with weights f(q k), and
    h = silu(c + out(r * average)). `function` f is a softmax, or Laplace's or the squared ReLU of scores divided by
    the number of keys. Scores have a bias: a table of relative places, or, `rotary`, a product of two vectors turned.
    Causal where the context asks for it, or always with `causal_chunks`.
    """

    EXAMPLES = (
        {"shared": 8, "values": 12, "chunk": 8, "move": {"kind": "damped_average", "dims": 3}, "norm": "layer"},
        {"shared": 6, "values": 8, "chunk": 5, "move": {"kind": "temporal_convolution", "width": 3, "layers": 2},
         "function": "laplace", "rotary": True},
        {"shared": 4, "values": 8, "chunk": 8, "move": None, "function": "relu2", "causal_chunks": True},
        {"shared": 4, "values": 8, "chunk": 9, "move": {"kind": "damped_average", "dims": 2, "bidirectional": True}},
    )  # fmt: skip
    grids = (1,)
    packs = True
    causal: Causality = "on request"
    streams: Splits = "any"

    def __init__(
        self,
        dim: int,
        *,
        shared: Annotated[int, Field(gt=0)] = 64,
        values: Annotated[int, Field(gt=0)] | None = None,
        chunk: Annotated[int, Field(gt=0)] = 128,
        move: MixerSpec | None = "damped_average",
        function: Function = "softmax",
        rotary: bool = False,
        causal_chunks: bool = False,
        norm: NormSpec | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        at = place or Place("gated_chunk_attention")
        values = 2 * dim if values is None else values
        self.dim, self.chunk, self.function, self.always_causal = dim, chunk, function, causal_chunks
        self.widths = (dim, shared, values, dim)
        """Of the one projection: update gate, shared channels, reset gate, candidate."""
        self.norm = None if norm is None else build("norm", norm, dim, place=at.at("norm"))
        self.move: Mixer | None = None if move is None else build("mixer", move, dim, place=at.at("move"))
        self.value, self.project, self.out = Dense(dim, values), Dense(dim, sum(self.widths)), Dense(values, dim)
        self.gain, self.offset = (nn.Parameter(torch.empty(2, shared)) for _ in range(2))
        if rotary and shared % 2:
            raise BadSpec(f"a rotary bias turns pairs of channels: shared is even, got {shared}")
        sizes = {"turned_alpha": (shared,), "turned_beta": (shared,)} if rotary else {"table": (2 * chunk - 1,)}
        self.rotary = rotary
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(size)))
        if not self.gain.is_meta:
            for parameter in (self.gain, *(getattr(self, name) for name in sizes)):
                nn.init.normal_(parameter, std=0.02)
            nn.init.zeros_(self.offset)
        self._narrow()

    def _narrow(self) -> None:
        """What `move` cannot do, the whole cannot either."""
        if self.always_causal:
            self.causal = "always"
        if self.move is not None:
            if 1 not in self.move.grids or not self.move.packs:
                raise BadSpec("move: a mixer of sequences that tells packed rows apart is needed")
            if self.move.causal == "never":
                self.causal, self.streams = "never", "no"
            elif self.move.streams != "any":
                self.streams = "no"
            self.state_growth = self.move.state_growth

    @property
    def undecayed(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("gain", "offset") + (("turned_alpha", "turned_beta") if self.rotary else ("table",))

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        causal = self.always_causal or ctx.causal or state is not None
        n = x if self.norm is None else self.norm(x)
        v = F.silu(self.value(n))
        m = n if self.move is None else self._moved(n, state, lengths, causal)
        update, shared, reset, candidate = self.project(m).split(self.widths, dim=-1)
        q, k = (F.silu(shared)[..., None, :] * self.gain + self.offset).unbind(-2)
        average = self._whole(q, k, v, lengths, causal) if state is None else self._later(q, k, v, state, lengths)
        h = F.silu(candidate + self.out(F.silu(reset) * average))
        return torch.sigmoid(update) * (h - x)

    def _moved(self, n: Tensor, state: State | None, lengths: Tensor | None, causal: bool) -> Tensor:
        assert self.move is not None
        below = None if state is None else state.under("move")
        padding = None if lengths is None else ~real(n, lengths)
        ctx = Context(causal=causal, padding=padding, key_padding=padding if state is None else None)
        y: Tensor = self.move(n, ctx, below)
        return y

    def _whole(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None, causal: bool) -> Tensor:
        """Rows from their beginning, chunk beside chunk."""
        length, size = q.shape[1], self.chunk
        more = 1 if torch.compiler.is_exporting() else 0  # so that no length is a special case to an exporter
        num = (length + size - 1) // size + more
        at = torch.arange(num, device=q.device)[:, None] * size + torch.arange(size, device=q.device)
        q, k, v = (F.pad(part, (0, 0, 0, num * size - length))[:, at] for part in (q, k, v))  # (B, num, size, .)
        steps = torch.arange(size, device=q.device)
        seen = (at < length)[None, :, None] if lengths is None else (at < lengths[:, None, None])[:, :, None]
        visible = seen.expand(-1, -1, size, -1)
        if causal:
            visible = visible & (steps <= steps[:, None])
        visible = visible | (steps == steps[:, None])  # padding sees itself, so that no row is empty
        y = self._weights(q @ k.mT, self.bias(), visible) @ v
        return y.flatten(1, 2).index_select(1, torch.arange(length, device=q.device))

    def _later(self, q: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None) -> Tensor:
        """The next tokens of streams, behind the keys and values of their chunk so far; long rows piece by piece."""
        keys, values, seen = (state.slot(name) for name in ("keys", "values", "count"))
        k_past, v_past, count = keys.value.to(k.dtype), values.value.to(v.dtype), seen.value
        k_last, v_last = (last_tokens(*pair, lengths).clone() for pair in ((k_past, k), (v_past, v)))
        found = []
        for q_n, k_n, v_n in zip(*(part.split(4 * self.chunk, dim=1) for part in (q, k, v)), strict=True):
            k_all, v_all = torch.cat([k_past, k_n], dim=1), torch.cat([v_past, v_n], dim=1)
            steps = torch.arange(k_all.shape[1], device=k.device)
            own = steps[k_past.shape[1] :, None]
            places = count[:, None] + steps - k_past.shape[1]
            mine = places[:, k_past.shape[1] :, None]
            visible = (steps <= own) & (places[:, None] >= mine // self.chunk * self.chunk)
            bias = self.bias()[mine % self.chunk, places[:, None] % self.chunk]
            found.append(self._weights(q_n @ k_all.mT, bias, visible) @ v_all)
            k_past, v_past, count = last_tokens(k_past, k_n, None), last_tokens(v_past, v_n, None), count + q_n.shape[1]
        length = q.shape[1] if lengths is None else lengths
        count = seen.value + length
        for slot, value in ((keys, k_last), (values, v_last), (seen, count)):
            slot.put(value)
        return torch.cat(found, dim=1) if found else v

    def bias(self) -> Tensor:
        """(chunk, chunk) added to the score of query (row) and key (column)."""
        steps = torch.arange(self.chunk, device=self.gain.device)
        if not self.rotary:
            return self._own("table")[steps - steps[:, None] + self.chunk - 1]
        half = self.gain.shape[1] // 2
        rates = 10000.0 ** (-torch.arange(half, device=steps.device, dtype=torch.float32) / half)
        angles = (steps[:, None] * rates).to(self.gain.dtype)
        cos, sin = angles.cos(), angles.sin()

        def turned(vector: Tensor) -> Tensor:
            first, second = vector.chunk(2)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

        return turned(self._own("turned_alpha")) @ turned(self._own("turned_beta")).mT

    def _own(self, name: str) -> Tensor:
        parameter = getattr(self, name)
        assert isinstance(parameter, Tensor)
        return parameter

    def _weights(self, scores: Tensor, bias: Tensor, visible: Tensor) -> Tensor:
        """(..., queries, keys) from products of queries and keys."""
        wide = torch.promote_types(scores.dtype, torch.float32)
        if self.function == "softmax":
            scores = scores * self.gain.shape[1] ** -0.5 + bias
            return scores.masked_fill(~visible, float("-inf")).softmax(-1, dtype=wide).to(scores.dtype)
        scores = scores / visible.sum(-1, keepdim=True).to(scores.dtype) + bias
        if self.function == "relu2":
            weights = F.relu(scores).square()
        else:
            weights = 0.5 * (1 + torch.erf((scores - MEAN) / (DEVIATION * math.sqrt(2))))
        return weights.masked_fill(~visible, 0)

    def new_state(self, batch: int, capacity: int) -> State | None:
        if self.streams == "no":
            return None
        weight, kept = self.out.weight, self.chunk - 1
        state = State(
            keys=Slot(weight.new_zeros(batch, kept, self.gain.shape[1])),
            values=Slot(weight.new_zeros(batch, kept, self.value.out_features)),
            count=Slot(torch.zeros(batch, dtype=torch.long, device=weight.device)),
        )
        below = None if self.move is None else self.move.new_state(batch, capacity)
        if below is not None:
            state.put("move", below)
        return state

    def macs(self, tokens: int, past: int = 0) -> int:
        seen = min(self.chunk, tokens + past)
        inner = 0 if self.move is None else self.move.macs(tokens, past)
        return tokens * seen * (self.gain.shape[1] + self.value.out_features) + inner
