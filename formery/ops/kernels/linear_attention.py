"""Linear attention with and without decays by Triton kernels: the form of gated linear attention and of state space
duality, which is the same with one decay a head and token, and keys and queries shared by heads.

Shapes: q, k (B, L, G, K); v (B, L, H, V) with H = G R; g (B, L, H), (B, L, G, K) where R is 1, or None; states
(B, H, K, V). Any sizes: tiles are powers of 2 with the rest masked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .device.channel_pairs import pair_gradients, score_gradients, scores
from .device.decayed_keys import key_gradients
from .device.decayed_outputs import outputs, value_gradients
from .device.decayed_states import state_gradients, states
from .launch import Rows, launch, precision, rows, stored, tile

CHUNK = 64
"""Tokens a chunk."""
BLOCK = 16
"""Tokens of a chunk whose pairs are written out where every channel has its decay."""
TOGETHER = 8
"""Heads with common keys whose gradients one program adds up, at most."""


class Call(NamedTuple):
    """What all kernels of one call have in common."""

    q: Rows
    k: Rows
    v: Rows
    g: Rows | None
    batch: int
    length: int
    heads: int
    shared: int  # heads a key
    key: int
    value: int
    chunk: int
    how: str

    @property
    def gate(self) -> int:
        """Which decays: none, one a token, one a channel."""
        return 0 if self.g is None else self.g[0].dim() - 2

    @property
    def chunks(self) -> int:
        """How many."""
        return -(-self.length // self.chunk)

    def each(self, pieces: int) -> int:
        """Programs where each chunk of each head has so many."""
        return self.batch * self.heads * self.chunks * pieces

    def tiles(self) -> dict[str, Any]:
        """Sizes as the kernels name them."""
        sizes = {"K": self.key, "V": self.value, "C": self.chunk}
        return {**sizes, "BK": self.tile(self.key), "BV": self.tile(self.value), "HOW": self.how}

    def tile(self, width: int) -> int:
        """Channels a tile has: products of float32 take twice the registers and shared memory, and more."""
        return tile(width, 64 if self.how == "bf16" else 32)

    def kept(self) -> Tensor:
        """Room for a state a chunk."""
        shape = self.batch, self.chunks, self.heads, self.key, self.value
        return self.v[0].new_empty(shape, dtype=stored(self.how))

    def pairs(self) -> Tensor:
        """Room for a number each pair of a chunk's tokens."""
        shape = self.batch, self.length, self.heads, self.chunk
        return self.v[0].new_empty(shape, dtype=stored(self.how))


