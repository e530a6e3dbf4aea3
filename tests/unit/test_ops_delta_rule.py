"""The delta rule without decay: in chunks, and wherever it is called, it is the gated rule with a decay of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery.ops import delta_rule as rule
from formery.ops.delta_rule import delta_rule, reference
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS = {
    "chunked 7": lambda *x: rule.chunked(*x, chunk=7),
    "chunked 64": lambda *x: rule.chunked(*x, chunk=64),
    "fastest": delta_rule,
}


def draw(length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """(q, k, v, beta, state): unit keys, beta in (0, 2)."""
    q, k = (F.normalize(torch.randn(2, length, 3, 8, dtype=torch.float64), dim=-1) for _ in range(2))
    v, beta = torch.randn(2, length, 3, 6, dtype=torch.float64), 2 * torch.rand(2, length, 3, dtype=torch.float64)
    state = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    return [x.to(dtype) for x in (q, k, v, beta)] + [state.to(torch.promote_types(dtype, torch.float32))]


@pytest.mark.parametrize("length", [0, 1, 17, 130])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_the_definitions(form: str, length: int) -> None:
    inputs = draw(length)
    torch.testing.assert_close(FORMS[form](*inputs), reference(*inputs))
    if length:
        found = []
        for function in (FORMS[form], reference):
            leaves = [x.clone().requires_grad_() for x in inputs]
            o, state = function(*leaves)
            found.append(torch.autograd.grad((o * o.detach().cos()).sum() + state.square().sum(), leaves))
        torch.testing.assert_close(*found)


def test_second_gradients() -> None:
    torch.manual_seed(0)
    inputs = [x[:1, ..., :2] if x.dim() == 4 else x[:1] for x in draw(5)]
    inputs[-1] = inputs[-1][:, :, :2]
    leaves = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: rule.chunked(*x, chunk=4), leaves)
    assert torch.autograd.gradgradcheck(lambda *x: rule.chunked(*x, chunk=4), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    inputs = draw(70, dtype)
    o, state = delta_rule(*inputs)
    assert (o.dtype, state.dtype) == (dtype, torch.float32)
    exact = reference(*(x.double() for x in inputs))
    for got, expected, allowed in zip((o, state), exact, (2e-6 if dtype == torch.float32 else 1e-2, 2e-6), strict=True):
        assert (got.double() - expected).abs().max() <= allowed * expected.abs().max()
    torch.testing.assert_close(delta_rule(*inputs[:4])[1], delta_rule(*inputs[:4], torch.zeros_like(state))[1])


@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str) -> None:
    """What the flash-linear-attention project's plain implementation gives."""
    B, L, H, K, V, seed = 2, 37, 2, 8, 6, 20
    q, k = (normal((B, L, H, K), seed + i) for i in (0, 1))
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    beta = normal((B, L, H), seed + 3).sigmoid()
    inputs = (q * K**-0.5, k, normal((B, L, H, V), seed + 2), beta, normal((B, H, K, V), seed + 6))
    o, state = {"reference": reference, **FORMS}[form](*inputs)
    golden = recorded("linear_ops")
    for got, key in ((o, "delta"), (state, "delta_state")):
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=1e-6)


def test_compiles_in_one_graph() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(delta_rule, backend="eager", fullgraph=True)
    inputs = draw(33)
    torch.testing.assert_close(compiled(*inputs), reference(*inputs))
