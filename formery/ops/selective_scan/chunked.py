"""The selective scan in chunks (arXiv 2312.00752, section 3.3) with its gradient.

What does not depend on the state, exp(dt A) and b dt u, is computed for a chunk of tokens at once, in two buffers that
stay in the processor's cache; the recurrence itself is then one `addcmul` a token, in place of what it adds, and the
read-out of the chunk is one batched product. With channels last in the state every operation runs along them.

One Python iteration a token is more than sqrt(L) on purpose: a parallel scan within chunks (`traced`), log2(T) passes
over a chunk instead of T calls, takes 5 times as long (1536 channels of 16 numbers, L 1024, one thread of an AMD EPYC,
torch 2.13: 137 ms against 29), and everything token by token 3 times (83 ms). Powers of 2 take a third of the time of
torch's exp, which was most of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..exponential import LOG2_E
from ..gated_delta_rule.reference import working_dtype
from .traced import differentiable


class Chunk(NamedTuple):
    """Tokens first: what one chunk of T tokens is made of."""

    u: Tensor  # (T, B, G, D)
    dt: Tensor  # (T, B, G, D)
    b: Tensor  # (T, B, G, N)
    c: Tensor  # (T, B, G, N)


def chunks(inputs: tuple[Tensor, ...], chunk: int, dtype: torch.dtype) -> Iterator[tuple[int, int, Chunk]]:
    """(first token, last but one, chunk) of u, dt, b, c."""
    length = inputs[0].shape[1]
    for start in range(0, length, chunk):
        end = min(start + chunk, length)
        yield start, end, cut(inputs, start, end, dtype)


def cut(inputs: tuple[Tensor, ...], start: int, end: int, dtype: torch.dtype) -> Chunk:
    """Tokens `start` to `end` of (u, dt, b, c)."""
    return Chunk(*(x[:, start:end].transpose(0, 1).to(dtype) for x in inputs))


class Buffers:
    """Memory for one chunk's decays and states, taken once a call."""

    def __init__(self, A: Tensor, batch: int, chunk: int) -> None:
        shape = (chunk, batch, *A.shape)
        self.decay, self.states = A.new_empty(shape), A.new_empty(shape)
        self.rates = A * LOG2_E

    def run(self, part: Chunk, S: Tensor) -> tuple[Tensor, Tensor]:
        """The decays (T, B, G, N, D) of a chunk and the states after each of its tokens, from the state before it."""
        T = part.dt.shape[0]
        decay, states = self.decay[:T], self.states[:T]
        torch.mul(part.dt[..., None, :], self.rates, out=decay).exp2_()
        torch.mul(part.b[..., None], (part.dt * part.u)[..., None, :], out=states)
        if not S.is_meta:  # nothing to be done, a hundred times a layer
            for decay_t, state_t in zip(decay.unbind(), states.unbind(), strict=True):
                S = torch.addcmul(state_t, S, decay_t, out=state_t)
        return decay, states


