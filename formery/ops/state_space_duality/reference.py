"""State space duality token by token: its definition, and the form for one token that decoding uses."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gated_delta_rule.reference import working_dtype


def heads_of(shared: Tensor, heads: int) -> Tensor:
    """(..., G, N) of groups as (..., H, N) of heads."""
    groups = shared.shape[-2]
    if groups == heads:
        return shared
    return shared.unsqueeze(-2).expand(*shared.shape[:-1], heads // groups, shared.shape[-1]).flatten(-3, -2)


def reference(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: each head's state decays as a whole, then the token is written and read."""
    dtype = working_dtype(x, state)
    S = state.to(dtype)
    outputs = [x[:, :0]]
    for t in range(x.shape[1]):
        x_t, g_t = x[:, t].to(dtype), g[:, t].to(dtype)
        b_t, c_t = (heads_of(part[:, t].to(dtype), x.shape[2]) for part in (b, c))
        S = S * g_t.exp()[..., None, None] + b_t[..., None] * x_t[..., None, :]
        outputs.append(torch.einsum("bhnp,bhn->bhp", S, c_t)[:, None].to(x.dtype))
    return torch.cat(outputs, dim=1), S


def step(
    x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, *, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """One token: x (B, H, P); g (B, H); b, c (B, G, N); state (B, H, N, P) -> y (B, H, P), next state.

    `overwrite` puts the next state in the memory of the given one, where it has the dtype.
    """
    dtype = working_dtype(x, state)
    x_t, g_t, b_t, c_t = (part.to(dtype) for part in (x, g, b, c))
    b_t, c_t = heads_of(b_t, x.shape[1]), heads_of(c_t, x.shape[1])
    decay = g_t.exp()[..., None, None]
    S = state.mul_(decay) if overwrite and state.dtype == dtype else state.to(dtype) * decay
    S = S.addcmul_(b_t[..., None], x_t[..., None, :])
    return (c_t[..., None, :] @ S).squeeze(-2).to(x.dtype), S
