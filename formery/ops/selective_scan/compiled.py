"""The selective scan inside `torch.compile`: one opaque operator.

So the loop over tokens is neither unrolled nor compiled again for each length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import backend
from ..gated_delta_rule.reference import working_dtype
from .chunked import CHUNK, backward, forward


@torch.library.custom_op("formery::selective_scan", mutates_args=())
def compiled(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`chunked`, or `fused`, as an operator."""
    if backend.takes_kernels(u, dt, A, b, c, state, fits=A.shape[1] <= backend.NUMBERS):
        from ..kernels import selective_scan as kernels

        return kernels.forward(u, dt, A, b, c, state)
    return forward((u, dt, b, c), A, state, CHUNK)


@compiled.register_fake
def _(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(u, memory_format=torch.contiguous_format),
        state.new_empty((*state.shape,), dtype=working_dtype(u, state)),
    )


@torch.library.custom_op("formery::selective_scan_backward", mutates_args=())
def compiled_backward(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, d_y: Tensor, d_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the six inputs; the states between chunks are computed again."""
    if backend.takes_kernels(u, dt, A, b, c, state, fits=A.shape[1] <= backend.NUMBERS):
        from ..kernels import selective_scan as kernels

        return kernels.backward(u, dt, A, b, c, state, d_y, d_state)
    boundaries: list[Tensor] = []
    forward((u, dt, b, c), A, state, CHUNK, boundaries)
    du, d_dt, db, dc, dA, before = backward((u, dt, b, c), A, boundaries, CHUNK, d_y, d_state)
    return du, d_dt, dA, db, dc, before.to(state.dtype, copy=not boundaries)


@compiled_backward.register_fake
def _(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, d_y: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, dt, A, b, c, state))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, d_y: Tensor, d_state: Tensor) -> tuple[Tensor, ...]:
    return compiled_backward(*ctx.saved_tensors, d_y, d_state)


compiled.register_autograd(_gradient, setup_context=_keep)
