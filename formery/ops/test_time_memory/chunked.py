"""Test-time memories by chunks: with all gradients of a chunk taken at its start, weights and momentum are sums.

With G_e the gradient of pair e (e runs over the chunk's tokens and the window - 1 pairs before them), s and m the
weights and momentum before the chunk, and the gates' products written out as lower triangular matrices,

    S_t = theta_1..t m + sum_e A_te G_e,     A = Theta diag(write) band diag(weight)
    W_t = alpha_1..t s - sum_i (Alpha diag(rate))_ti S_i.

As every G_e is an outer product, what W_t makes of a query is three products of a width, and no W_t is written out.
Orthogonalised steps are not linear in S: then every S_t of the chunk is written out, and every W_t.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..gated_delta_rule.reference import running_sum
from ..newton_schulz import newton_schulz
from .network import Factors, factors, matrices, through
from .rule import Gates, Memory, Rule, Weights, closed, last_pairs, wide, working_dtype


class Piece(NamedTuple):
    """Tokens of one chunk, C of them, and their E = C + window - 1 pairs."""

    q: Tensor  # (B, H, C, K)
    k: Tensor  # (B, H, E, K)
    v: Tensor  # (B, H, E, V)
    retain: Tensor  # (B, H, C), like the next two
    rate: Tensor
    write: Tensor
    weight: Tensor  # (B, H, E)
    momentum: Tensor | None = None  # (B, H, C)


class Sums(NamedTuple):
    """The gates of a piece as sums: see the equations above."""

    kept: Tensor  # (B, H, C, 1), alpha_1..t
    steps: Tensor  # (B, H, C, C), Alpha diag(rate)
    pairs: Tensor  # (B, H, C, E), A
    carried: Tensor | None  # (B, H, C, 1), theta_1..t


def products(log: Tensor) -> tuple[Tensor, Tensor]:
    """(x_1 ... x_t) (..., C, 1), and (x_{s+1} ... x_t) for s <= t, else 0 (..., C, C), of logarithms (..., C)."""
    c = running_sum(log)[..., None]
    at = torch.arange(log.shape[-1], device=log.device)
    fall = torch.where(at[:, None] >= at, c - c.mT, -torch.inf)
    return c.to(log.dtype).exp(), fall.to(log.dtype).exp()


def sums(piece: Piece, rule: Rule) -> Sums:
    """See above."""
    kept, alpha = products(piece.retain)
    at = torch.arange(piece.q.shape[2], device=piece.q.device)[:, None]
    late = torch.arange(piece.k.shape[2], device=piece.q.device) - at
    band = ((late >= 0) & (late < rule.window)).to(piece.q.dtype)
    pairs, carried = band * piece.weight[..., None, :] * piece.write[..., None], None
    if piece.momentum is not None:
        carried, theta = products(piece.momentum)
        pairs = theta @ pairs
    return Sums(kept, alpha * piece.rate[..., None, :], pairs, carried)


Layers = tuple[Weights, Weights, Weights]
"""Weights, the weights before the chunk, momentum."""


def advance(piece: Piece, weights: Weights, frozen: Weights, momentum: Weights, rule: Rule) -> tuple[Tensor, Layers]:
    """What the piece's queries read (B, H, C, V), and the weights and momentum behind it; `frozen` is passed on."""
    by = sums(piece, rule)
    found = factors(frozen, piece.k, piece.v, rule)
    make = orthogonalised if rule.orthogonal else linear
    return make(piece.q, by, found, weights, frozen, momentum, rule)


def linear(
    q: Tensor, by: Sums, found: Factors, weights: Weights, frozen: Weights, momentum: Weights, rule: Rule
) -> tuple[Tensor, Layers]:
    """Steps as they are: weights stay sums of outer products."""
    spread = by.steps @ by.pairs  # (B, H, C, E)
    faded = None if by.carried is None else by.steps @ by.carried  # (B, H, C, 1)

    def layer(i: int, x: Tensor) -> Tensor:
        z = by.kept * (x @ weights[i]) - ((x @ found.left[i].mT) * spread) @ found.right[i]
        return z if faded is None else z - faded * (x @ momentum[i])

    def gain() -> Tensor:
        assert found.gain is not None
        w = by.kept * weights[-1] - spread @ found.gain
        return w if faded is None else w - faded * momentum[-1]

    num = len(matrices(weights, rule))
    y = through(q, num, layer, gain, rule)
    ends, speeds = [], []
    for i, w in enumerate(weights):
        end = by.kept[:, :, -1:] * w - _total(found, i, num, spread[:, :, -1:])
        if by.carried is not None and faded is not None:
            end = end - faded[:, :, -1:] * momentum[i]
            speeds.append(by.carried[:, :, -1:] * momentum[i] + _total(found, i, num, by.pairs[:, :, -1:]))
        ends.append(end)
    return y, (tuple(ends), frozen, tuple(speeds))


