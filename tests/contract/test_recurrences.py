"""Every recurrence keeps its definition under gradients, transforms, compilers and exporters."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

from tests.contract.recurrences import SUBJECTS, Recurrence, gradients

pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.parametrize("op", SUBJECTS, ids=str)]
SHAPES = ((1, 1), (3, 32), (2, 100))
"""(batch, length) that exported programs are run at; none of them was traced."""
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def test_second_gradients(op: Recurrence) -> None:
    inputs = [x.requires_grad_() for x in op.small(4)]
    assert torch.autograd.gradcheck(op.quick, inputs)
    assert torch.autograd.gradgradcheck(op.quick, inputs)


def test_the_gradient_of_one_input_alone(op: Recurrence) -> None:
    inputs = op.draw(20, 2, torch.float64)
    wanted = inputs[op.learned].requires_grad_()
    (got,) = torch.autograd.grad(op.quick(*inputs)[0].sum(), wanted)
    (expected,) = torch.autograd.grad(op.reference(*inputs)[0].sum(), wanted)
    torch.testing.assert_close(got, expected)


def test_function_transforms(op: Recurrence) -> None:
    inputs = op.draw(9, 2, torch.float64)
    got = torch.func.vmap(op.face)(*(torch.stack([x, x / 2]) for x in inputs))
    separate = [op.reference(*inputs), op.reference(*(x / 2 for x in inputs))]
    torch.testing.assert_close(got, tuple(torch.stack(pair) for pair in zip(*separate, strict=True)))
    assert torch.autograd.gradcheck(op.face, [x.requires_grad_() for x in op.small(3)], check_forward_ad=True)


def test_compiles_in_one_graph_for_all_lengths(op: Recurrence) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(op.face, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.compiler.set_stance("default"):
        for length in (130, 20, 70):
            inputs = op.draw(length, 2, torch.float64)
            with torch._dynamo.config.patch(error_on_recompile=length != 130):
                torch.testing.assert_close(compiled(*inputs), op.reference(*inputs))
    inputs = op.draw(33, 2, torch.float64)
    torch.testing.assert_close(gradients(compiled, inputs), gradients(op.reference, inputs))


def test_the_compiled_operator_keeps_torchs_rules(op: Recurrence) -> None:
    for length in (0, 70):
        inputs = [x.requires_grad_() for x in op.draw(length, 2, torch.float32)]
        torch.library.opcheck(op.operator, inputs)


def test_exports_with_free_batch_and_length(op: Recurrence) -> None:
    program = op.exported().module()
    for batch, length in SHAPES:
        inputs = op.draw(length, batch, torch.float32)
        torch.testing.assert_close(program(*inputs), op.reference(*inputs), **NEAR)


def test_exports_strictly(op: Recurrence) -> None:
    inputs = op.draw(32, 3, torch.float32)
    torch.testing.assert_close(op.exported(strict=True).module()(*inputs), op.reference(*inputs), **NEAR)


def test_exports_one_token_as_a_step(op: Recurrence) -> None:
    program = torch.export.export(op.module(), tuple(op.draw(1, 2, torch.float32)))
    if op.steps:
        assert not any("scan" in str(node.target) for node in program.graph.nodes)
    inputs = op.draw(1, 2, torch.float32)
    torch.testing.assert_close(program.module()(*inputs), op.reference(*inputs), **NEAR)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traces_for_old_exporters(op: Recurrence) -> None:
    traced = torch.jit.trace(op.face, tuple(op.draw(40, 2, torch.float64)), check_trace=False)
    inputs = op.draw(40, 2, torch.float64)
    torch.testing.assert_close(traced(*inputs), op.reference(*inputs))


@pytest.mark.slow
def test_onnx_with_free_batch_and_length(op: Recurrence, tmp_path: Path) -> None:
    path = tmp_path / "op.onnx"
    torch.onnx.export(op.exported(), dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    for batch, length in SHAPES:
        inputs = op.draw(length, batch, torch.float32)
        outputs = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
        for got, expected in zip(outputs, op.reference(*inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), expected, **NEAR)
