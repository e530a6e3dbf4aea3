"""Which inputs go to kernels where 'triton' is asked for, and that they really do."""

from __future__ import annotations

import pytest
import torch

from formery.ops import backend
from formery.ops import short_convolution as convolution
from formery.ops.gated_delta_rule import by_chunks, reference
from formery.ops.kernels import launch
from formery.ops.kernels.device.tiles import product
from formery.ops.kernels.short_convolution import fused
from tests.contract.recurrences import delta
from tests.interpreted.forms import NARROW

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of kernels as they are launched."""
    names: list[str] = []
    kind = type(product)
    plain = kind.run

    def run(self, *args, **options):  # type: ignore[no-untyped-def]
        names.append(self.__name__)
        return plain(self, *args, **options)

    monkeypatch.setattr(kind, "run", run)
    return names


def test_they_are_interpreted() -> None:
    assert launch.INTERPRETED


@pytest.mark.parametrize("op", NARROW, ids=str)
@pytest.mark.parametrize("mode", ["auto", "triton", "torch", "reference"])
def test_the_mode_decides(op, mode: str, launched: list[str]) -> None:  # type: ignore[no-untyped-def]
    inputs = op.draw(3, 1, torch.float32)
    with backend.using(mode):
        op.face(*inputs)
    assert bool(launched) is (mode == "triton")


def test_the_short_convolution_goes_with_them(launched: list[str]) -> None:
    x, weight, tail = torch.randn(2, 5, 3), torch.randn(3, 4), torch.randn(2, 3, 3)
    expected = convolution.reference(x, weight, None, tail)
    for mode, runs in (("auto", False), ("triton", True), ("torch", True)):
        with backend.using(mode):  # type: ignore[arg-type]
            torch.testing.assert_close(convolution.short_convolution(x, weight, None, tail), expected)
        assert bool(launched) is runs
    launched.clear()
    with backend.using("triton"):
        convolution.short_convolution(x[:, :1], weight, None, tail)
        convolution.short_convolution(torch.randn(1, 5, 3), torch.randn(3, backend.TAPS + 1))
    assert not launched


def test_what_kernels_do_not_take_goes_to_torch(launched: list[str]) -> None:
    for inputs in (delta(3, 1, torch.float64, heads=1), delta(3, 1, torch.float32, heads=1, key=257)):
        with backend.using("triton"):
            torch.testing.assert_close(by_chunks(*inputs), reference(*inputs))
    assert not launched


def test_who_counts_operations_sees_them(launched: list[str]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    q, *others = delta(3, 1, torch.float32, heads=1)
    with FlopCounterMode(display=False) as counter:
        by_chunks(q, *others)
    assert counter.get_total_flops() > 0
    assert not launched


def test_kernels_keep_to_the_rows_that_they_are_given() -> None:
    """A launch on tensors of no tokens, channels or batch items does nothing."""
    for shape in ({"length": 0}, {"length": 3, "batch": 0}, {"length": 3, "value": 0}):
        inputs = delta(**{"heads": 1, "batch": 1, "dtype": torch.float32, **shape})
        with backend.using("triton"):
            torch.testing.assert_close(by_chunks(*inputs), reference(*inputs))
    y, tail = fused(torch.zeros(0, 3, 2), torch.ones(2, 4))
    assert y.shape == (0, 3, 2)
    assert tail.shape == (0, 3, 2)
