"""Gated linear attention token by token: its definition, and the form for one token that decoding uses."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gated_delta_rule.reference import working_dtype


def by_token(g: Tensor | None, k: Tensor) -> Tensor | None:
    """Log decays that broadcast against k (B, L, H, K): (B, L, H, K), or (B, L, H, 1) where a head has one."""
    if g is None or g.dim() == k.dim():
        return g
    if g.dim() == 1:
        g = g + torch.zeros_like(k[..., 0])
    return g[..., None]


def reference(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: the state decays, takes up k v^T, and is read by q."""
    dtype = working_dtype(q, state)
    S, g = state.to(dtype), by_token(g, k)
    outputs = [v[:, :0]]
    for t in range(q.shape[1]):
        q_t, k_t, v_t = (x[:, t].to(dtype) for x in (q, k, v))
        if g is not None:
            S = S * g[:, t].to(dtype).exp()[..., None]
        S = S + torch.einsum("bhk,bhv->bhkv", k_t, v_t)
        outputs.append(torch.einsum("bhkv,bhk->bhv", S, q_t)[:, None].to(v.dtype))
    return torch.cat(outputs, dim=1), S


def step(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: q, k (B, H, K); v (B, H, V); g (B, H, K), (B, H, 1) or None -> o (B, H, V), next state."""
    dtype = working_dtype(q, state)
    q, k, wide_v, S = (x.to(dtype) for x in (q, k, v, state))
    if g is not None:
        S = S * g.to(dtype).exp()[..., None]
    S = torch.addcmul(S, k[..., None], wide_v[..., None, :])
    return (q[..., None, :] @ S).squeeze(-2).to(v.dtype), S
