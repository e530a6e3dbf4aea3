"""The selective scan token by token: its definition, and the form for one token that decoding uses."""

from __future__ import annotations

import torch
from torch import Tensor

from ..exponential import LOG2_E
from ..gated_delta_rule.reference import working_dtype


def reference(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: every number of the state decays at its own rate, then the token is written and read."""
    dtype = working_dtype(u, state)
    S = state.to(dtype)
    outputs = [u[:, :0]]
    for t in range(u.shape[1]):
        u_t, dt_t, b_t, c_t = (x[:, t].to(dtype) for x in (u, dt, b, c))
        S = torch.exp(torch.einsum("bgd,gnd->bgnd", dt_t, A.to(dtype))) * S
        S = S + torch.einsum("bgn,bgd->bgnd", b_t, dt_t * u_t)
        outputs.append(torch.einsum("bgnd,bgn->bgd", S, c_t)[:, None].to(u.dtype))
    return torch.cat(outputs, dim=1), S


def step(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, *, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """One token: u, dt (B, G, D); A (G, N, D); b, c (B, G, N); state (B, G, N, D) -> y (B, G, D), next state.

    `overwrite` puts the next state in the memory of the given one, where it has the dtype.
    """
    dtype = working_dtype(u, state)
    u_t, dt_t, A, b_t, c_t = (x.to(dtype) for x in (u, dt, A, b, c))
    decay = torch.exp2((dt_t * LOG2_E)[..., None, :] * A)
    S = state.mul_(decay) if overwrite and state.dtype == dtype else state.to(dtype) * decay
    S = S.addcmul_(b_t[..., None], (dt_t * u_t)[..., None, :])
    y = torch.bmm(c_t.reshape(-1, 1, c_t.shape[-1]), S.flatten(0, 1)).view(u.shape)
    return y.to(u.dtype), S
