"""State space duality beside what it is by hand, as linear attention and by its authors, at its limits too."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from formery.ops import state_space_duality as duality
from formery.ops.state_space_duality import reference
from tests.contract.recurrences import duality as draw
from tests.contract.recurrences import gradients, named
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS = named("state_space_duality").forms


def test_decays_may_be_wider_than_the_tokens() -> None:
    """As the mixer has it in half precision: vectors narrow, values times their steps and decays in float32."""
    inputs = draw(40, dtype=torch.bfloat16)
    inputs[:2] = [x.float() for x in inputs[:2]]
    exact = reference(*(x.double() for x in inputs))
    for form in FORMS.values():
        y, state = form(*inputs)
        assert (y.dtype, state.dtype) == (torch.float32, torch.float32)
        assert (y.double() - exact[0]).abs().max() <= 2e-6 * exact[0].abs().max()
        assert [g.dtype for g in gradients(form, inputs)] == [x.dtype for x in inputs]


def test_step_is_one_token_of_the_definition() -> None:
    *tokens, state = draw(1)
    x, g, b, c = (t[:, 0] for t in tokens)
    y, last = duality.step(x, g, b, c, state)
    by_hand = torch.stack(
        [
            g[:, h].exp()[:, None, None] * state[:, h] + b[:, h // 2, :, None] * x[:, h, None, :]  # two heads a group
            for h in range(4)
        ],
        dim=1,
    )
    torch.testing.assert_close(last, by_hand)
    read = torch.stack([(by_hand[:, h] * c[:, h // 2, :, None]).sum(1) for h in range(4)], dim=1)
    torch.testing.assert_close(y, read)
    assert torch.autograd.gradcheck(duality.step, [t.requires_grad_() for t in (x, g, b, c, state)])


def test_nothing_with_no_decay_changes_nothing() -> None:
    x, g, b, c, state = draw(20)
    for form in FORMS.values():
        torch.testing.assert_close(form(0 * x, 0 * g, b, c, state)[1], state, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str) -> None:
    """What the authors' minimal implementation gives; its states have values before keys."""
    B, L, H, P, N, seed = 2, 24, 3, 4, 5, 50
    x, g = normal((B, L, H, P), seed + 8), -F.softplus(normal((B, L, H), seed + 9))
    b, c = (normal((B, L, H, N), seed + i) for i in (10, 11))
    start = normal((B, 1, H, P, N), seed + 12)[:, 0].mT
    y, state = {"reference": reference, **FORMS}[form](x, g, b, c, start)
    golden = recorded("mamba_ops")
    for got, key in ((y, "ssd_y"), (state.mT, "ssd_state")):
        assert list(got.shape) == golden[key]["shape"].tolist()
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=5e-6)


def test_without_decay_it_is_linear_attention() -> None:
    """The sum of all earlier values, each times the product of its vector with the reader's."""
    x, g, b, c, state = draw(70, heads=2)
    scores = torch.einsum("bigk,bjgk->bgij", c, b).tril()
    wanted = torch.einsum("bhij,bjhp->bihp", scores, x)
    for form in FORMS.values():
        torch.testing.assert_close(form(x, 0 * g, b, c, 0 * state)[0], wanted)


def test_extreme_decay_is_exact_and_finite() -> None:
    """A decay that forgets everything, next to none at all: exp of a difference must not meet zero times infinity."""
    x, g, b, c, state = draw(70, dtype=torch.float32)
    g = torch.where(torch.rand_like(g) < 0.2, -1e4, 0.0)
    inputs = [x, g, b, c, state]
    exact = reference(*(t.double() for t in inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 5e-6 * expected.abs().max()
        assert all(t.isfinite().all() for t in gradients(form, inputs))


def test_long_sums_of_decays_keep_their_digits() -> None:
    """Decays of neighbours whose running sum is in the thousands: float32 sums would leave 4 digits of them."""
    x, g, b, c, state = draw(64, dtype=torch.float32)
    inputs = [x, torch.where(torch.arange(64)[:, None] % 2 == 0, -80.0, -0.01).expand_as(g), b, c, state]
    exact = reference(*(t.double() for t in inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_macs_are_two_products_a_token() -> None:
    assert duality.macs(2, 10, 3, 8, 6) == 2 * 10 * 3 * 2 * 8 * 6
