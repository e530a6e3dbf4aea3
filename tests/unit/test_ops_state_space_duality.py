"""State space duality: every form is the definition, in values and gradients, for any length, chunk and split."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from formery.ops import state_space_duality as duality
from formery.ops.state_space_duality import reference, state_space_duality
from tests.contract.recurrences import gradients
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "chunked": duality.chunked,
    "chunked 1": lambda *x: duality.chunked(*x, chunk=1),
    "chunked 7": lambda *x: duality.chunked(*x, chunk=7),
    "chunked 64": lambda *x: duality.chunked(*x, chunk=64),
    "differentiable": duality.differentiable,
    "differentiable 5": lambda *x: duality.differentiable(*x, chunk=5),
    "compiled": duality.compiled,
    "fastest": state_space_duality,
}


def draw(
    length: int,
    batch: int = 2,
    heads: int = 4,
    groups: int = 2,
    state: int = 5,
    width: int = 3,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """(x, g, b, c, state) as they come: decays from none to strong."""
    x = torch.randn(batch, length, heads, width, dtype=torch.float64)
    g = -(torch.rand(batch, length, heads, dtype=torch.float64) ** 4) * 8
    b, c = (torch.randn(batch, length, groups, state, dtype=torch.float64) for _ in range(2))
    start = torch.randn(batch, heads, state, width, dtype=torch.float64)
    return [t.to(dtype) for t in (x, g, b, c)] + [start.to(torch.promote_types(dtype, torch.float32))]


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


@given(cuts=st.lists(st.integers(0, 90), max_size=4))
def test_any_split_carries_on(cuts: list[int]) -> None:
    *tokens, start = draw(90)
    whole = reference(*tokens, start)
    state, parts = start, []
    for begin, end in pairwise([0, *sorted(cuts), 90]):
        y, state = state_space_duality(*(x[:, begin:end] for x in tokens), state)
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, 1), state), whole)


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


@pytest.mark.parametrize(
    ("length", "follows", "grad", "over"),
    [(1, False, True, True), (1, True, True, False), (1, True, False, False), (5, False, True, False)],
)
def test_a_state_given_away_is_written_over(length: int, follows: bool, grad: bool, over: bool) -> None:
    """By a single token where no gradient passes or has passed, and by nothing else."""
    for dtype in (torch.float32, torch.bfloat16):
        inputs = draw(length, dtype=dtype)
        inputs[-1].requires_grad_(follows)
        wanted, before = state_space_duality(*inputs), inputs[-1].clone()
        with torch.set_grad_enabled(grad):
            got = state_space_duality(*inputs, overwrite=True)
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
        assert (got[1].data_ptr() == inputs[-1].data_ptr()) is over
        assert torch.equal(inputs[-1], before) is not over


def test_without_a_state_it_starts_from_zeros() -> None:
    inputs = draw(20, dtype=torch.float16)
    got = state_space_duality(*inputs[:4])
    torch.testing.assert_close(got, state_space_duality(*inputs[:4], torch.zeros_like(inputs[4])))
    assert got[1].dtype == torch.float32


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
