"""The Legendre memory: every form is the recurrence, which is the exponential of the differential equation."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from formery.ops import legendre_memory as rule

pytestmark = pytest.mark.usefixtures("poisoned")


def draw(length: int, order: int = 6, inputs: int = 2) -> tuple[Tensor, Tensor]:
    u = torch.randn(2, length, inputs, dtype=torch.float64, requires_grad=True)
    return u, torch.randn(2, inputs, order, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("length", [0, 1, 2, 31, 128, 129, 300])
@pytest.mark.parametrize("given_", [False, True])
def test_values_and_gradients_are_the_definitions(length: int, given_: bool) -> None:
    tables = rule.tables(6, 20.0)
    u, memory = draw(length)
    inputs = (u, memory) if given_ else (u,)
    start = memory if given_ else None
    forms = [rule.reference, rule.legendre_memory, *([rule.chunked] if length else [])]
    expected, *others = [form(u, tables, start) for form in forms]
    weights = [torch.randn_like(t) for t in expected]

    def gradients(out: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        loss = sum((a * b).sum() for a, b in zip(out, weights, strict=True))
        assert isinstance(loss, Tensor)
        return torch.autograd.grad(loss, inputs, materialize_grads=True)

    if length:
        with torch.no_grad():
            torch.testing.assert_close(rule.exported(u, tables, start), expected)
    wanted = gradients(expected) if length or given_ else ()
    for got in others:
        torch.testing.assert_close(got, expected)
        if length or given_:
            torch.testing.assert_close(gradients(got), wanted)


@pytest.mark.parametrize(("order", "length"), [(8, 16), (8, 1000), (64, 128), (64, 1000), (256, 128)])
def test_float32_stays_near_float64(order: int, length: int) -> None:
    tables = rule.tables(order, 128.0)
    narrow = rule.Tables(*(table.float() for table in tables))
    u = torch.randn(1, length, 1, dtype=torch.float64)
    expected, _ = rule.legendre_memory(u, tables)
    for form in (rule.legendre_memory, rule.reference):
        got, _ = form(u.float(), narrow)
        assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 150), max_size=4))
def test_any_split_carries_on(cuts: list[int]) -> None:
    tables = rule.tables(5, 9.0)
    u, memory = (t.detach() for t in draw(150, 5))
    whole, last = rule.legendre_memory(u, tables, memory)
    edges, parts = [0, *sorted(cuts), 150], []
    for start, end in pairwise(edges):
        m, memory = rule.legendre_memory(u[:, start:end], tables, memory)
        parts.append(m)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(memory, last)


def test_the_hold_is_exact() -> None:
    """A constant input held for one step is what many small steps of the differential equation make of it."""
    a, b = rule.continuous(4, 10.0)
    A, B = rule.discrete(4, 10.0)
    m = torch.zeros(4, dtype=torch.float64)
    for _ in range(20000):
        middle = m + (a @ m + b) / 40000
        m = m + (a @ middle + b) / 20000
    torch.testing.assert_close(m, B, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(A, torch.linalg.matrix_exp(a))


def test_the_window_can_be_read() -> None:
    """The coordinates of a slow signal give its past back, the better the more of them there are."""
    t = torch.arange(600, dtype=torch.float64)
    u = torch.sin(2 * torch.pi * t / 80) + 0.5 * torch.cos(2 * torch.pi * t / 45)
    errors = []
    delays = torch.arange(0, 128, dtype=torch.float64)
    for order in (4, 8, 16):
        m, _ = rule.legendre_memory(u.view(1, -1, 1), rule.tables(order, 128.0))
        read = m[0, -1, 0] @ rule.readout(order, delays / 128)
        errors.append(float((read - u[-1 - delays.long()]).norm() / u[-128:].norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.08


def test_exports_with_free_batch_and_length() -> None:
    tables = rule.Tables(*(table.float() for table in rule.tables(5, 9.0)))

    class Remember(torch.nn.Module):
        def forward(self, u: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
            return rule.legendre_memory(u, tables, memory)

    example = torch.randn(2, 40, 1), torch.randn(2, 1, 5)
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(Remember(), example, dynamic_shapes=({0: free, 1: free}, {0: free})).module()
    for length in (2, 33, 70):
        u, memory = torch.randn(3, length, 1), torch.randn(3, 1, 5)
        torch.testing.assert_close(program(u, memory), rule.reference(u, tables, memory), rtol=1e-4, atol=1e-5)


def test_macs() -> None:
    assert rule.macs(2, 3, 1, 8) == 2 * 3 * 8 * 9
