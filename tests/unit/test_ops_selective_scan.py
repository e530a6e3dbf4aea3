"""The selective scan: every form is the definition, in values and gradients, for any length, chunk and split."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from formery.ops import selective_scan as scan
from formery.ops.selective_scan import reference, selective_scan
from tests.contract.recurrences import gradients
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "chunked": scan.chunked,
    "chunked 1": lambda *x: scan.chunked(*x, chunk=1),
    "chunked 7": lambda *x: scan.chunked(*x, chunk=7),
    "chunked 64": lambda *x: scan.chunked(*x, chunk=64),
    "differentiable": scan.differentiable,
    "differentiable 5": lambda *x: scan.differentiable(*x, chunk=5),
    "compiled": scan.compiled,
    "fastest": selective_scan,
}


def draw(
    length: int, batch: int = 2, groups: int = 2, state: int = 3, width: int = 5, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """(u, dt, A, b, c, state) as they come: rates of 1 to `state`, steps from none to strong."""
    u = torch.randn(batch, length, groups, width, dtype=torch.float64)
    dt = torch.rand(batch, length, groups, width, dtype=torch.float64) ** 4 * 3
    A = -torch.arange(1.0, state + 1, dtype=torch.float64)[:, None] * (1 + torch.rand(groups, state, width).double())
    b, c = (torch.randn(batch, length, groups, state, dtype=torch.float64) for _ in range(2))
    start = torch.randn(batch, groups, state, width, dtype=torch.float64)
    return [x.to(dtype) for x in (u, dt, A, b, c)] + [start.to(torch.promote_types(dtype, torch.float32))]


@pytest.mark.parametrize("length", [0, 1, 2, 16, 33, 70])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_the_definitions(form: str, length: int) -> None:
    inputs = draw(length)
    before = [x.clone() for x in inputs]
    torch.testing.assert_close(FORMS[form](*inputs), reference(*inputs))
    torch.testing.assert_close(inputs, before, rtol=0, atol=0)
    if length:
        torch.testing.assert_close(gradients(FORMS[form], inputs), gradients(reference, inputs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str
)
def test_dtypes(form: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = draw(70, dtype=dtype)
    y, state = FORMS[form](*inputs)
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    exact = [x.double() for x in inputs]
    # Rounding of the output to its dtype apart, everything is computed in float32.
    for got, expected, allowed in zip((y, state), reference(*exact), (tolerance, 2e-6), strict=True):
        assert (got.double() - expected).abs().max() <= allowed * expected.abs().max()
    for got, expected in zip(gradients(FORMS[form], inputs), gradients(reference, exact), strict=True):
        assert (got.double() - expected).abs().max() <= 10 * tolerance * expected.abs().max()


def test_steps_and_rates_may_be_wider_than_the_tokens() -> None:
    """As the mixer has it in half precision: tokens and vectors narrow, steps and rates in float32."""
    inputs = draw(40, dtype=torch.bfloat16)
    inputs[1:3] = [x.float() for x in inputs[1:3]]
    exact = reference(*(x.double() for x in inputs))
    for form in FORMS.values():
        y, state = form(*inputs)
        assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
        assert (state.double() - exact[1]).abs().max() <= 2e-6 * exact[1].abs().max()
        assert [g.dtype for g in gradients(form, inputs)] == [x.dtype for x in inputs]


@given(cuts=st.lists(st.integers(0, 50), max_size=4))
def test_any_split_carries_on(cuts: list[int]) -> None:
    u, dt, A, b, c, start = draw(50)
    whole = reference(u, dt, A, b, c, start)
    state, parts = start, []
    for begin, end in pairwise([0, *sorted(cuts), 50]):
        u_n, dt_n, b_n, c_n = (x[:, begin:end] for x in (u, dt, b, c))
        y, state = selective_scan(u_n, dt_n, A, b_n, c_n, state)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, 1), state), whole)


def test_step_is_one_token_of_the_definition() -> None:
    u, dt, A, b, c, state = draw(1)
    y, last = scan.step(u[:, 0], dt[:, 0], A, b[:, 0], c[:, 0], state)
    by_hand = torch.zeros_like(state)
    for g in range(2):
        for n in range(3):
            decay = (dt[:, 0, g] * A[g, n]).exp()
            by_hand[:, g, n] = decay * state[:, g, n] + dt[:, 0, g] * b[:, 0, g, n, None] * u[:, 0, g]
    torch.testing.assert_close(last, by_hand)
    torch.testing.assert_close(y, (by_hand * c[:, 0, :, :, None]).sum(2))
    inputs = [x.requires_grad_() for x in (u[:, 0], dt[:, 0], A, b[:, 0], c[:, 0], state)]
    assert torch.autograd.gradcheck(scan.step, inputs)


@pytest.mark.parametrize(
    ("length", "follows", "grad", "over"),
    [(1, False, True, True), (1, True, True, False), (1, True, False, False), (5, False, True, False)],
)
def test_a_state_given_away_is_written_over(length: int, follows: bool, grad: bool, over: bool) -> None:
    """By a single token where no gradient passes or has passed, and by nothing else."""
    for dtype in (torch.float32, torch.bfloat16):
        inputs = draw(length, dtype=dtype)
        inputs[-1].requires_grad_(follows)
        wanted, before = selective_scan(*inputs), inputs[-1].clone()
        with torch.set_grad_enabled(grad):
            got = selective_scan(*inputs, overwrite=True)
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
        assert (got[1].data_ptr() == inputs[-1].data_ptr()) is over
        assert torch.equal(inputs[-1], before) is not over


def test_without_a_state_it_starts_from_zeros() -> None:
    inputs = draw(20, dtype=torch.float16)
    got = selective_scan(*inputs[:5])
    torch.testing.assert_close(got, selective_scan(*inputs[:5], torch.zeros_like(inputs[5])))
    assert got[1].dtype == torch.float32


def test_no_step_neither_decays_nor_writes() -> None:
    u, dt, A, b, c, state = draw(20)
    for form in FORMS.values():
        torch.testing.assert_close(form(u, torch.zeros_like(dt), A, b, c, state)[1], state, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str) -> None:
    """What the authors' plain implementation gives, whose channels come before the tokens."""
    B, L, D, N, seed = 2, 24, 6, 5, 50
    u, raw, z = (normal((B, D, L), seed + i).mT for i in (0, 1, 6))
    A = -(0.5 * normal((D, N), seed + 2)).exp().mT[None]
    b, c = (normal((B, N, L), seed + i).mT[:, :, None] for i in (3, 4))
    dt = F.softplus(raw + normal((D,), seed + 7))
    start = torch.zeros(B, 1, N, D)
    y, state = {"reference": reference, **FORMS}[form](u[:, :, None], dt[:, :, None], A, b, c, start)
    y = (y[:, :, 0] + normal((D,), seed + 5) * u) * F.silu(z)
    golden = recorded("mamba_ops")
    for got, key in ((y.mT, "scan_y"), (state[:, 0].mT, "scan_state")):
        assert list(got.shape) == golden[key]["shape"].tolist()
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=2e-6)


