"""Test-time memories for `torch.export` and ONNX with a free length: the chunks of `chunked` in a `scan`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from .chunked import PAIRS, Layers, Piece, advance, aligned, at_ends, closing, gathered
from .rule import Gates, Memory, Rule, closed, wide, working_dtype


def exported(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """`reference` with a free batch and a free length of at least 1.

    There is one chunk more than rows that begin anywhere in a chunk need, so that no length is a special case. Chunks
    are picked by an index, as a reshape would ask for divisibility.
    """
    dtype, length, C = working_dtype(q, memory), q.shape[1], rule.chunk
    past, gates = wide(memory, dtype), closed(gates, lengths, dtype)
    num = (length + 2 * C - 2) // C + 1
    found = aligned(q, k, v, gates, past, rule, lengths, num)
    first = torch.arange(num, device=q.device)[:, None] * C
    pieces = []
    for i, x in enumerate(found.rows):
        if x is not None:
            steps = torch.arange(C + (rule.window - 1 if i in PAIRS else 0), device=q.device)
            pieces.append(x[:, first + steps].transpose(0, 1).transpose(2, 3).contiguous())  # (num, B, H, C, ...)

    def body(layers: Layers, chunk: tuple[Tensor, ...]) -> tuple[Layers, Tensor]:
        complete, *tensors = chunk
        y, (weights, frozen, momentum) = advance(Piece(*tensors), *layers, rule)
        return _own((weights, at_ends(complete, weights, frozen), momentum)), y

    start = _own((past.weights, past.weights if past.open is None else past.frozen, past.momentum))
    (weights, frozen, momentum), outputs = scan(body, start, (found.complete, *pieces))
    y = outputs.permute(1, 2, 0, 3, 4).flatten(2, 3)
    return gathered(y, found, length).to(v.dtype), closing(found, weights, frozen, momentum, lengths)


def _own(layers: Layers) -> Layers:
    """Tensors that share no memory and are laid out alike, as `scan` asks of what it carries."""
    weights, frozen, momentum = (
        tuple(w.clone(memory_format=torch.contiguous_format) for w in part) for part in layers
    )  # fmt: skip
    return weights, frozen, momentum