def _total(found: Factors, i: int, num: int, by: Tensor) -> Tensor:
    """The sum of the pairs' gradients for tensor i of the weights, each by its factor (B, H, 1, E)."""
    if i < num:
        return (found.left[i].mT * by) @ found.right[i]
    assert found.gain is not None
    return by @ found.gain


def orthogonalised(
    q: Tensor, by: Sums, found: Factors, weights: Weights, frozen: Weights, momentum: Weights, rule: Rule
) -> tuple[Tensor, Layers]:
    """Steps of singular values near 1: every token's momentum and weights are written out."""
    num = len(matrices(weights, rule))
    each, speeds = [], []
    for i, w in enumerate(weights):
        if i < num:
            outer = found.left[i][..., None] * found.right[i][..., None, :]  # (B, H, E, in, out)
            S = (by.pairs @ outer.flatten(3)).unflatten(-1, outer.shape[3:])
        else:
            assert found.gain is not None
            S = (by.pairs @ found.gain)[..., None, :]
        if by.carried is not None:
            S = S + by.carried[..., None] * momentum[i][:, :, None]
            speeds.append(S[:, :, -1])
        taken = newton_schulz(S) if i < num else S
        moved = (by.steps @ taken.flatten(3)).unflatten(-1, taken.shape[3:])
        each.append(by.kept[..., None] * w[:, :, None] - moved)  # (B, H, C, in, out)
    y = through(
        q, num, lambda i, x: (x[..., None, :] @ each[i]).squeeze(-2), lambda: each[-1].squeeze(-2), rule
    )  # fmt: skip
    return y, (tuple(w[:, :, -1] for w in each), frozen, tuple(speeds))


# ------------------------------------------------------------------------------------------------ whole rows


