"""The gated delta rule in chunks (arXiv 2412.06464, section 3.3) with its gradient: one triangular solve a chunk.

With c the running sum of g in a chunk of C tokens, and S the state before it, the corrected values U solve

    (I + A) U = beta (V - (exp(c) K) S),    A_ij = beta_i (k_i . k_j) exp(c_i - c_j) for j < i;
    O = (exp(c) Q) S + P U,                 P_ij = (q_i . k_j) exp(c_i - c_j) for j <= i;
    S' = exp(c_C) S + (exp(c_C - c) K)^T U.

Everything of a chunk is computed when its turn comes, in memory that stays in the processor's cache. To compute what
does not depend on the state for all chunks at once is 1.5 to 4 times slower at L 4096 (AMD EPYC, torch 2.13): the
tensors no longer fit, and the fresh memory alone costs more than the products. So the Python loop is longer than
sqrt(L) on purpose: 100 us an iteration, against the milliseconds of the products in it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .reference import running_sum, working_dtype
from .traced import differentiable


class Chunk(NamedTuple):
    """What one chunk is made of, with batch and heads in one axis (n = B H): see the equations above.

    Without decay (g None) the last three are None: they would be ones, at 1.1 to 1.4 times the time of the forward.
    """

    q: Tensor  # (n, C, K)
    k: Tensor  # (n, C, K)
    v: Tensor  # (n, C, V)
    beta: Tensor  # (n, C, 1)
    grown: Tensor | None = None  # (n, C, 1), exp(c)
    left: Tensor | None = None  # (n, C, 1), exp(c_C - c)
    decay: Tensor | None = None  # (n, C, C), exp(c_i - c_j) for j <= i, else 0


Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]
"""q, k, v, g, beta."""


def cut(inputs: Inputs, start: int, end: int, dtype: torch.dtype) -> Chunk:
    """Tokens `start` to `end` of the inputs."""

    def rows(x: Tensor) -> Tensor:
        return x[:, start:end].transpose(1, 2).to(dtype).flatten(0, 1)

    q, k, v, g, beta = inputs
    own = rows(q), rows(k), rows(v), rows(beta)[..., None]
    if g is None:
        return Chunk(*own)
    c = running_sum(rows(g))[..., None]
    # Above the diagonal the exponent is positive and may overflow: tril discards it, it never multiplies it by zero.
    decay = (c - c.mT).to(dtype).exp_().tril_()
    return Chunk(*own, c.to(dtype).exp(), (c[:, -1:] - c).to(dtype).exp(), decay)


def times(x: Tensor, factor: Tensor | None) -> Tensor:
    """x factor, None standing for ones."""
    return x if factor is None else x * factor


def decayed_(x: Tensor, decay: Tensor | None) -> Tensor:
    """x (n, C, C), changed in place: each earlier token by what is left of it at the later one, later ones away."""
    return x.tril_() if decay is None else x.mul_(decay)


def added_(x: Tensor, y: Tensor, factor: Tensor | None) -> Tensor:
    """x + y factor, x changed in place."""
    return x.add_(y) if factor is None else x.addcmul_(y, factor)


def carried(S: Tensor, grown: Tensor | None, keys: Tensor, values: Tensor) -> Tensor:
    """exp(c_C) S + keys^T values."""
    return torch.baddbmm(S, keys.mT, values) if grown is None else (S * grown[:, -1:]).baddbmm_(keys.mT, values)


def solve(chunk: Chunk, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A, (I + A)^-1, the values' errors E = V - (exp(c) K) S, and U = (I + A)^-1 beta E.

    A forward substitution against the identity, then one product, is 4 times faster than a substitution against U's
    right side: the routine for triangular solves is slow where it has many columns.
    """
    matrix = decayed_(torch.bmm(chunk.k, chunk.k.mT), chunk.decay).mul_(chunk.beta).tril_(-1)
    unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    inverse = torch.linalg.solve_triangular(matrix, unit, upper=False, unitriangular=True)
    error = torch.baddbmm(chunk.v, times(chunk.k, chunk.grown), state, alpha=-1)
    return matrix, inverse, error, torch.bmm(inverse, error * chunk.beta)


