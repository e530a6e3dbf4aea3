"""The selective scan of plain differentiable operations: for `torch.func`, second gradients, export and ONNX.

`differentiable` loops over chunks in Python; `exported` hands the same chunk to `scan`, so that the length stays free
in an exported program. Within a chunk the recurrence is a parallel scan: log2(T) steps of whole tensors, each of
which joins stretches of tokens to stretches twice as long; products of decays never exceed 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from ..gated_delta_rule.reference import working_dtype

EXPORTED_CHUNK = 32


def advance(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk: u, dt (B, T, G, D); A (G, N, D); b, c (B, T, G, N); state (B, G, N, D) -> y (B, T, G, D), state."""
    length = u.shape[1]
    decay = torch.exp(dt[..., None, :] * A)
    x = b[..., None] * (dt * u)[..., None, :]
    x = torch.cat([x[:, :1] + decay[:, :1] * state[:, None], x[:, 1:]], dim=1)
    reach = 1
    while reach < length:
        x = torch.cat([x[:, :reach], x[:, reach:] + decay[:, reach:] * x[:, :-reach]], dim=1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        reach *= 2
    return (c[..., None, :] @ x).squeeze(-2), x[:, -1]


def differentiable(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks, differentiable any number of times, in either mode, and open to `torch.func`."""
    dtype = working_dtype(u, state)
    wide = tuple(x.to(dtype) for x in (u, dt, b, c))
    A, S, outputs = A.to(dtype), state.to(dtype), [wide[0][:, :0]]
    for start in range(0, int(u.shape[1]), chunk):
        u_n, dt_n, b_n, c_n = (x[:, start : start + chunk] for x in wide)
        y, S = advance(u_n, dt_n, A, b_n, c_n, S)
        outputs.append(y)
    return torch.cat(outputs, dim=1).to(u.dtype), S


def exported(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` for `torch.export` and ONNX with a free batch and a free length of at least 1.

    Tokens that fill up the last chunk have dt = 0: they neither decay nor write. As with the gated delta rule, chunks
    are picked by an index and one more than needed is made, so that the exporter sees no special case.
    """
    length, size, dtype = u.shape[1], EXPORTED_CHUNK, working_dtype(u, state)
    num = (length + size - 1) // size + 1
    wide = tuple(F.pad(x.to(dtype), [0, 0, 0, 0, 0, num * size - length]) for x in (u, dt, b, c))
    at = torch.arange(num, device=u.device)[:, None] * size + torch.arange(size, device=u.device)
    pieces = tuple(x[:, at].transpose(0, 1).contiguous() for x in wide)  # (num, B, size, G, ...)
    rates = A.to(dtype)

    def body(S: Tensor, piece: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        u_n, dt_n, b_n, c_n = piece
        y, S = advance(u_n, dt_n, rates, b_n, c_n, S)
        return S.clone(), y

    last, outputs = scan(body, state.to(dtype), pieces)
    y = outputs.transpose(0, 1).flatten(1, 2)
    return y.index_select(1, torch.arange(length, device=u.device)).to(u.dtype), last
