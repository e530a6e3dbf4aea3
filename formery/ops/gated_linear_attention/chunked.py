"""Gated linear attention in chunks (arXiv 2312.06635, section 4) with its gradient.

With c the running sum of g in a chunk of C tokens (one number a token, or one a key channel), S the state before it:

    O = P V + (exp(c) Q) S,    P_ij = sum_k q_ik k_jk exp(c_ik - c_jk) for j <= i;
    S' = exp(c_C) S + (exp(c_C - c) K)^T V.

Where c falls by no more than `MOST` in the chunk, exp(c_i - c_j) is split at r, half of the fall: with
Q~ = exp(c - r) Q, K~ = exp(r - c) K and S~ = exp(r) S the chunk is linear attention without decay, and
S' = exp(c_C - r) (S~ + K~^T V). That needs one exponential a number. Where c falls deeper, exp(r - c) would lose digits
and at last overflow: chunks of one decay a token then write exp(c_i - c_j) out, chunks of one a channel are cut into
pieces of 16 tokens, of which those that still fall deeper write it out.

As in `gated_delta_rule`, a chunk is worked on when its turn comes, in memory that stays in the processor's cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..gated_delta_rule.reference import working_dtype
from .reference import by_token
from .traced import differentiable

MOST = 32.0
"""The deepest fall of c that is split: exponents stay within 16, which float32 rounds by 5e-7."""
CHUNK = 64
"""Tokens a chunk. The optimum is flat: forward and backward at L 1024, 4 heads of 128 x 256, a decay a channel and one
thread take 186, 182, 134, 172 ms with chunks of 16, 32, 64, 128; the definition takes 330 ms forward alone."""
PIECE = 16
"""Tokens of a piece of a chunk whose channels fall deeper."""


class Span(NamedTuple):
    """Tokens that are worked on together, and whether their decays are written out."""

    start: int
    end: int
    explicit: bool


class Tokens(NamedTuple):
    """What a span is made of, with batch and heads in one axis (n = B H), in the working dtype."""

    q: Tensor  # (n, C, K)
    k: Tensor  # (n, C, K)
    v: Tensor  # (n, C, V)
    c: Tensor | None  # (n, C, K) or (n, C, 1), in float64 where the device has it


def _rows(x: Tensor, start: int, end: int) -> Tensor:
    """(B, L, H, D) -> (B H, end - start, D)."""
    return x[:, start:end].transpose(1, 2).flatten(0, 1)


def cut(inputs: tuple[Tensor, ...], start: int, end: int, dtype: torch.dtype) -> Tokens:
    """Tokens `start` to `end` of (q, k, v) or (q, k, v, g)."""
    q, k, v = (_rows(x, start, end).to(dtype) for x in inputs[:3])
    if len(inputs) == 3:
        return Tokens(q, k, v, None)
    g = _rows(inputs[3], start, end)
    return Tokens(q, k, v, g.cumsum(1, dtype=g.dtype if g.device.type == "mps" else torch.float64))


def deep(c: Tensor | None) -> bool:
    """Whether some channel falls deeper than may be split; tensors without values do not."""
    return c is not None and not c.is_meta and bool(c[:, -1].amin() < -MOST)


def spans(tokens: Tokens, start: int, end: int) -> list[Span]:
    """How the chunk from `start` to `end` is worked on."""
    c = tokens.c
    if c is None or not deep(c):
        return [Span(start, end, False)]
    if c.shape[-1] == 1:
        return [Span(start, end, True)]
    found = []
    for first in range(0, end - start, PIECE):
        last = min(first + PIECE, end - start)
        before = c[:, first - 1 : first] if first else 0.0
        found.append(Span(start + first, start + last, deep(c[:, first:last] - before)))
    return found


class Split(NamedTuple):
    """Decays split at half of the fall: what q is multiplied by, k, the state before, the state after."""

    q: Tensor  # (n, C, K or 1)
    k: Tensor
    before: Tensor  # (n, K or 1, 1)
    after: Tensor


def split(c: Tensor, dtype: torch.dtype) -> Split:
    """See above."""
    half = c[:, -1:] / 2
    grown = (c - half).to(dtype).exp_()
    before = half.to(dtype).exp_().mT
    return Split(grown, grown.reciprocal(), before, before)


def written_out(c: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(c_i - c_j) for j <= i, else 0: (n, C, C, K or 1)."""
    fall = c[:, :, None] - c[:, None]
    later = torch.ones(c.shape[1], c.shape[1], dtype=torch.bool, device=c.device).triu_(1)
    return fall.to(dtype).masked_fill_(later[..., None], -torch.inf).exp_()


