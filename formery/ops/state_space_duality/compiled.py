"""State space duality inside `torch.compile`: one opaque operator.

So the loop over chunks is neither unrolled nor compiled again for each length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import backend
from ..gated_delta_rule.reference import working_dtype
from .chunked import CHUNK, backward, forward


@torch.library.custom_op("formery::state_space_duality", mutates_args=())
def compiled(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`chunked`, or `fused`, as an operator."""
    if backend.takes_kernels(x, g, b, c, state):
        from . import fused

        return fused.forward(x, g, b, c, state)
    return forward((x, g, b, c), state, CHUNK)


@compiled.register_fake
def _(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        state.new_empty((*state.shape,), dtype=working_dtype(x, state)),
    )


@torch.library.custom_op("formery::state_space_duality_backward", mutates_args=())
def compiled_backward(
    x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, d_y: Tensor, d_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the five inputs; the states between chunks are computed again."""
    if backend.takes_kernels(x, g, b, c, state):
        from . import fused

        d_x, d_g, d_b, d_c, d_first = fused.backward(x, g, b, c, state, d_y, d_state)
        assert d_g is not None  # it was asked for
        return d_x, d_g, d_b, d_c, d_first
    boundaries: list[Tensor] = []
    forward((x, g, b, c), state, CHUNK, boundaries)
    dx, dg, db, dc, before = backward((x, g, b, c), boundaries, CHUNK, d_y, d_state)
    return dx, dg, db, dc, before.to(state.dtype, copy=not boundaries)


@compiled_backward.register_fake
def _(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, d_y: Tensor, d_state: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in (x, g, b, c, state))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, d_y: Tensor, d_state: Tensor) -> tuple[Tensor, ...]:
    return compiled_backward(*ctx.saved_tensors, d_y, d_state)


compiled.register_autograd(_gradient, setup_context=_keep)
