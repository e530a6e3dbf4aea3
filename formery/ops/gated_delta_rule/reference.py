"""The gated delta rule token by token: its definition, and the form for one token that decoding uses."""

from __future__ import annotations

import torch
from torch import Tensor


def working_dtype(q: Tensor, state: Tensor) -> torch.dtype:
    """What every form computes in, and returns the state in: the widest of the inputs, float32 at least."""
    return torch.promote_types(torch.promote_types(q.dtype, state.dtype), torch.float32)


def running_sum(g: Tensor) -> Tensor:
    """c_t = g_1 + ... + g_t along the last axis, in float64 where the device has it.

    c reaches hundreds in a chunk, and exp(c_i - c_j) for neighbours i, j would keep only 5 of float32's 7 digits.
    """
    return g.cumsum(-1, dtype=g.dtype if g.device.type == "mps" else torch.float64)


def reference(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: the state decays, then what it predicts for k is moved towards v by the fraction beta."""
    dtype = working_dtype(q, state)
    S = state.to(dtype)
    outputs = [v[:, :0]]
    for t in range(q.shape[1]):
        q_t, k_t, v_t, g_t, beta_t = (x[:, t].to(dtype) for x in (q, k, v, g, beta))
        S = S * g_t.exp()[..., None, None]
        error = v_t - torch.einsum("bhkv,bhk->bhv", S, k_t)
        S = S + torch.einsum("bhk,bhv->bhkv", k_t, beta_t[..., None] * error)
        outputs.append(torch.einsum("bhkv,bhk->bhv", S, q_t)[:, None].to(v.dtype))
    return torch.cat(outputs, dim=1), S


def step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: q, k (B, H, K); v (B, H, V); g, beta (B, H); state (B, H, K, V) -> o (B, H, V), next state.

    The state is the bulk of the work, so it is read once for k and q together and written once: with a = exp(g) and
    u = beta (v - a S^T k), the output S'^T q of the new state S' = a S + k u^T is a S^T q + (k . q) u.
    """
    dtype = working_dtype(q, state)
    q_t, k_t, v_t, g_t, beta_t = (x.to(dtype) for x in (q, k, v, g, beta))
    S, decay = state.to(dtype), g_t.to(dtype).exp()[..., None]
    read = decay[..., None] * (torch.stack([k_t, q_t], dim=-2) @ S)
    u = beta_t[..., None] * (v_t - read[..., 0, :])
    o = read[..., 1, :] + (k_t * q_t).sum(-1, keepdim=True) * u
    return o.to(v.dtype), (S * decay[..., None]).addcmul_(k_t[..., None], u[..., None, :])
