"""The gated delta rule: every form is the definition, in values and gradients, for any length, chunk and split."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from formery.ops import gated_delta_rule as rule
from formery.ops.gated_delta_rule import gated_delta_rule, reference
from formery.ops.gated_delta_rule.chunked import chunk_length
from formery.ops.gated_delta_rule.traced import unit_lower_inverse
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "chunked": rule.chunked,
    "chunked 1": lambda *x: rule.chunked(*x, chunk=1),
    "chunked 7": lambda *x: rule.chunked(*x, chunk=7),
    "chunked 64": lambda *x: rule.chunked(*x, chunk=64),
    "differentiable": rule.differentiable,
    "differentiable 16": lambda *x: rule.differentiable(*x, chunk=16),
    "compiled": rule.compiled,
    "fastest": gated_delta_rule,
}


def draw(
    length: int, batch: int = 2, heads: int = 3, key: int = 8, value: int = 6, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """(q, k, v, g, beta, state) as they come: unit keys, beta in (0, 2), decays from none to strong."""
    q, k = (F.normalize(torch.randn(batch, length, heads, key, dtype=torch.float64), dim=-1) for _ in range(2))
    v = torch.randn(batch, length, heads, value, dtype=torch.float64)
    g = -(torch.rand(batch, length, heads, dtype=torch.float64) ** 4) * 8
    beta = 2 * torch.rand(batch, length, heads, dtype=torch.float64)
    state = torch.randn(batch, heads, key, value, dtype=torch.float64)
    return [x.to(dtype) for x in (q, k, v, g, beta)] + [state.to(torch.promote_types(dtype, torch.float32))]


def gradients(form: Callable[..., tuple[Tensor, Tensor]], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    o, state = form(*leaves)
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=source, dtype=torch.float64).to(x.dtype) for x in (o, state)]
    return torch.autograd.grad((o, state), leaves, weights)


@pytest.mark.parametrize("length", [0, 1, 2, 16, 33, 130])
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
    o, state = FORMS[form](*inputs)
    assert o.dtype == dtype
    assert state.dtype == torch.float32
    exact = [x.double() for x in inputs]
    # Rounding of the output to its dtype apart, everything is computed in float32.
    for got, expected, allowed in zip((o, state), reference(*exact), (tolerance, 2e-6), strict=True):
        assert (got.double() - expected).abs().max() <= allowed * expected.abs().max()
    for got, expected in zip(gradients(FORMS[form], inputs), gradients(reference, exact), strict=True):
        assert (got.double() - expected).abs().max() <= 10 * tolerance * expected.abs().max()


@given(cuts=st.lists(st.integers(0, 70), max_size=4))
def test_any_split_carries_on(cuts: list[int]) -> None:
    *tokens, start = draw(70)
    whole = reference(*tokens, start)
    state, parts = start, []
    for begin, end in pairwise([0, *sorted(cuts), 70]):
        o, state = gated_delta_rule(*(x[:, begin:end] for x in tokens), state)
        parts.append(o)
    torch.testing.assert_close((torch.cat(parts, 1), state), whole)


def test_step_is_one_token_of_the_definition() -> None:
    inputs = draw(1)
    tokens, state = [x[:, 0] for x in inputs[:5]], inputs[5]
    o, last = rule.step(*tokens, state)
    torch.testing.assert_close((o[:, None], last), reference(*inputs))
    assert torch.autograd.gradcheck(rule.step, [x.requires_grad_() for x in (*tokens, state)])


def test_without_a_state_it_starts_from_zeros() -> None:
    inputs = draw(20, dtype=torch.float16)
    got = gated_delta_rule(*inputs[:5])
    torch.testing.assert_close(got, gated_delta_rule(*inputs[:5], torch.zeros_like(inputs[5])))
    assert got[1].dtype == torch.float32


@pytest.mark.parametrize("name", ["gated_delta", "delta"])
@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str, name: str) -> None:
    """What the flash-linear-attention project's plain implementations give; `delta` has no decay."""
    B, L, H, K, V, seed = 2, 37, 2, 8, 6, 20
    q, k = (normal((B, L, H, K), seed + i) for i in (0, 1))
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    g = F.logsigmoid(normal((B, L, H), seed + 4)) * (name == "gated_delta")
    inputs = (q * K**-0.5, k, normal((B, L, H, V), seed + 2), g, normal((B, L, H), seed + 3).sigmoid())
    o, state = {"reference": reference, **FORMS}[form](*inputs, normal((B, H, K, V), seed + 6))
    golden = recorded("linear_ops")
    for got, key in ((o, name), (state, f"{name}_state")):
        assert list(got.shape) == golden[key]["shape"].tolist()
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=1e-6)


