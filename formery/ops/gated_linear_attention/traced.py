"""Gated linear attention of plain differentiable operations: for `torch.func`, second gradients, export and ONNX.

`differentiable` loops over chunks in Python; `exported` hands the same chunk to `scan`, so that the length stays free
in an exported program, and ONNX gets a Scan. Both write the decays within a chunk out, whatever their size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from ..gated_delta_rule.reference import working_dtype
from ..gated_delta_rule.traced import pieces
from .reference import by_token

BY_CHANNEL, BY_HEAD = 16, 32
"""Tokens a chunk: where every channel has its decay, and where a head has one."""


def chunk_length(g: Tensor | None) -> int:
    """Tokens a chunk; tracers' sizes are tensors."""
    return BY_HEAD if g is None or int(g.shape[-1]) == 1 else BY_CHANNEL


def advance(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk: q, k (B, H, C, K); v (B, H, C, V); g (B, H, C, K or 1); state (B, H, K, V) -> o, state."""
    if g is None:
        return q @ state + (q @ k.mT).tril() @ v, state + k.mT @ v
    c = g.cumsum(-2, dtype=g.dtype if g.device.type == "mps" else torch.float64)
    at = torch.arange(c.shape[-2], device=c.device)
    seen = (at[:, None] >= at)[..., None]
    fall = torch.where(seen, c[..., :, None, :] - c[..., None, :, :], -torch.inf)
    decay = fall.to(g.dtype).exp()
    if int(g.shape[-1]) == 1:
        P = (q @ k.mT) * decay[..., 0]
    else:
        P = (decay * k[..., None, :, :] * q[..., :, None, :]).sum(-1)
    grown, left = c.to(g.dtype).exp(), (c[..., -1:, :] - c).to(g.dtype).exp()
    return (q * grown) @ state + P @ v, state * grown[..., -1:, :].mT + (k * left).mT @ v


def differentiable(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` by chunks, differentiable any number of times, in either mode, and open to `torch.func`."""
    length, decays = int(q.shape[1]), by_token(g, k)
    size = chunk_length(decays)
    inputs, S = pieces((q, k, v) if decays is None else (q, k, v, decays), state, 0)
    outputs = [inputs[2][:, :0]]
    for start in range(0, length, size):
        q_n, k_n, v_n, *g_n = (x[:, start : start + size].transpose(1, 2) for x in inputs)
        o, S = advance(q_n, k_n, v_n, g_n[0] if g_n else None, S)
        outputs.append(o.transpose(1, 2))
    return torch.cat(outputs, dim=1).to(v.dtype), S


def exported(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` for `torch.export` and ONNX with a free batch and a free length of at least 1.

    One chunk more than needed, chunks picked by an index, and the result picked back likewise: see
    `gated_delta_rule.traced.exported`. Tokens beyond the length are zeros, which change nothing.
    """
    decays = by_token(g, k)
    length, size = q.shape[1], chunk_length(decays)
    num = (length + size - 1) // size + 1
    inputs, start = pieces((q, k, v) if decays is None else (q, k, v, decays), state, num * size - length)
    at = torch.arange(num, device=q.device)[:, None] * size + torch.arange(size, device=q.device)
    chunks = tuple(x[:, at].transpose(0, 1).transpose(2, 3).contiguous() for x in inputs)  # (num, B, H, size, ...)

    def body(S: Tensor, chunk: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        q_n, k_n, v_n, *g_n = chunk
        o, S = advance(q_n, k_n, v_n, g_n[0] if g_n else None, S)
        return S, o

    last, outputs = scan(body, start.to(working_dtype(q, state)), chunks)
    o = outputs.permute(1, 0, 3, 2, 4).flatten(1, 2)
    return o.index_select(1, torch.arange(length, device=q.device)).to(v.dtype), last
