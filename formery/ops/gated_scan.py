"""An elementwise linear recurrence: the scan of HGRN (arXiv 2311.04823, equation 4) and of other gated vectors.

h_t = f_t h_{t-1} + x_t

Shapes: x, f (B, L, D); states (B, D), h_0 or None for zeros. f is the factor itself, of any sign and size. Every form
returns h (B, L, D) in x's dtype and the last state (float32 at least), computes in the state's dtype, and changes none
of its inputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from .forms import one, transformed, without_autocast
from .profiled import SCAN, profiled

WIDE = 8192
"""Numbers a token (B D) from which on a loop over tokens is faster than one over chunks."""
EXPORTED_CHUNK = 32


def working_dtype(x: Tensor, f: Tensor, state: Tensor) -> torch.dtype:
    """What every form computes in: the widest of the inputs, float32 at least."""
    wide = torch.promote_types(torch.promote_types(x.dtype, f.dtype), state.dtype)
    return torch.promote_types(wide, torch.float32)


def reference(x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token after another: the definition."""
    dtype = working_dtype(x, f, state)
    h, outputs = state.to(dtype), [x[:, :0]]
    for t in range(x.shape[1]):
        h = f[:, t].to(dtype) * h + x[:, t].to(dtype)
        outputs.append(h[:, None].to(x.dtype))
    return torch.cat(outputs, dim=1), h


