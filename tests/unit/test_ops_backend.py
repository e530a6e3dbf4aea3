"""The switch among forms of recurrences: names, places, errors, and what they choose without a GPU."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from formery.errors import BadSpec, CannotRun, MissingExtra
from formery.ops import (
    backend,
    delta_rule,
    gated_delta_rule,
    gated_linear_attention,
    selective_scan,
    state_space_duality,
)
from tests.contract.recurrences import Recurrence, named

OPS = {
    "gated_linear_attention": gated_linear_attention,
    "state_space_duality": state_space_duality,
    "gated_delta_rule": gated_delta_rule,
    "selective_scan": selective_scan,
}


@pytest.fixture(params=OPS)
def op(request: pytest.FixtureRequest) -> Recurrence:
    return named(request.param)


def test_the_narrower_scope_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORMERY_RECURRENCE", raising=False)
    assert backend.mode() == "auto"
    monkeypatch.setenv("FORMERY_RECURRENCE", "reference")
    assert backend.mode() == "reference"
    with backend.using("torch"):
        assert backend.mode() == "torch"
        with backend.using("auto"):
            assert backend.mode() == "auto"
        assert backend.mode() == "torch"
    assert backend.mode() == "reference"


def test_names_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSpec, match="'cuda'; it is one of auto, triton, torch, reference"), backend.using("cuda"):  # type: ignore[arg-type]
        pass
    monkeypatch.setenv("FORMERY_RECURRENCE", "Triton")
    with pytest.raises(BadSpec, match="FORMERY_RECURRENCE is 'Triton'"):
        backend.mode()


def test_kernels_without_triton(op: Recurrence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingExtra, match=r"pip install 'formery\[gpu\]'"), backend.using("triton"):
        pass
    monkeypatch.setenv("FORMERY_RECURRENCE", "triton")
    with pytest.raises(MissingExtra, match=r"pip install 'formery\[gpu\]'"):
        op.face(*op.draw(3, 1, torch.float32))


def test_kernels_on_the_cpu(op: Recurrence, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with backend.using("triton"), pytest.raises(CannotRun, match="move the model"):
        op.face(*op.draw(3, 1, torch.float32))


@pytest.mark.parametrize(("mode", "form"), [("auto", "chunked"), ("torch", "chunked"), ("reference", "reference")])
def test_the_form_of_a_mode(op: Recurrence, mode: backend.Mode, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, ran = op.draw(3, 1, torch.float64), []
    for name in ("chunked", "reference"):
        watch(OPS[op.name], name, ran, monkeypatch)
    with backend.using(mode):
        torch.testing.assert_close(op.face(*inputs), op.reference(*inputs))
    assert ran == [form]


def watch(module: ModuleType, name: str, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *inputs: (ran.append(name), real(*inputs))[1])


@pytest.fixture
def _on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors say that they lie on a device of compute capability 8.0."""
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda x: True), raising=False)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda x: False), raising=False)
    monkeypatch.setattr(backend, "_recent", lambda device: True)


@pytest.mark.usefixtures("_on_a_gpu")
@pytest.mark.parametrize("mode", ["auto", "triton"])
def test_what_goes_to_kernels_on_a_gpu(mode: backend.Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2)
    with backend.using(mode):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert backend.takes_kernels(x, None, x.to(dtype))
        assert not backend.takes_kernels(x, x.double())
        assert not backend.takes_kernels(x, fits=False)
        assert not backend.takes_kernels(x, x.as_subclass(Own))
        with FlopCounterMode(display=False):
            assert backend.takes_kernels(x) is (mode == "triton")
        monkeypatch.setattr(backend, "_recent", lambda device: False)
        assert not backend.takes_kernels(x)
    with backend.using("torch"):
        assert not backend.takes_kernels(x)


class Own(torch.Tensor):
    pass


@pytest.mark.usefixtures("_on_a_gpu")
def test_without_triton_a_gpu_has_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert not backend.takes_kernels(torch.ones(2))


def test_what_products_round() -> None:
    pytest.importorskip("triton")
    from formery.ops.kernels.launch import precision, stored

    single, brain, half = (torch.ones(1, dtype=dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16))
    assert [precision(x, x) for x in (single, brain, half)] == ["tf32x3", "bf16", "tf32"]
    assert precision(brain, single) == "tf32x3"
    assert precision(brain, half) == "tf32"
    assert [stored(how) for how in ("bf16", "tf32")] == [torch.bfloat16, torch.float32]
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert precision(single, single) == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_the_delta_rule_without_decay_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _, beta, state = named("gated_delta_rule").draw(5, 1, torch.float64)
    expected = delta_rule.reference(q, k, v, beta, state)
    ran: list[str] = []
    watch(gated_delta_rule, "reference", ran, monkeypatch)
    with backend.using("reference"):
        torch.testing.assert_close(delta_rule.delta_rule(q, k, v, beta, state), expected)
    assert ran == ["reference"]


def test_nothing_of_triton_is_imported_unasked() -> None:
    """Not even where recurrences run."""
    code = (
        "import sys, torch; from formery.ops.selective_scan import selective_scan as scan; x = torch.ones(1, 3, 1, 2);"
        "scan(x, x, -torch.ones(1, 2, 2), x, x); assert not [n for n in sys.modules if 'triton' == n.split('.')[0]];"
        "assert 'formery.ops.kernels' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