def call_of(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, chunk: int) -> Call:
    """The call for these inputs."""
    (B, L, G, K), (H, V) = q.shape, v.shape[2:]
    if g is not None and g.dim() == 4 and g.shape[3] == 1:
        g = g[..., 0]
    how = precision(q, k, v)
    return Call(rows(q), rows(k), rows(v), None if g is None else rows(g), B, L, H, H // G, K, V, chunk, how)


def parts(width: int, size: int) -> int:
    """Tiles of `size` channels in `width`."""
    return -(-width // size)


def run_states(c: Call, state: Tensor, kept: Tensor | None) -> Tensor:
    """The last state, and in `kept` those before each chunk."""
    last = state.new_empty(state.shape, dtype=torch.float32)
    sizes = c.tiles()
    grid = (c.batch * c.heads * parts(c.key, sizes["BK"]) * parts(c.value, sizes["BV"]),)
    launch(
        states, grid, c.k, c.v, c.g, state, kept, last, c.length, c.heads, c.shared, c.chunks,
        GATE=c.gate, KEEP=kept is not None, num_warps=4, num_stages=2, **sizes,
    )  # fmt: skip
    return last


def run_scores(c: Call) -> Tensor | None:
    """The pairs of each chunk where channels have their own decays; elsewhere they are made where they are used."""
    if c.gate != 2:
        return None
    found = c.pairs()
    launch(
        scores, (c.each(c.chunk // BLOCK),), c.q, c.k, c.g, rows(found), c.length, c.heads, c.chunks,
        K=c.key, C=c.chunk, BC=BLOCK, BK=c.tile(c.key), HOW=c.how, num_warps=4, num_stages=2,
    )  # fmt: skip
    return found


def run_outputs(c: Call, kept: Tensor, found: Tensor | None, out: Tensor) -> None:
    """`out` (B, L, H, V), from the states before chunks."""
    sizes = c.tiles()
    launch(
        outputs, (c.each(parts(c.value, sizes["BV"])),), c.q, c.k, c.v, c.g, kept,
        None if found is None else rows(found), rows(out), c.length, c.heads, c.shared, c.chunks,
        GATE=c.gate, num_warps=4, num_stages=2, **sizes,
    )  # fmt: skip


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """o (B, L, H, V) in v's dtype and the last state in float32."""
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    if out.numel() == 0 or state.numel() == 0:
        return out.zero_(), state.to(torch.float32, copy=True)
    c = call_of(q, k, v, g, chunk)
    kept = c.kept()
    last = run_states(c, state.contiguous(), kept)
    run_outputs(c, kept, run_scores(c), out)
    return out, last


def run_state_gradients(c: Call, d_o: Rows, d_last: Tensor) -> tuple[Tensor, Tensor]:
    """Of the states after each chunk, and of the first."""
    kept, d_first = c.kept(), torch.empty_like(d_last)
    sizes = c.tiles()
    grid = (c.batch * c.heads * parts(c.key, sizes["BK"]) * parts(c.value, sizes["BV"]),)
    launch(
        state_gradients, grid, c.q, d_o, c.g, d_last, kept, d_first, c.length, c.heads, c.shared, c.chunks,
        GATE=c.gate, num_warps=4, num_stages=2, **sizes,
    )  # fmt: skip
    return kept, d_first


def run_value_gradients(c: Call, d_o: Rows, d_kept: Tensor | None, found: Tensor | None, d_v: Tensor) -> None:
    """`d_v`; without what the states ask for where there is no `d_kept`."""
    sizes = c.tiles()
    launch(
        value_gradients, (c.each(parts(c.value, sizes["BV"])),), c.q, c.k, d_o, c.g, d_kept,
        None if found is None else rows(found), rows(d_v), c.length, c.heads, c.shared, c.chunks,
        GATE=c.gate, WRITTEN=d_kept is not None, num_warps=4, num_stages=2, **sizes,
    )  # fmt: skip


def run_pair_gradients(c: Call, d_o: Rows) -> tuple[Tensor | None, Tensor | None]:
    """What pairs give to the gradients of q and k where channels have their own decays."""
    if c.gate != 2:
        return None, None
    asked = c.pairs()
    launch(
        score_gradients, (c.each(1),), c.v, d_o, rows(asked), c.length, c.heads, c.chunks,
        V=c.value, C=c.chunk, BV=c.tile(c.value), HOW=c.how, num_warps=4, num_stages=2,
    )  # fmt: skip
    shape = c.batch, c.length, c.heads, c.key
    d_q, d_k = (c.v[0].new_empty(shape, dtype=torch.float32) for _ in range(2))
    size = c.tile(c.key)
    launch(
        pair_gradients, (c.each(parts(c.key, size) * (c.chunk // BLOCK)),), c.q, c.k, c.g, rows(asked), rows(d_q),
        rows(d_k), c.length, c.heads, c.chunks, K=c.key, C=c.chunk, BC=BLOCK, BK=size, HOW=c.how, num_warps=4,
        num_stages=2,
    )  # fmt: skip
    return d_q, d_k


def run_key_gradients(
    c: Call, d_o: Rows, kept: Tensor, d_kept: Tensor, *, decays: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of q, k (B, L, G, K) and g, the last None unless `decays`."""
    together = next(n for n in range(min(TOGETHER, c.shared), 0, -1) if c.shared % n == 0)
    split = c.shared // together
    groups, sizes = c.heads // c.shared, c.tiles()
    if together > 1 and c.how != "bf16":
        sizes["BK"] = 16  # sums over heads take registers too
    tiles_k = parts(c.key, sizes["BK"])
    shape = c.batch, c.length, groups * split, c.key
    d_q, d_k = (x[0].new_empty(shape, dtype=torch.float32 if split > 1 else x[0].dtype) for x in (c.q, c.k))
    d_g = None
    if decays and c.g is not None:
        ahead = (tiles_k,) if c.gate == 1 else ()
        d_g = c.v[0].new_empty((*ahead, *c.g[0].shape), dtype=torch.float32)
    first = None if d_g is None else rows(d_g[0] if c.gate == 1 else d_g)
    pairs_q, pairs_k = run_pair_gradients(c, d_o)
    launch(
        key_gradients, (c.batch * groups * split * tiles_k * c.chunks,), c.q, c.k, c.v, c.g, d_o, kept, d_kept,
        None if pairs_q is None else rows(pairs_q), None if pairs_k is None else rows(pairs_k), rows(d_q), rows(d_k),
        first, 0 if d_g is None else d_g.stride(0), c.length, c.heads, c.shared, c.chunks,
        GATE=c.gate, HEADS=together, DECAYS=d_g is not None, num_warps=8, num_stages=1, **sizes,
    )  # fmt: skip
    if split > 1:
        d_q, d_k = (x.unflatten(2, (groups, split)).sum(3) for x in (d_q, d_k))
    if d_g is not None and c.gate == 1:
        d_g = d_g.sum(0)
    return d_q, d_k, d_g


def backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor, d_o: Tensor, d_last: Tensor,
    chunk: int = CHUNK, *, decays: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    """Gradients of q, k, v, g and the state, in their dtypes; the states between chunks are computed again.

    That of g is None where there is none, or without `decays`.
    """
    if v.numel() == 0 or state.numel() == 0:
        d_q, d_k, d_v = (torch.zeros_like(x) for x in (q, k, v))
        return d_q, d_k, d_v, None if g is None else torch.zeros_like(g), d_last.to(state.dtype, copy=True)
    c, out = call_of(q, k, v, g, chunk), rows(d_o)
    kept, d_v = c.kept(), torch.empty_like(v, memory_format=torch.contiguous_format)
    run_states(c, state.contiguous(), kept)
    d_kept, d_first = run_state_gradients(c, out, d_last.float().contiguous())
    run_value_gradients(c, out, d_kept, run_scores(c), d_v)
    d_q, d_k, d_g = run_key_gradients(c, out, kept, d_kept, decays=decays)
    of_g = None if g is None or d_g is None else d_g.view(g.shape).to(g.dtype)
    return d_q.to(q.dtype), d_k.to(k.dtype), d_v, of_g, d_first.to(state.dtype)
