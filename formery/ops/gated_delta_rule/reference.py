"""The gated delta rule token by token: its definition, and the one-token form for decoding."""

from __future__ import annotations

import torch
from torch import Tensor


def step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: q, k (B, H, K); v (B, H, V); g, beta (B, H); state (B, H, K, V). Returns o (B, H, V), next state.

    The state decays first; what it then predicts for k is moved towards v by the fraction beta.
    """
    state = state * g.exp()[..., None, None]
    error = v - torch.einsum("bhkv,bhk->bhv", state, k)
    state = state + torch.einsum("bhk,bhv->bhkv", k, beta[..., None] * error)
    return torch.einsum("bhkv,bhk->bhv", state, q), state


def reference(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token after another, computed in the precision of `state` (at least float32): the definition."""
    dtype = torch.promote_types(state.dtype, torch.float32)
    state = state.to(dtype)
    outputs = [torch.zeros_like(v[:, :0])]
    for t in range(q.shape[1]):
        q_t, k_t, v_t, g_t, beta_t = (x[:, t].to(dtype) for x in (q, k, v, g, beta))
        output, state = step(q_t, k_t, v_t, g_t, beta_t, state)
        outputs.append(output[:, None].to(v.dtype))
    return torch.cat(outputs, dim=1), state
