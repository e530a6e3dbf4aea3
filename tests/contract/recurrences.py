"""Recurrences along a sequence, as the contract of their forms takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from formery.ops import gated_delta_rule, gated_linear_attention, gated_scan, selective_scan, state_space_duality

Inputs = list[Any]
"""Tensors; None where an input is left out."""
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
    forms: Mapping[str, Form]
    """All others, in chunks of several sizes."""
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

    def cut(self, inputs: Inputs, begin: int, end: int) -> Inputs:
        """The inputs of some of the tokens."""
        return [x[:, begin:end] if axis == "tokens" else x for x, axis in zip(inputs, self.axes, strict=True)]

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


def gradients(form: Form, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Of all inputs, from fixed weights on outputs and state."""
    leaves = [None if x is None else x.clone().requires_grad_() for x in inputs]
    outputs = form(*leaves)
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=source, dtype=torch.float64).to(x.dtype) for x in outputs]
    return torch.autograd.grad(outputs, [x for x in leaves if x is not None], weights)


def double(inputs: Sequence[Tensor | None]) -> Inputs:
    """The same numbers in float64."""
    return [None if x is None else x.double() for x in inputs]


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _decays(*shape: int, depth: float = 8.0) -> Tensor:
    """From none to strong."""
    return -(torch.rand(*shape, dtype=torch.float64) ** 4) * depth


def _in(dtype: torch.dtype, tokens: Inputs, state: Tensor) -> Inputs:
    return [*(x.to(dtype) for x in tokens), state.to(torch.promote_types(dtype, torch.float32))]


def delta(
    length: int, batch: int = 2, dtype: torch.dtype = torch.float64, heads: int = 3, key: int = 8, value: int = 6
) -> Inputs:
    """(q, k, v, g, beta, state) as they come: unit keys, beta in (0, 2), decays from none to strong."""
    q, k = (F.normalize(_normal(batch, length, heads, key), dim=-1) for _ in range(2))
    beta = 2 * torch.rand(batch, length, heads, dtype=torch.float64)
    tokens = [q, k, _normal(batch, length, heads, value), _decays(batch, length, heads), beta]
    return _in(dtype, tokens, _normal(batch, heads, key, value))


def linear(
    length: int,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    heads: int = 3,
    key: int = 8,
    value: int = 6,
    *,
    kind: str = "channel",
    depth: float = 2.0,
    wide: bool = True,
) -> Inputs:
    """(q, k, v, g, state) with decays from none to exp(-depth) a token, in float32 at least where they are `wide`.

    kind: what has a decay of its own, a key `channel`, a `token` of a head, a `head`; or nothing has (`none`).
    """
    tokens = [_normal(batch, length, heads, size) for size in (key, key, value)]
    shapes = {"channel": (batch, length, heads, key), "token": (batch, length, heads), "head": (heads,)}
    g = None if kind == "none" else _decays(*shapes[kind], depth=depth)
    q, k, v, state = _in(dtype, tokens, _normal(batch, heads, key, value))
    return [q, k, v, None if g is None else g.to(state.dtype if wide else dtype), state]


def selective(
    length: int, batch: int = 2, dtype: torch.dtype = torch.float64, groups: int = 2, state: int = 3, width: int = 5
) -> Inputs:
    """(u, dt, A, b, c, state) as they come: rates of 1 to `state`, steps from none to strong."""
    u = _normal(batch, length, groups, width)
    dt = torch.rand(batch, length, groups, width, dtype=torch.float64) ** 4 * 3
    rates = -torch.arange(1.0, state + 1, dtype=torch.float64)[:, None] * (
        1 + torch.rand(groups, state, width).double()
    )
    b, c = _normal(batch, length, groups, state), _normal(batch, length, groups, state)
    return _in(dtype, [u, dt, rates.double(), b, c], _normal(batch, groups, state, width))


def duality(
    length: int, batch: int = 2, dtype: torch.dtype = torch.float64, heads: int = 4, groups: int = 2, size: int = 5
) -> Inputs:
    """(x, g, b, c, state) as they come: decays from none to strong."""
    b, c = _normal(batch, length, groups, size), _normal(batch, length, groups, size)
    tokens = [_normal(batch, length, heads, 3), _decays(batch, length, heads), b, c]
    return _in(dtype, tokens, _normal(batch, heads, size, 3))


