"""State space duality in chunks (arXiv 2405.21060, section 6) with its gradient.

With l the running sum of g in a chunk of T tokens, and S the state before it,

    Y = M X + exp(l) (C S),       M_ij = (c_i . b_j) exp(l_i - l_j) for j <= i;
    S' = exp(l_T) S + B^T (exp(l_T - l) X).

Heads of a group share B and C, so that C S and B^T X are one product a group, with the heads' channels side by side as
they lie in memory; only M is made for each head. Everything of a chunk is computed when its turn comes, in memory that
stays in the processor's cache: the mask of all chunks at once would not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..exponential import LOG2_E
from ..gated_delta_rule.reference import running_sum, working_dtype
from .traced import differentiable


class Chunk(NamedTuple):
    """What one chunk is made of, with batch and groups in one axis (n = B G) and R heads a group."""

    x: Tensor  # (n, T, R P)
    b: Tensor  # (n, T, N)
    c: Tensor  # (n, T, N)
    grown: Tensor  # (n, T, R, 1), exp(l)
    left: Tensor  # (n, T, R, 1), exp(l_T - l)
    decay: Tensor  # (n, R, T, T), exp(l_i - l_j) for j <= i, else 0

    def by_head(self, rows: Tensor) -> Tensor:
        """(n, T, R P) as (n, T, R, P)."""
        return rows.unflatten(-1, (self.decay.shape[1], -1))


def grouped(x: Tensor, groups: int) -> Tensor:
    """(B, T, H, ...) as (B G, T, R, ...): the heads of a group together; a view where there is one group."""
    return x.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)


def ungrouped(x: Tensor, groups: int) -> Tensor:
    """(B G, T, R, ...) as (B, T, H, ...)."""
    return x.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2, 3)


def cut(inputs: tuple[Tensor, ...], start: int, end: int, dtype: torch.dtype) -> Chunk:
    """Tokens `start` to `end` of (x, g, b, c)."""
    x, g, b, c = (part[:, start:end].to(dtype) for part in inputs)
    groups = b.shape[2]
    sums = running_sum(grouped(g, groups).mT).mul_(LOG2_E)  # (n, R, T), for powers of 2
    # Above the diagonal the exponent is positive and may overflow: tril discards it, it never multiplies it by zero.
    decay = (sums[..., None] - sums[..., None, :]).to(dtype).exp2_().tril_()
    grown, left = (e.to(dtype).exp2().mT[..., None] for e in (sums, sums[..., -1:] - sums))
    b, c = (part.transpose(1, 2).flatten(0, 1) for part in (b, c))
    return Chunk(grouped(x, groups).flatten(2), b, c, grown, left, decay)


def side_by_side(state: Tensor, groups: int) -> Tensor:
    """The states (B, H, N, P) of heads as those of groups, (B G, N, R P)."""
    return state.unflatten(1, (groups, -1)).transpose(2, 3).flatten(0, 1).flatten(2)


def apart(state: Tensor, groups: int, heads: int) -> Tensor:
    """What `side_by_side` undoes."""
    return state.unflatten(-1, (heads // groups, -1)).unflatten(0, (-1, groups)).transpose(2, 3).flatten(1, 2)


def forward(
    inputs: tuple[Tensor, ...], state: Tensor, chunk: int, boundaries: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) and the last state; the state before each chunk is appended to `boundaries`."""
    x, _, b, _ = inputs
    (_, L, H, _), G, dtype = x.shape, b.shape[2], working_dtype(x, state)
    S = side_by_side(state.to(dtype), G)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for start in range(0, L, chunk):
        end = min(start + chunk, L)
        if boundaries is not None:
            boundaries.append(S)
        part = cut(inputs, start, end, dtype)
        values = part.by_head(part.x)
        y = part.by_head(torch.bmm(part.c, S)).mul_(part.grown)
        mask = part.decay.mul_(torch.bmm(part.c, part.b.mT)[:, None])
        y += torch.matmul(mask, values.transpose(1, 2)).transpose(1, 2)
        out[:, start:end] = ungrouped(y, G)
        S = decayed(S, part).baddbmm_(part.b.mT, (values * part.left).flatten(2))
    last = apart(S, G, H)
    return out, last.clone() if L == 0 else last.contiguous()


def decayed(S: Tensor, part: Chunk) -> Tensor:
    """The states (n, N, R P) after the whole chunk's decay."""
    return (part.by_head(S) * part.grown[:, -1:]).flatten(2)