def chunked(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """`reference` by chunks. Rows whose chunks begin together are cut where they begin, others are laid out so."""
    if memory.open is not None and q.shape[1] == 1:
        return token(q, k, v, gates, memory, rule, lengths)
    if lengths is None:
        if memory.open is None or memory.open.is_meta:  # without values: as if every row were at a chunk's start
            return together(q, k, v, gates, memory, rule, 0)
        if not bool((memory.open != memory.open[:1]).any()):
            return together(q, k, v, gates, memory, rule, int(memory.open.sum()) // max(1, memory.open.shape[0]))
    return apart(q, k, v, gates, memory, rule, lengths, known=not q.is_meta)


def token(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """A single token, wherever in its chunk each row is; `lengths` (B,) say whether a row has it."""
    dtype = working_dtype(q, memory)
    past, gates = wide(memory, dtype), closed(gates, lengths, dtype)
    assert past.open is not None
    rows, tails = laid(q, k, v, gates, past)
    y, (weights, frozen, momentum) = advance(cut(rows, 0, 1, rule), past.weights, past.frozen, past.momentum, rule)
    now = past.open + (1 if lengths is None else lengths)
    frozen = at_ends(now == rule.chunk, weights, frozen)
    keys, values, counts = (last_pairs(*pair, lengths) for pair in tails)
    after = Memory(weights, frozen, momentum, keys, values, counts, now % rule.chunk)
    return y.transpose(1, 2).to(v.dtype), after


def together(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, num_open: int
) -> tuple[Tensor, Memory]:
    """Rows with as many tokens in the open chunk, `num_open`."""
    dtype, length = working_dtype(q, memory), int(q.shape[1])
    past, gates = wide(memory, dtype), closed(gates, None, dtype)
    rows, tails = laid(q, k, v, gates, past)
    weights, momentum = past.weights, past.momentum
    frozen = weights if past.open is None else past.frozen
    outputs, start = [v[:, :0].transpose(1, 2)], 0
    while start < length:
        end = min(length, start + rule.chunk - num_open)
        y, (weights, frozen, momentum) = advance(cut(rows, start, end, rule), weights, frozen, momentum, rule)
        outputs.append(y.to(v.dtype))
        num_open = (num_open + end - start) % rule.chunk
        frozen = tuple(w.clone() for w in weights) if num_open == 0 else frozen  # two states, two memories
        start = end
    now = torch.full((q.shape[0],), num_open, device=q.device)
    keys, values, counts = (last_pairs(*pair, None) for pair in tails)
    return torch.cat(outputs, dim=2).transpose(1, 2), Memory(weights, frozen, momentum, keys, values, counts, now)


def laid(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, past: Memory
) -> tuple[list[Tensor | None], list[tuple[Tensor, Tensor]]]:
    """A piece's tensors for all tokens, batch first (B, L or L + window - 1, H, ...), and (past, new) of the pairs."""
    dtype = past.weights[0].dtype
    assert gates.weight is not None
    tails = [(past.keys, k.to(dtype)), (past.values, v.to(dtype)), (past.counts, gates.weight)]
    keys, values, weight = (torch.cat(pair, dim=1) for pair in tails)
    return [q.to(dtype), keys, values, gates.retain, gates.rate, gates.write, weight, gates.momentum], tails


PAIRS = (1, 2, 6)
"""Which entries of a piece are of pairs."""


def cut(rows: list[Tensor | None], start: int, end: int, rule: Rule) -> Piece:
    """Tokens `start` to `end`."""
    more = [rule.window - 1 if i in PAIRS else 0 for i in range(len(rows))]
    return Piece(*(
        None if x is None else x[:, start : end + m].transpose(1, 2) for x, m in zip(rows, more, strict=True)
    ))  # type: ignore[arg-type] # fmt: skip


def shifted(x: Tensor, start: Tensor, count: Tensor, size: int) -> Tensor:
    """Rows (B, size, ...) that hold the first `count` (B,) entries of x (B, N, ...) from `start` (B,) on, else 0."""
    at = torch.arange(size, device=x.device) - start[:, None]
    real = (at >= 0) & (at < count[:, None])
    found = x[torch.arange(x.shape[0], device=x.device)[:, None], at.clamp(0, x.shape[1] - 1)]
    return torch.where(real.view(*real.shape, *(1,) * (x.dim() - 2)), found, 0.0)


class Chunks(NamedTuple):
    """Rows laid out so that their chunks begin together."""

    rows: list[Tensor | None]
    """As of `laid`, `num` chunks long."""
    start: Tensor
    """(B,) where a row's first token is."""
    end: Tensor
    """(B,) where its last one ends."""
    complete: Tensor
    """(num, B) whether the row fills that chunk."""
    tails: list[tuple[Tensor, Tensor]]
    now: Tensor
    """(B,) tokens of the open chunk at the end."""


def aligned(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, past: Memory, rule: Rule, lengths: Tensor | None,
    num: int,
) -> Chunks:  # fmt: skip
    """Rows laid out in `num` chunks, each at its own place in the first of them."""
    (B, L), C = q.shape[:2], rule.chunk
    start = torch.zeros(B, dtype=torch.long, device=q.device) if past.open is None else past.open
    count = torch.full_like(start, 1) * L if lengths is None else lengths
    rows, tails = laid(q, k, v, gates, past)
    for i, x in enumerate(rows):
        if x is not None:
            more = rule.window - 1 if i in PAIRS else 0
            rows[i] = shifted(x, start, count + more, num * C + more)
    end = start + count
    ends = (torch.arange(num, device=q.device) + 1) * C
    return Chunks(rows, start, end, ends[:, None] <= end, tails, end % C)


def apart(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None = None,
    *, known: bool = False,
) -> tuple[Tensor, Memory]:  # fmt: skip
    """Rows with chunks of their own. With `known` numbers, what no row has a token for is left out."""
    dtype, length, C = working_dtype(q, memory), int(q.shape[1]), rule.chunk
    past, gates = wide(memory, dtype), closed(gates, lengths, dtype)
    num = (length + (0 if past.open is None else C - 1) + C - 1) // C
    found = aligned(q, k, v, gates, past, rule, lengths, num)
    weights, momentum = past.weights, past.momentum
    frozen = weights if past.open is None else past.frozen
    first, last = (int(found.start.min()), int(found.end.max())) if known and len(q) else (0, num * C)
    outputs = [v.new_zeros(v.shape[0], v.shape[2], first, v.shape[3])]
    for n in range(num):
        start, end = max(n * C, first), min(n * C + C, last)
        if start < end:
            piece = cut(found.rows, start, end, rule)
            y, (weights, frozen, momentum) = advance(piece, weights, frozen, momentum, rule)
            outputs.append(y.to(v.dtype))
            frozen = at_ends(found.complete[n], weights, frozen)
    outputs.append(v.new_zeros(v.shape[0], v.shape[2], num * C - max(first, last), v.shape[3]))
    return gathered(torch.cat(outputs, dim=2), found, length), closing(found, weights, frozen, momentum, lengths)


def at_ends(complete: Tensor, weights: Weights, frozen: Weights) -> Weights:
    """The weights where a chunk is complete (B,)."""
    full = complete[:, None, None, None]
    return tuple(torch.where(full, w, f) for w, f in zip(weights, frozen, strict=True))


def gathered(y: Tensor, found: Chunks, length: int) -> Tensor:
    """Each row's own tokens (B, L, H, V) of y (B, H, num C, V)."""
    at = found.start[:, None] + torch.arange(length, device=y.device)
    return y.transpose(1, 2)[torch.arange(y.shape[0], device=y.device)[:, None], at]


def closing(
    found: Chunks, weights: Weights, frozen: Weights, momentum: Weights, lengths: Tensor | None
) -> Memory:  # fmt: skip
    """What is carried on."""
    keys, values, counts = (last_pairs(*pair, lengths) for pair in found.tails)
    return Memory(weights, frozen, momentum, keys, values, counts, found.now)