@profiled(SCAN)
def gated_scan(x: Tensor, f: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fastest form for these inputs where they are used; inside `torch.autocast` as outside."""
    if state is None:
        wide = torch.promote_types(torch.promote_types(x.dtype, f.dtype), torch.float32)
        state = x.new_zeros(x.shape[0], x.shape[2], dtype=wide)
    start = state
    return without_autocast(x, lambda: _fastest(x, f, start))


def _fastest(x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    if transformed():
        return differentiable(x, f, state)
    if one(x.shape[1]):
        last = torch.addcmul(x[:, 0].to(working_dtype(x, f, state)), f[:, 0], state)
        return last[:, None].to(x.dtype), last
    if torch.compiler.is_exporting():
        return exported(x, f, state)
    if torch.compiler.is_compiling():
        found: tuple[Tensor, Tensor] = compiled(x, f, state)
        return found
    return scanned(x, f, state)


# ------------------------------------------------------------------------------------------------ on their own


def forward(x: Tensor, f: Tensor, state: Tensor, chunk: int | None = None) -> Tensor:
    """h (B, L, D) in the working dtype.

    In chunks of about sqrt(L) tokens: all chunks go their first token, then their second, each from zero and with the
    product of its factors so far; then one after another they get what the chunk before them ends with. Where a token
    is wide, a loop over tokens is faster, though it is longer: it passes memory once where the chunks pass it twice
    (AMD EPYC, torch 2.13): at L 4096 and 256 numbers a token 14 ms
    against 80 of a loop and 125 of doubling, at 16384 numbers 700 against 350.
    """
    dtype, (B, L, D) = working_dtype(x, f, state), x.shape
    x, f, h = x.to(dtype), f.to(dtype), x.new_empty(x.shape, dtype=dtype)
    if chunk is None:
        chunk = 1 if B * D >= WIDE else max(1, math.isqrt(L))
    carry = state.to(dtype)
    if chunk == 1:
        for t in range(L):
            carry = torch.addcmul(x[:, t], f[:, t], carry, out=h[:, t])
        return h
    products = torch.empty_like(h)
    for i in range(min(chunk, L)):
        here, factors = h[:, i::chunk], f[:, i::chunk]
        if i == 0:
            here.copy_(x[:, ::chunk])
            products[:, ::chunk] = factors
            continue
        size = here.shape[1]  # the last chunk may end before this place
        torch.addcmul(x[:, i::chunk], factors, h[:, i - 1 :: chunk][:, :size], out=here)
        torch.mul(factors, products[:, i - 1 :: chunk][:, :size], out=products[:, i::chunk])
    for start in range(0, L, chunk):
        here = h[:, start : start + chunk].addcmul_(products[:, start : start + chunk], carry[:, None])
        carry = here[:, -1]
    return h


def backward(f: Tensor, h: Tensor, state: Tensor, dh: Tensor, d_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, f and the state, in the working dtype: from the end, dx_t = dh_t + f_{t+1} dx_{t+1}."""
    if h.shape[1] == 0:
        return torch.zeros_like(h), torch.zeros_like(h), d_last
    later = torch.cat([f.new_ones(f[:, :1].shape), f[:, 1:].flip(1)], dim=1)  # the last token's is that of the end
    dx = forward(dh.flip(1), later, d_last.to(h.dtype)).flip(1)
    df = dx * torch.cat([state[:, None].to(h.dtype), h[:, :-1]], dim=1)
    return dx, df, dx[:, 0] * f[:, 0]


class Scanned(torch.autograd.Function):
    """`forward` with `backward`; a gradient of the gradient goes through the differentiable form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = forward(x, f, state)
        ctx.save_for_backward(x, f, state, h)
        return h.to(x.dtype, copy=True), _last(h, state)

    @staticmethod
    def backward(ctx: Any, dh: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        x, f, state, h = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [t for t in (x, f, state) if t.requires_grad]
            found = iter(torch.autograd.grad(differentiable(x, f, state), wanted, (dh, d_last), create_graph=True))
            return tuple(next(found) if t.requires_grad else None for t in (x, f, state))
        return backward(f, h, state, dh, d_last)


def _last(h: Tensor, state: Tensor) -> Tensor:
    return h[:, -1].clone() if h.shape[1] else state.to(h.dtype, copy=True)


def scanned(x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` by `forward`, with its gradient."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, f, state)):
        h, last = Scanned.apply(x, f, state)  # type: ignore[no-untyped-call]
        return h, last
    h = forward(x, f, state)
    return h.to(x.dtype), _last(h, state)


# ------------------------------------------------------------------------------------------------ traced


def doubled(x: Tensor, f: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(h from zero, product of the factors) along the second axis from last, by doubling: log2(length) steps."""
    step = 1
    while step < length:
        before = F.pad(x, (0, 0, step, 0))[..., : x.shape[-2], :]
        x = x + f * before
        f = f * F.pad(f, (0, 0, step, 0), value=1.0)[..., : f.shape[-2], :]
        step *= 2
    return x, f


def differentiable(x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` of plain operations, differentiable any number of times and open to `torch.func`."""
    dtype = working_dtype(x, f, state)
    h, products = doubled(x.to(dtype), f.to(dtype), int(x.shape[1]))
    h = h + products * state.to(dtype)[:, None]
    return h.to(x.dtype), torch.cat([state.to(dtype)[:, None], h], dim=1)[:, -1]


def exported(x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` for `torch.export` and ONNX with a free batch and length: a `scan` over chunks, doubling in each.

    One chunk more than needed, chunks picked by an index and the result picked back, as in
    `gated_delta_rule.traced.exported`. Tokens beyond the length have factor 1 and add nothing.
    """
    dtype, length, size = working_dtype(x, f, state), x.shape[1], EXPORTED_CHUNK
    num = (length + size - 1) // size + 1
    pad = num * size - length
    at = torch.arange(num, device=x.device)[:, None] * size + torch.arange(size, device=x.device)
    inputs = F.pad(x.to(dtype), (0, 0, 0, pad)), F.pad(f.to(dtype), (0, 0, 0, pad), value=1.0)
    chunks = tuple(t[:, at].transpose(0, 1).contiguous() for t in inputs)  # (num, B, size, D)

    def body(carry: Tensor, chunk: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        h, products = doubled(chunk[0], chunk[1], size)
        h = h + products * carry[:, None]
        return h[:, -1].clone(), h

    last, outputs = scan(body, state.to(dtype), chunks)
    h = outputs.transpose(0, 1).flatten(1, 2)
    return h.index_select(1, torch.arange(length, device=x.device)).to(x.dtype), last


# ------------------------------------------------------------------------------------------------ compiled


@torch.library.custom_op("formery::gated_scan", mutates_args=())
def compiled(x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`scanned` as one operator of a compiled graph, so that the loop is not unrolled and fits all lengths."""
    h = forward(x, f, state)
    return h.to(x.dtype), _last(h, state)


@compiled.register_fake
def _(x: Tensor, f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    return h, state.new_empty((*state.shape,), dtype=working_dtype(x, f, state))


@torch.library.custom_op("formery::gated_scan_backward", mutates_args=())
def compiled_backward(x: Tensor, f: Tensor, state: Tensor, dh: Tensor, d_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, f and the state; h is computed again."""
    dx, df, before = backward(f, forward(x, f, state), state, dh, d_last)
    return dx.to(x.dtype), df.to(f.dtype), before.to(state.dtype, copy=True)


@compiled_backward.register_fake
def _(x: Tensor, f: Tensor, state: Tensor, dh: Tensor, d_last: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, f, state))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, dh: Tensor, d_last: Tensor) -> tuple[Tensor, ...]:
    return compiled_backward(*ctx.saved_tensors, dh, d_last)


compiled.register_autograd(_gradient, setup_context=_keep)


def macs(batch: int, length: int, width: int) -> int:
    """Multiply-accumulates: one for each number."""
    return batch * length * width