def test_a_constant_recurrence_is_a_long_convolution() -> None:
    """With steps and vectors that do not depend on the token, y is u convolved with c exp(t dt A) dt b."""
    u, dt, A, b, c, state = draw(60, groups=1)
    dt, b, c = (x[:1, :1].expand(2, 60, *x.shape[2:]) for x in (dt, b, c))
    powers = torch.arange(60.0, dtype=torch.float64)[:, None, None] * dt[0, 0, 0] * A[0]  # (L, N, D)
    kernel = (c[0, 0, 0, :, None] * b[0, 0, 0, :, None] * powers.exp()).sum(1) * dt[0, 0, 0]
    size = 128
    by_fft = torch.fft.irfft(torch.fft.rfft(u[:, :, 0], size, 1) * torch.fft.rfft(kernel, size, 0), size, 1)[:, :60]
    torch.testing.assert_close(selective_scan(u, dt, A, b, c, torch.zeros_like(state))[0][:, :, 0], by_fft)


def test_extreme_decay_is_exact_and_finite() -> None:
    u, dt, A, b, c, state = draw(40, dtype=torch.float32)
    dt = torch.where(torch.rand_like(dt) < 0.2, 1e4, 0.1 * dt)
    inputs = [u, dt, A, b, c, state]
    exact = reference(*(x.double() for x in inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 5e-6 * expected.abs().max()
        assert all(x.isfinite().all() for x in gradients(form, inputs))


def test_macs_are_two_products_a_token() -> None:
    assert scan.macs(2, 10, 6, 5) == 2 * 10 * 6 * 2 * 5
