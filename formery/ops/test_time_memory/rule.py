"""What a memory that is trained while it reads consists of: the rule, the gates of its tokens, and what it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Objective = Literal["regression", "dot"]
Weights = tuple[Tensor, ...]
"""Matrices (B, H, in, out) of the network's layers, in order; with `Rule.norm` its gain (B, H, 1, V) behind them."""


@dataclass(frozen=True)
class Rule:
    """Everything about the recurrence that does not depend on the tokens."""

    objective: Objective = "regression"
    """What the memory M is trained on for a pair: |M(k) - v|^2, or -M(k) . v."""
    window: int = 1
    """How many pairs, the newest among them, each step is taken on."""
    chunk: int = 16
    """Tokens whose gradients are taken at the same weights: those before the first of them."""
    orthogonal: bool = False
    """Whether steps are orthogonalised by Newton-Schulz."""
    residual: bool = False
    """Whether the network adds its input (keys and values of one width)."""
    norm: bool = False
    """Whether what the layers give is normed, with a gain that is trained with them."""


class Gates(NamedTuple):
    """What a token decides, a number a head: (B, L, H)."""

    retain: Tensor
    """log of what is kept of the weights, <= 0."""
    rate: Tensor
    """How far the weights follow the momentum."""
    momentum: Tensor | None = None
    """log of what is kept of the momentum, <= 0; None where none is kept."""
    write: Tensor | None = None
    """What the window's gradient is multiplied by where the momentum takes it up; None for 1."""
    weight: Tensor | None = None
    """How much this token's own pair counts in every window that it is in; None for 1."""


class Memory(NamedTuple):
    """What is carried from token to token: nothing of it grows."""

    weights: Weights
    frozen: Weights
    """The weights before the open chunk, where its gradients are taken."""
    momentum: Weights
    """Shaped like the weights; empty where no momentum is kept."""
    keys: Tensor
    """(B, window - 1, H, K) the last pairs."""
    values: Tensor
    """(B, window - 1, H, V)"""
    counts: Tensor
    """(B, window - 1, H) their weights; 0 where there was no token yet."""
    open: Tensor | None
    """(B,) tokens of the open chunk so far; None for none in any row."""


def working_dtype(q: Tensor, memory: Memory) -> torch.dtype:
    """What every form computes in: the widest of the inputs, float32 at least."""
    wide = torch.promote_types(q.dtype, memory.weights[0].dtype)
    return torch.promote_types(wide, torch.float32)


def fresh(rule: Rule, weights: Weights, batch: int, key: int, value: int, *, momentum: bool) -> Memory:
    """The memory before the first token, from first weights (H, ...) that all rows share."""
    rows = tuple(w.expand(batch, *w.shape).clone() for w in weights)
    past = batch, rule.window - 1, weights[0].shape[0]
    like = weights[0].detach()
    return Memory(
        rows,
        tuple(w.clone() for w in rows),
        tuple(torch.zeros_like(w.detach()) for w in rows) if momentum else (),
        like.new_zeros(*past, key),
        like.new_zeros(*past, value),
        like.new_zeros(past),
        None,
    )


def wide(memory: Memory, dtype: torch.dtype) -> Memory:
    """The memory in `dtype`."""
    weights, frozen, momentum = (tuple(w.to(dtype) for w in part) for part in memory[:3])
    keys, values, counts = (t.to(dtype) for t in memory[3:6])
    return Memory(weights, frozen, momentum, keys, values, counts, memory.open)


def closed(gates: Gates, lengths: Tensor | None, dtype: torch.dtype) -> Gates:
    """All gates written out in `dtype`; tokens beyond the first `lengths` (B,) of a row keep everything as it is."""
    retain = gates.retain
    write = torch.ones_like(retain) if gates.write is None else gates.write
    weight = torch.ones_like(retain) if gates.weight is None else gates.weight
    found = Gates(retain, gates.rate, gates.momentum, write, weight)
    if lengths is not None:
        real = (torch.arange(retain.shape[1], device=retain.device) < lengths[:, None])[..., None]
        found = Gates(*(None if g is None else torch.where(real, g, 0.0) for g in found))  # type: ignore[arg-type]
    return Gates(*(None if g is None else g.to(dtype) for g in found))  # type: ignore[arg-type]


def last_pairs(past: Tensor, x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last tokens of past (B, c, ...) and x (B, L, ...) together, x's first `lengths` (B,) tokens counting."""
    keep, together = past.shape[1], torch.cat([past, x.to(past.dtype)], dim=1)
    if lengths is None:
        return together[:, x.shape[1] :]
    at = lengths[:, None] + torch.arange(keep, device=x.device)
    return together[torch.arange(x.shape[0], device=x.device)[:, None], at]
