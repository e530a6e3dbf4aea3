"""The elementwise recurrence: every form is the definition, in values and gradients, for any chunk and split."""

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

from formery.ops import gated_scan as rule
from formery.ops.gated_scan import gated_scan, reference
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


def gradients(form: Callable[..., tuple[Tensor, Tensor]], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    h, state = form(*leaves)
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=source, dtype=torch.float64).to(x.dtype) for x in (h, state)]
    return torch.autograd.grad((h, state), leaves, weights)


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


def test_gradients_in_float64_and_second_gradients() -> None:
    inputs = [x.requires_grad_() for x in draw(7, batch=1, width=2)]
    assert torch.autograd.gradcheck(rule.scanned, inputs)
    assert torch.autograd.gradgradcheck(rule.scanned, inputs)


def test_gradients_of_some_inputs_only() -> None:
    x, f, state = draw(20)
    f.requires_grad_()
    (got,) = torch.autograd.grad(rule.scanned(x, f, state)[0].sum(), f)
    (expected,) = torch.autograd.grad(reference(x, f, state)[0].sum(), f)
    torch.testing.assert_close(got, expected)


def test_function_transforms() -> None:
    inputs = draw(9)
    got = torch.func.vmap(gated_scan)(*(torch.stack([x, x / 2]) for x in inputs))
    separate = [reference(*inputs), reference(*(x / 2 for x in inputs))]
    torch.testing.assert_close(got, tuple(torch.stack(pair) for pair in zip(*separate, strict=True)))
    small = [x.requires_grad_() for x in draw(3, batch=1, width=2)]
    assert torch.autograd.gradcheck(gated_scan, small, check_forward_ad=True)


def test_compiles_in_one_graph_for_all_lengths() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(gated_scan, backend="aot_eager", fullgraph=True, dynamic=True)
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
        return gated_scan(*inputs)


def export() -> torch.export.ExportedProgram:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = ({0: batch, 1: length}, {0: batch, 1: length}, {0: batch})
    return torch.export.export(Rule(), draw(50, dtype=torch.float32), dynamic_shapes=(shapes,))


def test_exports_with_free_batch_and_length() -> None:
    program = export().module()
    for batch, length in ((1, 1), (3, 32), (2, 100)):
        inputs = draw(length, batch, dtype=torch.float32)
        torch.testing.assert_close(program(*inputs), reference(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces_for_old_exporters() -> None:
    traced = torch.jit.trace(gated_scan, draw(40), check_trace=False)
    inputs = draw(40)
    torch.testing.assert_close(traced(*inputs), reference(*inputs))


@pytest.mark.slow
def test_onnx_with_free_batch_and_length(tmp_path) -> None:  # type: ignore[no-untyped-def]
    onnxruntime = importlib.import_module("onnxruntime")
    path = tmp_path / "rule.onnx"
    torch.onnx.export(export(), dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    for batch, length in ((1, 1), (3, 32), (2, 100)):
        inputs = draw(length, batch, dtype=torch.float32)
        outputs = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
        for got, expected in zip(outputs, reference(*inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-5, atol=1e-5)


def test_macs_are_one_a_number() -> None:
    assert rule.macs(2, 10, 6) == 2 * 10 * 6