def forward(inputs: Inputs, state: Tensor, chunk: int, boundaries: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """o (B, L, H, V) and the last state; the state before each chunk is appended to `boundaries`."""
    q, _, v, *_ = inputs
    (B, L, H, K), V, dtype = q.shape, v.shape[-1], working_dtype(q, state)
    S = state.to(dtype).reshape(B * H, K, V)
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    for start in range(0, L, chunk):
        end = min(start + chunk, L)
        if boundaries is not None:
            boundaries.append(S)
        part = cut(inputs, start, end, dtype)
        u = solve(part, S)[-1]
        scores = decayed_(torch.bmm(part.q, part.k.mT), part.decay)
        o = torch.bmm(scores, u).baddbmm_(times(part.q, part.grown), S)
        out[:, start:end] = o.view(B, H, end - start, V).transpose(1, 2)
        S = carried(S, part.grown, times(part.k, part.left), u)
    return out, S.view(B, H, K, V).clone() if L == 0 else S.view(B, H, K, V)


def backward(inputs: Inputs, boundaries: list[Tensor], chunk: int, d_o: Tensor, d_state: Tensor) -> tuple[Any, ...]:
    """Gradients of (q, k, v, g, beta, state) from those of the output and the last state, chunks in reverse.

    Only the states between chunks are kept from the forward; the rest of a chunk is computed again, which is cheaper
    than to store and to read it. dX stands for the gradient of X (that of g is None where g is); the names are those of
    the equations above.
    """
    q, _, v, *_ = inputs
    (B, L, H, K), V, dtype = q.shape, v.shape[-1], d_state.dtype
    dS = d_state.reshape(B * H, K, V)
    gradients = tuple(None if x is None else torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs)
    for index in reversed(range(len(boundaries))):
        start, end = index * chunk, min((index + 1) * chunk, L)
        part, S = cut(inputs, start, end, dtype), boundaries[index]
        do = d_o[:, start:end].transpose(1, 2).to(dtype).flatten(0, 1)
        parts, dS = _backward_of_chunk(part, S, do, dS)
        for gradient, value in zip(gradients, parts, strict=True):
            if gradient is not None and value is not None:
                gradient[:, start:end] = value.view(B, H, *value.shape[1:]).transpose(1, 2)
    return *gradients, dS.view(B, H, K, V)


def _backward_of_chunk(part: Chunk, S: Tensor, do: Tensor, dS: Tensor) -> tuple[tuple[Tensor | None, ...], Tensor]:
    """Gradients of q, k, v, g, beta of one chunk and of the state before it."""
    q, k, _, beta, grown, left, decay = part
    A, inverse, error, u = solve(part, S)
    P = decayed_(torch.bmm(q, k.mT), decay)
    k_left, k_grown, q_grown = times(k, left), times(k, grown), times(q, grown)

    du = torch.bmm(P.mT, do).baddbmm_(k_left, dS)
    dr = torch.bmm(inverse.mT, du)  # of the right side beta E
    dv = dr * beta
    dk_grown = torch.bmm(dv, S.mT).neg_()
    dq_grown = torch.bmm(do, S.mT)
    dk_left = torch.bmm(u, dS.mT)
    dP = torch.bmm(do, u.mT).tril_()
    dA = torch.bmm(dr, u.mT).tril_(-1).neg_()

    # exp(c_i - c_j) takes P dP + A dA: row sums for c_i, minus column sums for c_j.
    inner = None if decay is None else (dP * P).addcmul_(dA, A)
    dP, dA = decayed_(dP, decay), decayed_(dA, decay)
    dbeta = (dr * error).sum(-1) + (dA * torch.bmm(k, k.mT)).sum(-1)
    dA.mul_(beta)
    dq = added_(torch.bmm(dP, k), dq_grown, grown)
    dk = added_(added_(torch.bmm(dP.mT, q).baddbmm_(dA + dA.mT, k), dk_grown, grown), dk_left, left)
    before = carried(dS, grown, q_grown, do).baddbmm_(k_grown.mT, dv, alpha=-1)
    if inner is None or grown is None:
        return (dq, dk, dv, None, dbeta), before

    by_left = (dk_left * k_left).sum(-1)
    dc = inner.sum(-1) - inner.sum(-2) + (dq_grown * q_grown).sum(-1) + (dk_grown * k_grown).sum(-1) - by_left
    last = by_left.sum(-1) + (S * dS).sum((-2, -1)) * grown[:, -1, 0]
    dc[:, -1] += last
    dg = dc.flip(-1).cumsum(-1).flip(-1)
    return (dq, dk, dv, dg, dbeta), before


class Chunked(torch.autograd.Function):
    """`forward` with `backward`; a gradient of the gradient goes through the differentiable form."""

    @staticmethod
    def forward(
        ctx: Any, chunk: int, state: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor
    ) -> tuple[Tensor, Tensor]:
        boundaries: list[Tensor] = []
        inputs = q, k, v, g, beta
        out, last = forward(inputs, state, chunk, boundaries)
        ctx.save_for_backward(state, *inputs, *boundaries)
        ctx.chunk = chunk
        return out, last

    @staticmethod
    def backward(ctx: Any, d_o: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        state, q, k, v, g, beta, *boundaries = ctx.saved_tensors
        if torch.is_grad_enabled():
            given = state, q, k, v, g, beta
            wanted = [x for x in given if x is not None and x.requires_grad]
            outputs = differentiable(q, k, v, torch.zeros_like(beta) if g is None else g, beta, state, ctx.chunk)
            found = iter(torch.autograd.grad(outputs, wanted, (d_o, d_state), create_graph=True))
            return None, *(next(found) if x is not None and x.requires_grad else None for x in given)
        *gradients, before = backward((q, k, v, g, beta), list(boundaries), ctx.chunk, d_o, d_state)
        return None, before, *gradients


def chunk_length(rows: int, key: int, value: int) -> int:
    """Tokens a chunk for the fastest run on a CPU: 32 or 64.

    A chunk of C tokens costs about 100 us of calls whatever it does, and C (key + value) products a token and row that
    the recurrence itself would not need: the sum is least at C = sqrt(calls / (rows (key + value))), the constant
    fitted to measurements at rows = B H from 4 to 480 and widths from 8 to 192. The optimum is flat: at L 4096, 30
    heads of 96 x 192 and one thread, chunks of 16, 32, 64, 128 take 407, 403, 481, 652 ms; at L 1024 and 4 heads 26,
    20, 18, 25 ms; at batch 16, L 256 and 4 heads of 32 x 64 19, 21, 31, 53 ms. Below 32 the kept states grow.
    """
    best = math.sqrt(4e6 * torch.get_num_threads() / max(1, rows * (key + value)))
    return 64 if best > math.sqrt(32 * 64) else 32


def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens (None: the fastest here); the last chunk is as short as it is.

    g None stands for no decay.
    """
    B, _, H, K = q.shape
    if chunk is None:
        chunk = chunk_length(B * H, K, v.shape[-1]) if q.device.type == "cpu" else 64
    inputs = (q, k, v, g, beta)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (state, *inputs)):
        out, last = Chunked.apply(chunk, state, *inputs)  # type: ignore[no-untyped-call]
        return out, last
    return forward(inputs, state, chunk)
