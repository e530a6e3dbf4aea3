"""The gated delta rule of plain differentiable operations: for `torch.func`, second gradients, export and ONNX.

`differentiable` loops over chunks in Python; `exported` hands the same chunk to `scan`, so that the length stays free
in an exported program, and ONNX gets a Scan. Both compute the equations of `chunked` without writing in place.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from .reference import running_sum, working_dtype

EXPORTED_CHUNK = 32


def unit_lower_inverse(A: Tensor) -> Tensor:
    """(I + A)^-1 for strictly lower A (..., C, C), C a power of two: blocks of 1, 2, 4... from smaller ones.

    [[a, 0], [b, c]]^-1 = [[a^-1, 0], [-c^-1 b a^-1, c^-1]], all blocks of a size at once. Direct, like a substitution
    (no series), in log2(C) steps of operations that ONNX has too.
    """
    length = A.shape[-1]
    at = torch.arange(length, device=A.device)
    inverse = torch.eye(length, dtype=A.dtype, device=A.device).expand_as(A)
    size = 1
    while size < length:
        block = at // size
        below = (block[:, None] == block + 1) & (block[:, None] % 2 == 1)
        corner = torch.where(below, A, 0.0)
        inverse = inverse - (corner if size == 1 else inverse @ corner @ inverse)
        size *= 2
    return inverse


def advance(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk: q, k (B, H, C, K); v (B, H, C, V); g, beta (B, H, C); state (B, H, K, V) -> o (B, H, C, V), state."""
    c = running_sum(g)[..., None]
    decay = (c - c.mT).tril().to(g.dtype).exp().tril()
    inverse = unit_lower_inverse(((k @ k.mT) * decay * beta[..., None]).tril(-1))
    grown, left = c.to(g.dtype).exp(), (c[..., -1:, :] - c).to(g.dtype).exp()
    u = inverse @ (beta[..., None] * (v - (k * grown) @ state))
    o = (q * grown) @ state + ((q @ k.mT) * decay) @ u
    return o, state * grown[..., -1:, :] + (k * left).mT @ u


def pieces(inputs: tuple[Tensor, ...], state: Tensor, pad: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """The inputs with `pad` tokens more (k = beta = g = 0: they change nothing) and the state, in the working dtype."""
    dtype = working_dtype(inputs[0], state)
    padded = tuple(F.pad(x.to(dtype), [0, 0] * (x.dim() - 2) + [0, pad]) for x in inputs)
    return padded, state.to(dtype)


def differentiable(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks, differentiable any number of times, in either mode, and open to `torch.func`."""
    length = int(q.shape[1])
    size = 1 << (max(1, min(chunk, length)) - 1).bit_length()
    inputs, S = pieces((q, k, v, g, beta), state, -length % size)
    outputs = [inputs[2][:, :0]]
    for start in range(0, length, size):
        q_n, k_n, v_n, g_n, beta_n = (x[:, start : start + size].transpose(1, 2) for x in inputs)
        o, S = advance(q_n, k_n, v_n, g_n, beta_n, S)
        outputs.append(o.transpose(1, 2))
    return torch.cat(outputs, dim=1)[:, :length].to(v.dtype), S


def exported(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` for `torch.export` and ONNX with a free batch and a free length of at least 1.

    The exporter must prove that no length is a special case. It can for the number of chunks plus one (never 0 or 1),
    for chunks picked by an index (a reshape asks for divisibility), and for the result picked back likewise.
    """
    length, size = q.shape[1], EXPORTED_CHUNK
    num = (length + size - 1) // size + 1
    inputs, state = pieces((q, k, v, g, beta), state, num * size - length)
    at = torch.arange(num, device=q.device)[:, None] * size + torch.arange(size, device=q.device)
    chunks = tuple(x[:, at].transpose(0, 1).transpose(2, 3).contiguous() for x in inputs)  # (num, B, H, size, ...)

    def body(S: Tensor, token_chunk: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        q_n, k_n, v_n, g_n, beta_n = token_chunk
        o, S = advance(q_n, k_n, v_n, g_n, beta_n, S)
        return S, o

    last, outputs = scan(body, state, chunks)
    o = outputs.permute(1, 0, 3, 2, 4).flatten(1, 2)
    return o.index_select(1, torch.arange(length, device=q.device)).to(v.dtype), last
