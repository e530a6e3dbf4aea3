"""Test-time memories inside `torch.compile`: one call of the graph.

So that the loop over chunks is not read operation by operation, which takes minutes where steps are orthogonalised.
What compiles the graph sees the plain operations of `chunked` behind that call, and their gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .chunked import apart, together, token
from .rule import Gates, Memory, Objective, Rule

Flat = tuple[Tensor, ...]


def compiled(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """`chunked` as one call."""
    optional = (gates.momentum, gates.write, gates.weight, memory.open, lengths)
    given = tuple(x is not None for x in optional)
    fixed = (q, k, v, gates.retain, gates.rate, memory.keys, memory.values, memory.counts)
    sizes = len(memory.weights), len(memory.momentum)
    tensors = (*fixed, *(x for x in optional if x is not None), *memory.weights, *memory.frozen, *memory.momentum)
    y, *found = _call(
        tensors, given, sizes, rule.objective, rule.window, rule.chunk, rule.orthogonal, rule.residual, rule.norm
    )
    num = sizes[0]
    weights, frozen, momentum = (tuple(found[a:b]) for a, b in ((0, num), (num, 2 * num), (2 * num, -4)))
    keys, values, counts, now = found[-4:]
    return y, Memory(weights, frozen, momentum, keys, values, counts, now)


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def _call(
    tensors: Flat,
    given: tuple[bool, ...],
    sizes: tuple[int, int],
    objective: Objective,
    window: int,
    chunk: int,
    orthogonal: bool,
    residual: bool,
    norm: bool,
) -> Flat:
    """`compiled` of tensors and plain values alone, as a graph's calls are."""
    left = list(tensors)
    q, k, v, retain, rate, keys, values, counts = (left.pop(0) for _ in range(8))
    momentum, write, weight, now, lengths = (left.pop(0) if there else None for there in given)
    weights, frozen, speeds = (tuple(left.pop(0) for _ in range(n)) for n in (sizes[0], *sizes))
    gates = Gates(retain, rate, momentum, write, weight)
    memory = Memory(weights, frozen, speeds, keys, values, counts, now)
    rule = Rule(objective, window, chunk, orthogonal, residual, norm)
    if now is not None and q.shape[1] == 1:
        y, memory = token(q, k, v, gates, memory, rule, lengths)
    elif lengths is not None or now is not None:
        y, memory = apart(q, k, v, gates, memory, rule, lengths)
    else:
        y, memory = together(q, k, v, gates, memory, rule, 0)
    assert memory.open is not None
    return y, *memory.weights, *memory.frozen, *memory.momentum, *memory[3:6], memory.open