def products(q: Tensor, k: Tensor, decay: Tensor) -> Tensor:
    """P of the equations above."""
    if decay.shape[-1] == 1:
        return torch.bmm(q, k.mT).mul_(decay[..., 0])
    return (decay * k[:, None]).mul_(q[:, :, None]).sum(-1)


def advance(tokens: Tokens, S: Tensor, explicit: bool) -> tuple[Tensor, Tensor]:
    """Output (n, C, V) of one span, and the state after it."""
    q, k, v, c = tokens
    if c is None:
        o = torch.bmm(torch.bmm(q, k.mT).tril_(), v).baddbmm_(q, S)
        return o, torch.baddbmm(S, k.mT, v)
    if explicit:
        grown, left = c.to(q.dtype).exp(), (c[:, -1:] - c).to(q.dtype).exp_()
        o = torch.bmm(products(q, k, written_out(c, q.dtype)), v).baddbmm_(q * grown, S)
        return o, (S * grown[:, -1:].mT).baddbmm_((k * left).mT, v)
    by = split(c, q.dtype)
    q, k, S = q * by.q, k * by.k, S * by.before
    o = torch.bmm(torch.bmm(q, k.mT).tril_(), v).baddbmm_(q, S)
    return o, S.baddbmm_(k.mT, v).mul_(by.after)


