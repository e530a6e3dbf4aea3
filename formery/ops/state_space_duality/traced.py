"""State space duality of plain differentiable operations: for `torch.func`, second gradients, export and ONNX.

`differentiable` loops over chunks in Python; `exported` hands the same chunk to `scan`, so that the length stays free
in an exported program, and ONNX gets a Scan. Both compute the equations of `chunked` without writing in place.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from ..gated_delta_rule.reference import running_sum, working_dtype
from .reference import heads_of

EXPORTED_CHUNK = 32


def advance(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk: x (B, H, T, P); g (B, H, T); b, c (B, H, T, N); state (B, H, N, P) -> y (B, H, T, P), state."""
    sums = running_sum(g)[..., None]
    decay = (sums - sums.mT).tril().to(g.dtype).exp().tril()
    grown, left = sums.to(g.dtype).exp(), (sums[..., -1:, :] - sums).to(g.dtype).exp()
    y = ((c @ b.mT) * decay) @ x + (c * grown) @ state
    return y, state * grown[..., -1:, :] + (b * left).mT @ x


def pieces(inputs: tuple[Tensor, ...], state: Tensor, pad: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """The inputs, b and c for each head, with `pad` tokens more (x = g = 0: they change nothing) and the state."""
    dtype, heads = working_dtype(inputs[0], state), inputs[0].shape[2]
    x, g, b, c = inputs
    wide = (x, g, heads_of(b, heads), heads_of(c, heads))
    return tuple(F.pad(w.to(dtype), [0, 0] * (w.dim() - 2) + [0, pad]) for w in wide), state.to(dtype)


def differentiable(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """`reference` by chunks, differentiable any number of times, in either mode, and open to `torch.func`."""
    inputs, S = pieces((x, g, b, c), state, 0)
    outputs = [inputs[0][:, :0]]
    for start in range(0, int(x.shape[1]), chunk):
        x_n, g_n, b_n, c_n = (part[:, start : start + chunk].transpose(1, 2) for part in inputs)
        y, S = advance(x_n, g_n, b_n, c_n, S)
        outputs.append(y.transpose(1, 2))
    return torch.cat(outputs, dim=1).to(x.dtype), S


def exported(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`reference` for `torch.export` and ONNX with a free batch and a free length of at least 1.

    As with the gated delta rule, chunks are picked by an index and one more than needed is made, so that the exporter
    sees no special case.
    """
    length, size = x.shape[1], EXPORTED_CHUNK
    num = (length + size - 1) // size + 1
    inputs, state = pieces((x, g, b, c), state, num * size - length)
    at = torch.arange(num, device=x.device)[:, None] * size + torch.arange(size, device=x.device)
    chunks = tuple(part[:, at].transpose(0, 1).transpose(2, 3).contiguous() for part in inputs)

    def body(S: Tensor, piece: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        x_n, g_n, b_n, c_n = piece
        y, S = advance(x_n, g_n, b_n, c_n, S)
        return S, y

    last, outputs = scan(body, state, chunks)
    y = outputs.permute(1, 0, 3, 2, 4).flatten(1, 2)
    return y.index_select(1, torch.arange(length, device=x.device)).to(x.dtype), last
