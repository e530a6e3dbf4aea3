"""Windowed attention by blocks against its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from formery.context import NOTHING
from formery.ops.sliding_window import reference, sliding_window
from formery.parts.mixers import attention as module
from formery.parts.mixers.attention import Attention


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 40), window=st.integers(1, 45), batch=st.integers(1, 2), groups=st.sampled_from([1, 2, 4]))
def test_blocks_equal_the_definition(length: int, window: int, batch: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(length * 100 + window)
    q = torch.randn(batch, 4, length, 6, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, batch, groups, length, 6, generator=generator, dtype=torch.float64)
    wanted = reference(q, k, v, window, 0.4)
    torch.testing.assert_close(sliding_window(q, k, v, window, 0.4), wanted, rtol=1e-12, atol=1e-12)


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 7, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert gradcheck(lambda *t: sliding_window(*t, 3, 0.5), (q, k, v))


def test_the_mixer_takes_it_for_long_rows_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = Attention(16, heads=4, kv_heads=2, window=4, position={"kind": "rope"}).double()
    x = torch.randn(2, 23, 16, dtype=torch.float64)
    ctx = NOTHING.but(causal=True)
    lengths = []
    monkeypatch.setattr(
        module, "sliding_window", lambda q, *rest: lengths.append(q.shape[2]) or sliding_window(q, *rest)
    )
    fast = mixer(x, ctx)
    assert lengths == [23]
    monkeypatch.setattr(module, "LONG", 100)
    torch.testing.assert_close(mixer(x, ctx), fast, rtol=1e-12, atol=1e-12)
    assert lengths == [23]