def forward(
    inputs: tuple[Tensor, ...], A: Tensor, state: Tensor, chunk: int, boundaries: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """y (B, L, G, D) and the last state; the state before each chunk is appended to `boundaries`."""
    u, dtype = inputs[0], working_dtype(inputs[0], state)
    S, out = state.to(dtype), torch.empty_like(u, memory_format=torch.contiguous_format)
    buffers = Buffers(A.to(dtype), u.shape[0], min(chunk, max(1, u.shape[1])))
    for start, end, part in chunks(inputs, chunk, dtype):
        if boundaries is not None:
            boundaries.append(S)
        _, states = buffers.run(part, S)
        out[:, start:end] = torch.matmul(part.c[..., None, :], states).squeeze(-2).transpose(0, 1)
        S = states[-1].clone()  # the buffer is the next chunk's
    return out, S.clone() if u.shape[1] == 0 else S


def backward(
    inputs: tuple[Tensor, ...], A: Tensor, boundaries: list[Tensor], chunk: int, d_y: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of (u, dt, b, c, A, state) from those of the output and the last state, chunks in reverse.

    Only the states between chunks are kept from the forward; those within are computed again. With G_t the gradient of
    the state after token t, G_t = c_t dy_t + exp(dt_{t+1} A) G_{t+1}: the same recurrence backwards.
    """
    dtype = d_state.dtype
    wide = A.to(dtype)
    buffers = Buffers(wide, d_y.shape[0], min(chunk, max(1, d_y.shape[1])))
    gradient_buffer = torch.empty_like(buffers.states)
    gradients = tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs)
    dS, dA = d_state, torch.zeros_like(wide)
    for index in reversed(range(len(boundaries))):
        start, end = index * chunk, min((index + 1) * chunk, d_y.shape[1])
        part, before = cut(inputs, start, end, dtype), boundaries[index]
        decay, states = buffers.run(part, before)
        dy = d_y[:, start:end].transpose(0, 1).to(dtype)
        G = torch.mul(part.c[..., None], dy[..., None, :], out=gradient_buffer[: end - start])
        rows, decays = G.unbind(), decay.unbind()
        rows[-1].add_(dS)
        for t in range(len(rows) - 1, 0, -1):
            torch.addcmul(rows[t - 1], rows[t], decays[t], out=rows[t - 1])
        dS = rows[0] * decays[0]
        written = part.dt * part.u
        # A row times a transposed matrix: torch's product of the matrix with a column takes ten times as long.
        d_c = torch.matmul(dy[..., None, :], states.mT).squeeze(-2)
        d_b = torch.matmul(written[..., None, :], G.mT).squeeze(-2)
        d_written = torch.matmul(part.b[..., None, :], G).squeeze(-2)
        # Of dt A: exp(dt A) G times the state before the token.
        d_exponent = G.mul_(decay)
        d_exponent[0].mul_(before)
        d_exponent[1:].mul_(states[:-1])
        d_dt = torch.mul(d_exponent, wide, out=states).sum(-2).addcmul_(d_written, part.u)
        dA += d_exponent.mul_(part.dt[..., None, :]).sum((0, 1))
        for gradient, value in zip(gradients, (d_written * part.dt, d_dt, d_b, d_c), strict=True):
            gradient[:, start:end] = value.transpose(0, 1)
    return *gradients, dA.to(A.dtype), dS


class Chunked(torch.autograd.Function):
    """`forward` with `backward`; a gradient of the gradient goes through the differentiable form."""

    @staticmethod
    def forward(ctx: Any, chunk: int, state: Tensor, A: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        boundaries: list[Tensor] = []
        out, last = forward(inputs, A, state, chunk, boundaries)
        ctx.save_for_backward(state, A, *inputs, *boundaries)
        ctx.chunk = chunk
        return out, last

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        state, A, u, dt, b, c, *boundaries = ctx.saved_tensors
        if torch.is_grad_enabled():
            given = (state, A, u, dt, b, c)
            wanted = [x for x in given if x.requires_grad]
            outputs = differentiable(u, dt, A, b, c, state, ctx.chunk)
            found = iter(torch.autograd.grad(outputs, wanted, (d_y, d_state), create_graph=True))
            return None, *(next(found) if x.requires_grad else None for x in given)
        *gradients, dA, before = backward((u, dt, b, c), A, list(boundaries), ctx.chunk, d_y, d_state)
        return None, before.to(state.dtype), dA, *gradients


CHUNK = 16
"""Tokens a chunk: 4, 8, 16, 32, 64 take 42, 34, 29, 26, 33 ms at the sizes above, and 4 to 32 take 3.6, 2.8, 2.3 and
3.2 ms at batch 16, L 64 and 128 channels."""


def chunked(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens; the last one is as short as it is."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (u, dt, A, b, c, state)):
        out, last = Chunked.apply(chunk, state, A, u, dt, b, c)  # type: ignore[no-untyped-call]
        return out, last
    return forward((u, dt, b, c), A, state, chunk)