def retreat(tokens: Tokens, S: Tensor, explicit: bool, do: Tensor, dS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v of one span, and of the state before it, from those of its output and the state after it.

    The gradient of c follows from them (`of_decay`). dX stands for the gradient of X.
    """
    q, k, v, c = tokens
    by = None if c is None or explicit else split(c, q.dtype)
    if by is not None:
        q, k, S, dS = q * by.q, k * by.k, S * by.before, dS * by.after
    dP = torch.bmm(do, v.mT)
    if c is not None and explicit:
        decay = written_out(c, q.dtype)
        grown, left = c.to(q.dtype).exp(), (c[:, -1:] - c).to(q.dtype).exp_()
        P = products(q, k, decay)
        dv = torch.bmm(P.mT, do).baddbmm_(k * left, dS)
        dq = torch.bmm(do, S.mT).mul_(grown)
        dk = torch.bmm(v, dS.mT).mul_(left)
        before = (dS * grown[:, -1:].mT).baddbmm_((q * grown).mT, do)
        if decay.shape[-1] == 1:
            dP.mul_(decay[..., 0])
            return dq.baddbmm_(dP, k), dk.baddbmm_(dP.mT, q), dv, before
        weighted = decay.mul_(dP[..., None])
        return dq.add_((weighted * k[:, None]).sum(2)), dk.add_((weighted * q[:, :, None]).sum(1)), dv, before
    dP.tril_()
    P = torch.bmm(q, k.mT).tril_()
    dv = torch.bmm(P.mT, do).baddbmm_(k, dS)
    dq = torch.bmm(dP, k).baddbmm_(do, S.mT)
    dk = torch.bmm(dP.mT, q).baddbmm_(v, dS.mT)
    before = torch.baddbmm(dS, q.mT, do)
    return (dq, dk, dv, before) if by is None else (dq.mul_(by.q), dk.mul_(by.k), dv, before.mul_(by.before))


def of_decay(
    q: Tensor, k: Tensor, dq: Tensor, dk: Tensor, after: Tensor, d_after: Tensor, *, by_channel: bool
) -> Tensor:
    """The gradient of g: (n, C, K), or (n, C, 1) unless `by_channel`.

    c_i stands with q_i in every product, -c_j with k_j, and the last c also with the whole state after the span: so the
    gradient of c is q dq - k dk, and that of g what of it comes at g's token or later.
    """
    dc = (q * dq).addcmul_(k, dk, value=-1)
    last = (after * d_after).sum(-1)
    if not by_channel:
        dc, last = dc.sum(-1, keepdim=True), last.sum(-1, keepdim=True)
    total = dc.sum(1, keepdim=True).add_(last[:, None])
    return (total - dc.cumsum(1)).add_(dc)


def forward(
    inputs: tuple[Tensor, ...],
    state: Tensor,
    chunk: int,
    kept: tuple[list[Span], list[Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """o (B, L, H, V) and the last state, from (q, k, v) or (q, k, v, g) with g (B, L, H, K or 1).

    The spans that were worked on, and the state before each, are appended to `kept`.
    """
    q, _, v = inputs[:3]
    (B, L, H, K), V, dtype = q.shape, v.shape[-1], working_dtype(q, state)
    S = state.to(dtype).reshape(B * H, K, V)
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    for start in range(0, L, chunk):
        end = min(start + chunk, L)
        whole = cut(inputs, start, end, dtype)
        for span in spans(whole, start, end):
            tokens = whole if span.end - span.start == end - start else cut(inputs, span.start, span.end, dtype)
            if kept is not None:
                kept[0].append(span)
                kept[1].append(S)
            o, S = advance(tokens, S, span.explicit)
            out[:, span.start : span.end] = o.view(B, H, -1, V).transpose(1, 2)
    return out, S.view(B, H, K, V).clone() if L == 0 else S.view(B, H, K, V)


def backward(
    inputs: tuple[Tensor, ...],
    kept: tuple[list[Span], list[Tensor]],
    last: Tensor,
    d_o: Tensor,
    d_state: Tensor,
    decays: bool = True,
) -> tuple[Tensor, ...]:
    """Gradients of the inputs and of the state from those of the output and the `last` state, spans in reverse.

    Only the states between spans are kept from the forward; the rest is computed again. Without `decays` the gradient
    of g is left out (zeros).
    """
    q, _, v = inputs[:3]
    (B, _, H, K), V, dtype = q.shape, v.shape[-1], d_state.dtype
    dS, after = d_state.reshape(B * H, K, V), last.reshape(B * H, K, V)
    gradients = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs[:3]]
    if len(inputs) == 4:
        gradients.append(torch.empty_like(inputs[3]) if decays else torch.zeros_like(inputs[3]))
    for (start, end, explicit), S in zip(reversed(kept[0]), reversed(kept[1]), strict=True):
        tokens, do = cut(inputs, start, end, dtype), _rows(d_o, start, end).to(dtype)
        dq, dk, dv, before = retreat(tokens, S, explicit, do, dS)
        parts = [dq, dk, dv]
        if tokens.c is not None and decays:
            by_channel = tokens.c.shape[-1] > 1
            parts.append(of_decay(tokens.q, tokens.k, dq, dk, after, dS, by_channel=by_channel))
        for gradient, value in zip(gradients, parts, strict=False):
            gradient[:, start:end] = value.view(B, H, *value.shape[1:]).transpose(1, 2)
        dS, after = before, S
    return *gradients, dS.view(B, H, K, V)


class Chunked(torch.autograd.Function):
    """`forward` with `backward`; a gradient of the gradient goes through the differentiable form."""

    @staticmethod
    def forward(ctx: Any, chunk: int, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        kept: tuple[list[Span], list[Tensor]] = ([], [])
        out, last = forward(inputs, state, chunk, kept)
        ctx.save_for_backward(state, last, *inputs, *kept[1])
        ctx.spans, ctx.num = kept[0], len(inputs)
        return out, last

    @staticmethod
    def backward(ctx: Any, d_o: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        state, last, *saved = ctx.saved_tensors
        inputs, states = tuple(saved[: ctx.num]), saved[ctx.num :]
        if torch.is_grad_enabled():
            wanted = [x for x in (state, *inputs) if x.requires_grad]
            q, k, v, *decays = inputs
            outputs = differentiable(q, k, v, decays[0] if decays else None, state)
            found = iter(torch.autograd.grad(outputs, wanted, (d_o, d_state), create_graph=True))
            return None, *(next(found) if x.requires_grad else None for x in (state, *inputs))
        decays_too = ctx.num == 4 and ctx.needs_input_grad[5]
        *gradients, before = backward(inputs, (ctx.spans, list(states)), last, d_o, d_state, decays_too)
        return None, before, *gradients


def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens; the last chunk is as short as it is."""
    decays = by_token(g, k)
    inputs = (q, k, v) if decays is None else (q, k, v, decays)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (state, *inputs)):
        out, last = Chunked.apply(chunk, state, *inputs)  # type: ignore[no-untyped-call]
        return out, last
    return forward(inputs, state, chunk)
