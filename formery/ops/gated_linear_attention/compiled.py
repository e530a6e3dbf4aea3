"""Gated linear attention inside `torch.compile`: one opaque operator.

So the loop over chunks is neither unrolled nor compiled again for each length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import backend
from ..gated_delta_rule.reference import working_dtype
from .chunked import CHUNK, Span, backward, forward


def _inputs(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None) -> tuple[Tensor, ...]:
    return (q, k, v) if g is None else (q, k, v, g)


@torch.library.custom_op("formery::gated_linear_attention", mutates_args=())
def operator(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """`chunked`, or `fused`, as an operator; g (B, L, H, K or 1)."""
    if backend.takes_kernels(q, k, v, g, state):
        from ..kernels import linear_attention as kernels

        return kernels.forward(q, k, v, g, state)
    return forward(_inputs(q, k, v, g), state, CHUNK)


@operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*state.shape,)
    return (
        torch.empty_like(v, memory_format=torch.contiguous_format),
        state.new_empty(shape, dtype=working_dtype(q, state)),
    )


@torch.library.custom_op("formery::gated_linear_attention_backward", mutates_args=())
def operator_backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor, d_o: Tensor, d_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, g (empty where there is none) and the state; the states between are computed again."""
    if backend.takes_kernels(q, k, v, g, state):
        from ..kernels import linear_attention as kernels

        d_q, d_k, d_v, d_g, d_first = kernels.backward(q, k, v, g, state, d_o, d_state)
        return d_q, d_k, d_v, q.new_empty(0) if d_g is None else d_g, d_first
    kept: tuple[list[Span], list[Tensor]] = ([], [])
    inputs = _inputs(q, k, v, g)
    _, last = forward(inputs, state, CHUNK, kept)
    *gradients, before = backward(inputs, kept, last, d_o, d_state)
    dq, dk, dv, dg = gradients if g is not None else (*gradients, q.new_empty(0))
    return dq, dk, dv, dg, before.to(state.dtype, copy=not kept[0])


@operator_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor, d_o: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    given = (q, k, v, q.new_empty(0) if g is None else g)
    return *(torch.empty_like(x, memory_format=torch.contiguous_format) for x in given), torch.empty_like(
        state, memory_format=torch.contiguous_format
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, g, state = inputs
    ctx.decays = g is not None
    ctx.save_for_backward(*_inputs(q, k, v, g), state)


def _gradient(ctx: Any, d_o: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, *g, state = ctx.saved_tensors
    dq, dk, dv, dg, before = operator_backward(q, k, v, g[0] if g else None, state, d_o, d_state)
    return dq, dk, dv, dg if g else None, before


operator.register_autograd(_gradient, setup_context=_keep)
