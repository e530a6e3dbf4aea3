"""Recurrences with their Triton forms, on every kind of inputs that kernels tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from formery.ops import delta_rule
from formery.ops.gated_delta_rule.fused import fused as gated_delta_rule
from formery.ops.gated_linear_attention.fused import fused as gated_linear_attention
from formery.ops.selective_scan.fused import fused as selective_scan
from formery.ops.state_space_duality.fused import fused as state_space_duality
from tests.contract.recurrences import (
    Form,
    Inputs,
    Recurrence,
    delta,
    double,
    duality,
    linear,
    named,
    selective,
)


def _without_decay(length: int, batch: int, dtype: torch.dtype) -> Inputs:
    q, k, v, _, beta, state = delta(length, batch, dtype, heads=2)
    return [q, k, v, beta, state]


def _linear(kind: str, depth: float) -> Recurrence:
    """Linear attention whose decays are `kind`'s, in chunks of 16."""
    draw = partial(linear, heads=1 if kind == "channel" else 2, kind=kind, depth=depth)
    axes = (*["tokens"] * 3, "none" if kind in ("head", "none") else "tokens", "rows")
    name = f"linear attention, {kind} {depth}"
    form = partial(gated_linear_attention, chunk=16)
    return replace(named("gated_linear_attention"), name=name, quick=form, draw=draw, axes=axes)


NARROW = (
    *(_linear(*kind) for kind in (("channel", 2.0), ("token", 4.0), ("head", 0.5), ("none", 0.0))),
    replace(named("state_space_duality"), quick=partial(state_space_duality, chunk=16)),
    replace(named("gated_delta_rule"), quick=partial(gated_delta_rule, chunk=16), draw=partial(delta, heads=1)),
    replace(
        named("gated_delta_rule"), name="delta_rule", face=delta_rule.delta_rule, reference=delta_rule.reference,
        quick=lambda q, k, v, beta, state: gated_delta_rule(q, k, v, None, beta, state, chunk=16),
        draw=_without_decay, axes=(*["tokens"] * 4, "rows"),
    ),
    replace(named("selective_scan"), quick=partial(selective_scan, tokens=4), draw=partial(selective, groups=1)),
)  # fmt: skip
"""Their `quick` form has its tokens in several chunks of 16 (or tiles of 4)."""
OPS = tuple(op for op in NARROW if not op.name.endswith((" 0.5", " 0.0")))
"""One kind of inputs for each op, and for each place where linear attention's decays may stand."""
STRONG = (
    _linear("channel", 60.0),
    _linear("token", 300.0),
    replace(
        named("gated_delta_rule"), name="delta rule, strong", quick=partial(gated_delta_rule, chunk=16),
        draw=lambda *shape: [x * 40 if at == 3 else x for at, x in enumerate(delta(*shape, heads=1))],
    ),
    replace(
        named("selective_scan"), name="selective scan, strong", quick=partial(selective_scan, tokens=4),
        draw=lambda *shape: [x * 40 if at == 1 else x for at, x in enumerate(selective(*shape, groups=1))],
    ),
)  # fmt: skip
"""Single tokens that leave less of the state than float32 can tell from nothing, among others that leave most of it."""

WIDE = (
    replace(
        named("gated_linear_attention"), name="linear attention, wide", quick=partial(gated_linear_attention, chunk=32),
        draw=partial(linear, heads=1, key=40, value=40),
    ),
    replace(
        named("state_space_duality"), name="10 heads in a group", quick=state_space_duality,
        draw=partial(duality, heads=10, groups=1, size=20),
    ),
    replace(
        named("gated_delta_rule"), name="delta rule, wide", quick=gated_delta_rule,
        draw=partial(delta, heads=1, key=40, value=40),
    ),
    replace(
        named("selective_scan"), name="selective scan, wide", quick=partial(selective_scan, tokens=4),
        draw=partial(selective, groups=1, state=16, width=9),
    ),
)  # fmt: skip
"""Heads of several tiles, heads that share keys, in chunks as they are used."""


def far(got: Tensor, expected: Tensor) -> float:
    """The largest difference, by the size of what is expected."""
    got, expected = got.detach().double(), expected.detach()
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def everything(form: Form, inputs: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Values, and gradients of all inputs from fixed weights on them; the form runs once."""
    leaves = [None if x is None else x.clone().requires_grad_() for x in inputs]
    outputs = form(*leaves)
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=source, dtype=torch.float64).to(x.dtype) for x in outputs]
    slopes = torch.autograd.grad(outputs, [x for x in leaves if x is not None], weights)
    return list(outputs), list(slopes)


def assert_near(form: Form, op: Recurrence, inputs: Inputs, values: float = 2e-6, slopes: float = 1e-5) -> None:
    """Values and gradients are those of the definition in float64, the latter in the dtypes of the inputs."""
    got, expected = everything(form, inputs), everything(op.reference, double(inputs))
    for value, wanted in zip(got[0], expected[0], strict=True):
        assert value.shape == wanted.shape
        assert far(value, wanted) <= values
    for slope, wanted, x in zip(got[1], expected[1], [x for x in inputs if x is not None], strict=True):
        assert slope.dtype == x.dtype
        assert slope.shape == x.shape
        assert far(slope, wanted) <= slopes
