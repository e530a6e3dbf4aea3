"""The gated delta rule inside `torch.compile`: one opaque operator.

So the loop over chunks is neither unrolled nor compiled again for each length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import backend
from .chunked import backward, forward
from .reference import working_dtype

CHUNK = 64


@torch.library.custom_op("formery::gated_delta_rule", mutates_args=())
def compiled(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`chunked`, or `fused`, as an operator."""
    if backend.takes_kernels(q, k, v, g, beta, state, fits=k.shape[-1] <= backend.KEYS):
        from ..kernels import delta_rule as kernels

        return kernels.forward(q, k, v, g, beta, state)
    return forward((q, k, v, g, beta), state, CHUNK)


@compiled.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*state.shape,)
    return (
        torch.empty_like(v, memory_format=torch.contiguous_format),
        state.new_empty(shape, dtype=working_dtype(q, state)),
    )


@torch.library.custom_op("formery::gated_delta_rule_backward", mutates_args=())
def compiled_backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, d_o: Tensor, d_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the six inputs; the states between chunks are computed again."""
    if backend.takes_kernels(q, k, v, g, beta, state, fits=k.shape[-1] <= backend.KEYS):
        from ..kernels import delta_rule as kernels

        d_q, d_k, d_v, d_g, d_beta, d_first = kernels.backward(q, k, v, g, beta, state, d_o, d_state)
        assert d_g is not None  # there is a g
        return d_q, d_k, d_v, d_g, d_beta, d_first
    boundaries: list[Tensor] = []
    forward((q, k, v, g, beta), state, CHUNK, boundaries)
    dq, dk, dv, dg, dbeta, before = backward((q, k, v, g, beta), boundaries, CHUNK, d_o, d_state)
    return dq, dk, dv, dg, dbeta, before.to(state.dtype, copy=not boundaries)


@compiled_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, d_o: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, g, beta, state))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, d_o: Tensor, d_state: Tensor) -> tuple[Tensor, ...]:
    return compiled_backward(*ctx.saved_tensors, d_o, d_state)


compiled.register_autograd(_gradient, setup_context=_keep)
