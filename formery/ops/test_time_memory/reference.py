"""Test-time memories token by token, with torch's own gradients: the definition."""

from __future__ import annotations

import torch
from torch import Tensor

from ..newton_schulz import newton_schulz
from .network import loss, output
from .rule import Gates, Memory, Rule, Weights, closed, last_pairs, wide, working_dtype


def reference(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """The equations of the package, one token after another."""
    dtype = working_dtype(q, memory)
    past, gates = wide(memory, dtype), closed(gates, lengths, dtype)
    assert gates.write is not None
    assert gates.weight is not None
    B, L = q.shape[:2]
    keys, values = torch.cat([past.keys, k.to(dtype)], dim=1), torch.cat([past.values, v.to(dtype)], dim=1)
    weight = torch.cat([past.counts, gates.weight], dim=1)
    weights, frozen, momentum, num_open = past.weights, past.frozen, past.momentum, past.open
    if num_open is None:
        num_open, frozen = torch.zeros(B, dtype=torch.long, device=q.device), weights
    outputs = [v[:, :0]]
    for t in range(L):
        here = slice(t, t + rule.window)
        k_t, v_t, weight_t = (x[:, here].transpose(1, 2) for x in (keys, values, weight))
        step = tuple(g * _each(gates.write[:, t], g) for g in gradient(frozen, k_t, v_t, weight_t, rule))
        if gates.momentum is not None:
            step = tuple(_each(gates.momentum[:, t].exp(), s) * s + g for s, g in zip(momentum, step, strict=True))
            momentum = step
        num = len(step) - rule.norm
        taken = tuple(newton_schulz(s) if rule.orthogonal and i < num else s for i, s in enumerate(step))
        keep, rate = gates.retain[:, t].exp(), gates.rate[:, t]
        weights = tuple(_each(keep, w) * w - _each(rate, w) * s for w, s in zip(weights, taken, strict=True))
        y = output(weights, q[:, t, :, None].to(dtype), rule)
        outputs.append(y.squeeze(2)[:, None].to(v.dtype))
        num_open = num_open + (1 if lengths is None else (t < lengths).long())
        full = num_open == rule.chunk
        frozen = tuple(torch.where(full[:, None, None, None], w, f) for w, f in zip(weights, frozen, strict=True))
        num_open = num_open % rule.chunk
    tails = ((past.keys, k), (past.values, v), (past.counts, gates.weight))
    keys, values, weight = (last_pairs(*pair, lengths) for pair in tails)
    return torch.cat(outputs, dim=1), Memory(weights, frozen, momentum, keys, values, weight, num_open)


def _each(x: Tensor, like: Tensor) -> Tensor:
    """x (B, H) against `like` (B, H, ...)."""
    return x.reshape(*x.shape, *(1,) * (like.dim() - 2))


def gradient(frozen: Weights, k: Tensor, v: Tensor, weight: Tensor, rule: Rule) -> Weights:
    """Of the window's weighted loss, at the weights before the chunk."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        at = tuple(w if w.requires_grad and graph else w.detach().requires_grad_() for w in frozen)
        total = (loss(at, k, v, rule) * weight).sum()
        return torch.autograd.grad(total, at, create_graph=graph)
