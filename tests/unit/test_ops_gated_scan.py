"""The elementwise recurrence: every form is the definition, in values and gradients, for any chunk and split."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from formery.ops import gated_scan as rule
from formery.ops.gated_scan import gated_scan, reference
from tests.contract.recurrences import gradients
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "scanned": rule.scanned,
    "differentiable": rule.differentiable,
    "compiled": rule.compiled,
    "fastest": gated_scan,
}


def draw(length: int, batch: int = 2, width: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """(x, f, state) with factors from -1 to 1, some of them 0 and 1."""
    x = torch.randn(batch, length, width, dtype=torch.float64)
    f = (2.4 * torch.rand(batch, length, width, dtype=torch.float64) - 1.2).clamp(-1, 1)
    f = torch.where(torch.rand_like(f) < 0.1, 0.0, f)
    state = torch.randn(batch, width, dtype=torch.float64)
    return x.to(dtype), f.to(dtype), state.to(torch.promote_types(dtype, torch.float32))


@pytest.mark.parametrize("length", [0, 1, 2, 16, 33, 130])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_the_definitions(form: str, length: int) -> None:
    inputs = draw(length)
    before = [x.clone() for x in inputs]
    torch.testing.assert_close(FORMS[form](*inputs), reference(*inputs))
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))
    if length:
        torch.testing.assert_close(gradients(FORMS[form], inputs), gradients(reference, inputs))


@pytest.mark.parametrize("chunk", [1, 2, 5, 33, 50])
def test_any_chunk_is_the_definition(chunk: int) -> None:
    for length in (1, 4, 33):
        inputs = draw(length)
        torch.testing.assert_close(rule.forward(*inputs, chunk=chunk), reference(*inputs)[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str
)
def test_dtypes(form: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = draw(70, dtype=dtype)
    h, state = FORMS[form](*inputs)
    assert h.dtype == dtype
    assert state.dtype == torch.float32
    exact = tuple(x.double() for x in inputs)
    for got, expected, allowed in zip((h, state), reference(*exact), (tolerance, 2e-6), strict=True):
        assert (got.double() - expected).abs().max() <= allowed * expected.abs().max()
    for got, expected in zip(gradients(FORMS[form], inputs), gradients(reference, exact), strict=True):
        assert (got.double() - expected).abs().max() <= 10 * tolerance * expected.abs().max()


@given(cuts=st.lists(st.integers(0, 70), max_size=4))
def test_any_split_carries_on(cuts: list[int]) -> None:
    x, f, state = draw(70)
    whole = reference(x, f, state)
    parts = []
    for begin, end in pairwise([0, *sorted(cuts), 70]):
        h, state = gated_scan(x[:, begin:end], f[:, begin:end], state)
        parts.append(h)
    torch.testing.assert_close((torch.cat(parts, 1), state), whole)


def test_without_a_state_it_starts_from_zeros() -> None:
    x, f, state = draw(20, dtype=torch.float16)
    got = gated_scan(x, f)
    torch.testing.assert_close(got, gated_scan(x, f, torch.zeros_like(state)))
    assert got[1].dtype == torch.float32


@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str) -> None:
    """What the flash-linear-attention project's plain implementation of HGRN's recurrence gives."""
    B, L, H, V, seed = 2, 37, 2, 6, 20
    x, factor = normal((B, L, H, V), seed + 2).flatten(2), F.logsigmoid(normal((B, L, H * V), seed + 7)).exp()
    h, state = {"reference": reference, **FORMS}[form](x, factor, normal((B, H * V), seed + 8))
    golden = recorded("linear_ops")
    for got, key in ((h, "hgrn"), (state, "hgrn_state")):
        assert list(got.shape) == golden[key]["shape"].tolist()
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=1e-6)


def test_wide_tokens_and_narrow_ones_agree() -> None:
    """The loop over tokens, chosen by their width, against the one over chunks."""
    inputs = draw(9, batch=1, width=rule.WIDE)
    torch.testing.assert_close(gated_scan(*inputs)[0], rule.forward(*inputs, chunk=3))


def test_macs_are_one_a_number() -> None:
    assert rule.macs(2, 10, 6) == 2 * 10 * 6
