"""The gated delta rule in chunks: matrix products and one triangular solve a chunk (arXiv 2412.06464, section 3.3).

Within a chunk, c is the running sum of g and the corrected values U solve

    (I + A) U = beta (V - (exp(c) K) S),    A_ij = beta_i (k_i . k_j) exp(c_i - c_j) for j < i,

where S is the state before the chunk. Then O = (exp(c) Q) S + lower(Q K^T exp(c_i - c_j)) U, and the state after the
chunk is exp(c_last) S + (exp(c_last - c) K)^T U.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens, for any length (a padding token has k = beta = g = 0: no effect)."""
    dtype = torch.promote_types(state.dtype, torch.float32)
    length, state = q.shape[1], state.to(dtype)
    if length == 0:
        return torch.zeros_like(v), state
    pad = -length % chunk
    parts = (F.pad(x.to(dtype), (0, 0) * (x.dim() - 2) + (0, pad)) for x in (q, k, v, g, beta))
    q_n, k_n, v_n, g_n, beta_n = (x.unflatten(1, (-1, chunk)).movedim(3, 1) for x in parts)  # (B, H, N, chunk, ...)
    c = g_n.cumsum(-1)
    decay = (c[..., :, None] - c[..., None, :]).tril().exp().tril()
    unit = torch.eye(chunk, dtype=dtype, device=q.device)
    matrix = ((k_n @ k_n.mT) * decay * beta_n[..., None]).tril(-1) + unit
    right = torch.cat([v_n, k_n * c[..., None].exp()], dim=-1) * beta_n[..., None]
    solved = torch.linalg.solve_triangular(matrix, right, upper=False, unitriangular=True)
    u, w = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    scores = (q_n @ k_n.mT) * decay
    q_c, k_c = q_n * c[..., None].exp(), k_n * (c[..., -1:] - c)[..., None].exp()
    last = c[..., -1].exp()[..., None, None]
    outputs = []
    for n in range(k_n.shape[2]):
        values = u[:, :, n] - w[:, :, n] @ state
        outputs.append(q_c[:, :, n] @ state + scores[:, :, n] @ values)
        state = state * last[:, :, n] + k_c[:, :, n].mT @ values
    return torch.cat(outputs, dim=2).movedim(1, 2)[:, :length].to(v.dtype), state
