"""e^x by powers of 2 is torch's exp, to the rounding of an exponent."""

from __future__ import annotations

import pytest
import torch

from formery.ops.exponential import exp


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients(dtype: torch.dtype) -> None:
    x = torch.linspace(-80, 80, 4001, dtype=dtype).requires_grad_()
    wanted = x.detach().double().exp()
    error = (exp(x).double() / wanted - 1).abs()
    assert (error <= torch.finfo(dtype).eps * (1 + x.detach().abs())).all()
    (slope,) = torch.autograd.grad(exp(x).sum(), x)
    torch.testing.assert_close(slope, exp(x).detach(), rtol=1e-6, atol=0)


def test_ends() -> None:
    ends = torch.tensor([-torch.inf, -1e30, 0.0, torch.inf])
    assert exp(ends).tolist() == [0.0, 0.0, 1.0, torch.inf]


def test_compilers_see_exp() -> None:
    program = torch.export.export(Exp(), (torch.randn(3),))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.exp.default"]


class Exp(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return exp(x)