def test_extreme_decay_is_exact_and_finite() -> None:
    """A decay that forgets everything, next to none at all: exp of a difference must not meet zero times infinity."""
    *tokens, state = draw(40, dtype=torch.float32)
    tokens[3] = torch.where(torch.rand_like(tokens[3]) < 0.2, -1e4, 0.0)
    inputs = [*tokens, state]
    exact = reference(*(x.double() for x in inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 5e-6 * expected.abs().max()
        assert all(x.isfinite().all() for x in gradients(form, inputs))


def test_repeated_keys_with_negative_eigenvalues_stay_accurate() -> None:
    """The worst matrix to solve: one key throughout, beta near 2, no decay. A power series would lose all digits."""
    *tokens, state = draw(128, dtype=torch.float32)
    tokens[1] = tokens[1][:, :1].expand_as(tokens[1])
    tokens[3], tokens[4] = torch.zeros_like(tokens[3]), torch.full_like(tokens[4], 1.99)
    inputs = [*tokens, state]
    exact = reference(*(x.double() for x in inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("size", [1, 2, 16, 64])
def test_unit_lower_inverse(size: int) -> None:
    A = torch.randn(3, size, size, dtype=torch.float64).tril(-1) / 2
    unit = torch.eye(size, dtype=torch.float64)
    expected = torch.linalg.solve_triangular(A + unit, unit.expand_as(A), upper=False, unitriangular=True)
    torch.testing.assert_close(unit_lower_inverse(A), expected)


def test_second_gradients() -> None:
    inputs = [x.requires_grad_() for x in draw(5, batch=1, heads=1, key=2, value=2)]
    assert torch.autograd.gradgradcheck(lambda *x: rule.chunked(*x, chunk=4), inputs)


def test_gradients_of_some_inputs_only() -> None:
    inputs = draw(20)
    inputs[2].requires_grad_()
    (got,) = torch.autograd.grad(rule.chunked(*inputs, chunk=8)[0].sum(), inputs[2])
    (expected,) = torch.autograd.grad(reference(*inputs)[0].sum(), inputs[2])
    torch.testing.assert_close(got, expected)


def test_function_transforms() -> None:
    inputs = draw(9)
    stacked = [torch.stack([x, x / 2]) for x in inputs]
    got = torch.func.vmap(gated_delta_rule)(*stacked)
    separate = [reference(*inputs), reference(*(x / 2 for x in inputs))]
    torch.testing.assert_close(got, tuple(torch.stack(pair) for pair in zip(*separate, strict=True)))
    small = [x.requires_grad_() for x in draw(3, batch=1, heads=1, key=2, value=2)]
    assert torch.autograd.gradcheck(gated_delta_rule, small, check_forward_ad=True)


def test_compiles_in_one_graph_for_all_lengths() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(gated_delta_rule, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.compiler.set_stance("default"):
        for length in (130, 20, 70):
            inputs = draw(length)
            with torch._dynamo.config.patch(error_on_recompile=length != 130):
                torch.testing.assert_close(compiled(*inputs), reference(*inputs))
    inputs = draw(33)
    torch.testing.assert_close(gradients(compiled, inputs), gradients(reference, inputs))


def test_the_compiled_operator_keeps_torchs_rules() -> None:
    for length in (0, 70):
        inputs = [x.requires_grad_() for x in draw(length, dtype=torch.float32)]
        torch.library.opcheck(rule.compiled, inputs)


class Rule(torch.nn.Module):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return gated_delta_rule(*inputs)


def export(strict: bool) -> torch.export.ExportedProgram:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = (*({0: batch, 1: length} for _ in range(5)), {0: batch})
    return torch.export.export(Rule(), tuple(draw(50, dtype=torch.float32)), dynamic_shapes=(shapes,), strict=strict)


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_free_batch_and_length(strict: bool) -> None:
    program = export(strict).module()
    for batch, length in ((1, 1), (3, 32), (2, 100)):
        inputs = draw(length, batch, dtype=torch.float32)
        torch.testing.assert_close(program(*inputs), reference(*inputs), rtol=1e-5, atol=1e-5)


def test_exports_one_token_as_a_step() -> None:
    program = torch.export.export(Rule(), tuple(draw(1, dtype=torch.float32)))
    assert not any("scan" in str(node.target) for node in program.graph.nodes)
    inputs = draw(1, dtype=torch.float32)
    torch.testing.assert_close(program.module()(*inputs), reference(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces_for_old_exporters() -> None:
    traced = torch.jit.trace(gated_delta_rule, tuple(draw(40)), check_trace=False)
    inputs = draw(40)
    torch.testing.assert_close(traced(*inputs), reference(*inputs))


@pytest.mark.slow
def test_onnx_with_free_batch_and_length(tmp_path) -> None:  # type: ignore[no-untyped-def]
    onnxruntime = importlib.import_module("onnxruntime")
    path = tmp_path / "rule.onnx"
    torch.onnx.export(export(False), dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    for batch, length in ((1, 1), (3, 32), (2, 100)):
        inputs = draw(length, batch, dtype=torch.float32)
        outputs = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
        for got, expected in zip(outputs, reference(*inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-5, atol=1e-5)


def test_macs_are_three_products_a_token() -> None:
    assert rule.macs(2, 10, 3, 8, 6) == 2 * 10 * 3 * 3 * 8 * 6


def test_few_rows_take_longer_chunks() -> None:
    assert [chunk_length(rows, 96, 192) for rows in (1, 100)] == [64, 32]
