"""The selective scan beside what it is by hand, by convolution and by its authors, at its limits too."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from formery.ops import selective_scan as scan
from formery.ops.selective_scan import reference, selective_scan
from tests.contract.recurrences import gradients, named
from tests.contract.recurrences import selective as draw
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS = named("selective_scan").forms


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