def elementwise(length: int, batch: int = 2, dtype: torch.dtype = torch.float64, width: int = 6) -> Inputs:
    """(x, f, state) with factors from -1 to 1, some of them 0 and 1."""
    f = (2.4 * torch.rand(batch, length, width, dtype=torch.float64) - 1.2).clamp(-1, 1)
    f = torch.where(torch.rand_like(f) < 0.1, 0.0, f)
    return _in(dtype, [_normal(batch, length, width), f], _normal(batch, width))


def _forms(op: Any, face: Form, chunks: Sequence[int] = ()) -> dict[str, Form]:
    """The forms of an op that works by chunks; `chunks` are sizes for the differentiable one."""
    return {
        "chunked": op.chunked,
        **{f"chunked {n}": partial(op.chunked, chunk=n) for n in (1, 7, 64)},
        "differentiable": op.differentiable,
        **{f"differentiable {n}": partial(op.differentiable, chunk=n) for n in chunks},
        "compiled": op.compiled,
        "fastest": face,
    }


SUBJECTS = (
    Recurrence(
        "gated_delta_rule", gated_delta_rule.gated_delta_rule, gated_delta_rule.reference,
        _forms(gated_delta_rule, gated_delta_rule.gated_delta_rule, [16]),
        lambda *x: gated_delta_rule.chunked(*x, chunk=7), gated_delta_rule.compiled, delta,
        lambda n: delta(n, 1, torch.float64, 1, 2, 2), (*["tokens"] * 5, "rows"), 2,
    ),
    Recurrence(
        "gated_linear_attention", gated_linear_attention.gated_linear_attention, gated_linear_attention.reference,
        _forms(gated_linear_attention, gated_linear_attention.gated_linear_attention),
        lambda *x: gated_linear_attention.chunked(*x, chunk=7), gated_linear_attention.operator,
        partial(linear, wide=False),
        lambda n: linear(n, 1, torch.float64, 1, 2, 2), (*["tokens"] * 4, "rows"), 2,
    ),
    Recurrence(
        "selective_scan", selective_scan.selective_scan, selective_scan.reference,
        _forms(selective_scan, selective_scan.selective_scan, [5]),
        lambda *x: selective_scan.chunked(*x, chunk=7), selective_scan.compiled, selective,
        lambda n: selective(n, 1, torch.float64, 1, 2, 2), ("tokens", "tokens", "none", "tokens", "tokens", "rows"), 3,
    ),
    Recurrence(
        "state_space_duality", state_space_duality.state_space_duality, state_space_duality.reference,
        _forms(state_space_duality, state_space_duality.state_space_duality, [5]),
        lambda *x: state_space_duality.chunked(*x, chunk=7), state_space_duality.compiled, duality,
        lambda n: duality(n, 1, torch.float64, 2, 1, 2), (*["tokens"] * 4, "rows"), 2,
    ),
    Recurrence(
        "gated_scan", gated_scan.gated_scan, gated_scan.reference,
        {
            "scanned": gated_scan.scanned, "differentiable": gated_scan.differentiable,
            "compiled": gated_scan.compiled, "fastest": gated_scan.gated_scan,
        },
        gated_scan.scanned, gated_scan.compiled, elementwise, lambda n: elementwise(n, 1, torch.float64, 2),
        ("tokens", "tokens", "rows"), 1, steps=False,
    ),
)  # fmt: skip


def named(name: str) -> Recurrence:
    """The recurrence called so."""
    return next(op for op in SUBJECTS if op.name == name)


def _decaying(kind: str, depth: float) -> Recurrence:
    op, axis = named("gated_linear_attention"), "tokens" if kind in ("channel", "token") else "none"
    axes = (*["tokens"] * 3, axis, "rows")
    return replace(op, name=f"{op.name}, {kind} {depth}", draw=partial(linear, kind=kind, depth=depth), axes=axes)


DECAYS = tuple(_decaying(kind, depth) for kind in ("channel", "token", "head") for depth in (0.5, 4.0, 30.0))
"""Decays that are split, split in pieces, and written out, for all that may have one of its own."""
FORMED = (*SUBJECTS, *DECAYS, _decaying("none", 0.0))
"""Recurrences on every kind of inputs that their forms tell apart."""
