"""The selective scan token by token: its definition, and the form for one token that decoding uses."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gated_delta_rule.reference import working_dtype


def reference(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: every number of the state decays at its own rate, then the token is written and read."""
    dtype = working_dtype(u, state)
    S = state.to(dtype)
    outputs = [u[:, :0]]
    for t in range(u.shape[1]):
        y, S = step(u[:, t], dt[:, t], A, b[:, t], c[:, t], S)
        outputs.append(y[:, None])
    return torch.cat(outputs, dim=1), S


def step(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: u, dt (B, G, D); A (G, N, D); b, c (B, G, N); state (B, G, N, D) -> y (B, G, D), next state."""
    dtype = working_dtype(u, state)
    u_t, dt_t, A, b_t, c_t = (x.to(dtype) for x in (u, dt, A, b, c))
    decay = torch.exp(dt_t[..., None, :] * A)
    S = torch.addcmul(b_t[..., None] * (dt_t * u_t)[..., None, :], decay, state.to(dtype))
    return (c_t[..., None, :] @ S).squeeze(-2).to(u.dtype), S