def backward(
    inputs: tuple[Tensor, ...], boundaries: list[Tensor], chunk: int, d_y: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of (x, g, b, c, state) from those of the output and the last state, chunks in reverse.

    Only the states between chunks are kept from the forward; the rest of a chunk is computed again.
    """
    x, _, b, _ = inputs
    (B, L, H, _), G, dtype = x.shape, b.shape[2], d_state.dtype
    dS = side_by_side(d_state, G)
    gradients = tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in inputs)
    for index in reversed(range(len(boundaries))):
        start, end = index * chunk, min((index + 1) * chunk, L)
        part = cut(inputs, start, end, dtype)
        dy = grouped(d_y[:, start:end].to(dtype), G)  # (n, T, R, P)
        (dx, dg, db, dc), dS = _backward_of_chunk(part, boundaries[index], dy, dS)
        gradients[0][:, start:end], gradients[1][:, start:end] = ungrouped(dx, G), ungrouped(dg, G)
        for gradient, value in zip(gradients[2:], (db, dc), strict=True):
            gradient[:, start:end] = value.unflatten(0, (B, G)).transpose(1, 2)
    return *gradients, apart(dS, G, H).contiguous()


def _backward_of_chunk(part: Chunk, S: Tensor, dy: Tensor, dS: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Gradients of x (n, T, R, P), g (n, T, R), b, c (n, T, N) of one chunk, and of the state before it."""
    values, scores = part.by_head(part.x), torch.bmm(part.c, part.b.mT)[:, None]
    mask = part.decay * scores
    by_value = dy.transpose(1, 2)  # (n, R, T, P)
    d_mask = torch.matmul(by_value, values.transpose(1, 2).mT)
    # exp(l_i - l_j) takes M dM: row sums for l_i, minus column sums for l_j. What lies above the diagonal meets zeros.
    inner = d_mask * mask
    d_scores = d_mask.mul_(part.decay).sum(1)
    read, dy_grown = part.by_head(torch.bmm(part.c, S)), dy * part.grown
    written = part.by_head(torch.bmm(part.b, dS))  # of exp(l_T - l) X
    dx = torch.addcmul(torch.matmul(mask.mT, by_value).transpose(1, 2), written, part.left)
    flat, left = dy_grown.flatten(2), values * part.left
    dc = torch.bmm(d_scores, part.b).baddbmm_(flat, S.mT)
    db = torch.bmm(d_scores.mT, part.c).baddbmm_(left.flatten(2), dS.mT)
    by_left = (written * left).sum(-1)  # (n, T, R)
    d_sums = (dy_grown * read).sum(-1) - by_left + (inner.sum(-1) - inner.sum(-2)).mT
    ends = part.by_head(S * dS).sum((1, 3)) * part.grown[:, -1, :, 0]
    d_sums[:, -1] += by_left.sum(1) + ends
    dg = d_sums.flip(1).cumsum(1).flip(1)
    return (dx, dg, db, dc), decayed(dS, part).baddbmm_(part.c.mT, flat)


class Chunked(torch.autograd.Function):
    """`forward` with `backward`; a gradient of the gradient goes through the differentiable form."""

    @staticmethod
    def forward(ctx: Any, chunk: int, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        boundaries: list[Tensor] = []
        out, last = forward(inputs, state, chunk, boundaries)
        ctx.save_for_backward(state, *inputs, *boundaries)
        ctx.chunk = chunk
        return out, last

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        state, x, g, b, c, *boundaries = ctx.saved_tensors
        if torch.is_grad_enabled():
            given = (state, x, g, b, c)
            wanted = [part for part in given if part.requires_grad]
            outputs = differentiable(x, g, b, c, state, ctx.chunk)
            found = iter(torch.autograd.grad(outputs, wanted, (d_y, d_state), create_graph=True))
            return None, *(next(found) if part.requires_grad else None for part in given)
        *gradients, before = backward((x, g, b, c), list(boundaries), ctx.chunk, d_y, d_state)
        return None, before.to(state.dtype), *gradients


CHUNK = 64
"""Tokens a chunk: 32, 64, 128, 256 take 22, 23, 36, 55 ms at 24 heads of 128 x 64 in one group and L 1024 (one thread
of an AMD EPYC, torch 2.13), with the gradient 123, 99, 109 ms (32 to 128); 195, 164, 202, 480 ms at 128 heads in 8
groups."""


def chunked(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens; the last one is as short as it is."""
    if torch.is_grad_enabled() and any(part.requires_grad for part in (x, g, b, c, state)):
        out, last = Chunked.apply(chunk, state, x, g, b, c)  # type: ignore[no-untyped-call]
        return out, last
    return forward((x, g, b, c), state, chunk)
