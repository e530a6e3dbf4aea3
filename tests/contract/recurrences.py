"""Recurrences along a sequence, as the contract of their forms takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from formery.ops import gated_delta_rule, gated_linear_attention, gated_scan, selective_scan, state_space_duality

Inputs = list[Tensor]
Form = Callable[..., tuple[Tensor, Tensor]]
Axes = Literal["tokens", "rows", "none"]
"""Which axes of an input are free: batch and length, batch alone, none."""


@dataclass(frozen=True)
class Recurrence:
    """An op over (..., state) -> (outputs, last state), with the forms that its contract looks at."""

    name: str
    face: Form
    """What chooses among the forms."""
    reference: Form
    quick: Form
    """The form that is used where nobody looks on, in small chunks."""
    operator: Any
    """The one opaque operator that compilers see."""
    draw: Callable[[int, int, torch.dtype], Inputs]
    """(length, batch, dtype) -> inputs."""
    small: Callable[[int], Inputs]
    """Inputs of few numbers in float64, of a length."""
    axes: tuple[Axes, ...]
    learned: int
    """The input whose gradient alone is asked for."""
    steps: bool = True
    """Whether a single token is exported as a step."""

    def __str__(self) -> str:
        return self.name

    def module(self) -> torch.nn.Module:
        """The op as exporters take it."""
        return _Module(self.face)

    def exported(self, strict: bool = False) -> torch.export.ExportedProgram:
        """The program with a free batch and length."""
        batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
        free = {"tokens": {0: batch, 1: length}, "rows": {0: batch}, "none": None}
        shapes = tuple(free[axis] for axis in self.axes)
        inputs = tuple(self.draw(50, 2, torch.float32))
        return torch.export.export(self.module(), inputs, dynamic_shapes=(shapes,), strict=strict)


class _Module(torch.nn.Module):
    def __init__(self, face: Form) -> None:
        super().__init__()
        self.face = face

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.face(*inputs)


def gradients(form: Form, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of all inputs, from fixed weights on outputs and state."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = form(*leaves)
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=source, dtype=torch.float64).to(x.dtype) for x in outputs]
    return torch.autograd.grad(outputs, leaves, weights)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _decays(*shape: int, depth: float = 8.0) -> Tensor:
    """From none to strong."""
    return -(torch.rand(*shape, dtype=torch.float64) ** 4) * depth


def _in(dtype: torch.dtype, tokens: Inputs, state: Tensor) -> Inputs:
    return [*(x.to(dtype) for x in tokens), state.to(torch.promote_types(dtype, torch.float32))]


def _delta(length: int, batch: int, dtype: torch.dtype, heads: int = 3, key: int = 8, value: int = 6) -> Inputs:
    q, k = (F.normalize(_normal(batch, length, heads, key), dim=-1) for _ in range(2))
    beta = 2 * torch.rand(batch, length, heads, dtype=torch.float64)
    tokens = [q, k, _normal(batch, length, heads, value), _decays(batch, length, heads), beta]
    return _in(dtype, tokens, _normal(batch, heads, key, value))


def _linear(length: int, batch: int, dtype: torch.dtype, heads: int = 3, key: int = 8, value: int = 6) -> Inputs:
    q, k = _normal(batch, length, heads, key), _normal(batch, length, heads, key)
    tokens = [q, k, _normal(batch, length, heads, value), _decays(batch, length, heads, key, depth=2.0)]
    return _in(dtype, tokens, _normal(batch, heads, key, value))


def _selective(length: int, batch: int, dtype: torch.dtype, groups: int = 2, state: int = 3, width: int = 5) -> Inputs:
    u = _normal(batch, length, groups, width)
    dt = torch.rand(batch, length, groups, width, dtype=torch.float64) ** 4 * 3
    rates = -torch.arange(1.0, state + 1, dtype=torch.float64)[:, None] * (
        1 + torch.rand(groups, state, width).double()
    )
    b, c = _normal(batch, length, groups, state), _normal(batch, length, groups, state)
    return _in(dtype, [u, dt, rates.double(), b, c], _normal(batch, groups, state, width))


def _duality(length: int, batch: int, dtype: torch.dtype, heads: int = 4, groups: int = 2, size: int = 5) -> Inputs:
    b, c = _normal(batch, length, groups, size), _normal(batch, length, groups, size)
    tokens = [_normal(batch, length, heads, 3), _decays(batch, length, heads), b, c]
    return _in(dtype, tokens, _normal(batch, heads, size, 3))


def _elementwise(length: int, batch: int, dtype: torch.dtype, width: int = 6) -> Inputs:
    f = (2.4 * torch.rand(batch, length, width, dtype=torch.float64) - 1.2).clamp(-1, 1)
    return _in(dtype, [_normal(batch, length, width), f], _normal(batch, width))


SUBJECTS = (
    Recurrence(
        "gated_delta_rule", gated_delta_rule.gated_delta_rule, gated_delta_rule.reference,
        lambda *x: gated_delta_rule.chunked(*x, chunk=7), gated_delta_rule.compiled, _delta,
        lambda n: _delta(n, 1, torch.float64, 1, 2, 2), (*["tokens"] * 5, "rows"), 2,
    ),
    Recurrence(
        "gated_linear_attention", gated_linear_attention.gated_linear_attention, gated_linear_attention.reference,
        lambda *x: gated_linear_attention.chunked(*x, chunk=7), gated_linear_attention.operator, _linear,
        lambda n: _linear(n, 1, torch.float64, 1, 2, 2), (*["tokens"] * 4, "rows"), 2,
    ),
    Recurrence(
        "selective_scan", selective_scan.selective_scan, selective_scan.reference,
        lambda *x: selective_scan.chunked(*x, chunk=7), selective_scan.compiled, _selective,
        lambda n: _selective(n, 1, torch.float64, 1, 2, 2), ("tokens", "tokens", "none", "tokens", "tokens", "rows"), 3,
    ),
    Recurrence(
        "state_space_duality", state_space_duality.state_space_duality, state_space_duality.reference,
        lambda *x: state_space_duality.chunked(*x, chunk=7), state_space_duality.compiled, _duality,
        lambda n: _duality(n, 1, torch.float64, 2, 1, 2), (*["tokens"] * 4, "rows"), 2,
    ),
    Recurrence(
        "gated_scan", gated_scan.gated_scan, gated_scan.reference, gated_scan.scanned, gated_scan.compiled,
        _elementwise, lambda n: _elementwise(n, 1, torch.float64, 2), ("tokens", "tokens", "rows"), 1, steps=False,
    ),
)  # fmt: skip
