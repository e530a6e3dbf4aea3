"""A new mixer takes a few lines: registered, it is listed, stands in layouts, and is held to what it declares."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from formery import registry
from formery.context import NOTHING, Context, Slot, State
from formery.model import Model
from formery.parts.mixers.mixer import Mixer
from tests.contract import mixer_streams
from tests.contract.mixers import MIXERS
from tests.contract.subjects import DIM, Subject, subjects_of

assert mixer_streams.LENGTH


class Mean(Mixer):
    """The mean of the tokens so far, by channel times a learned gain."""

    grids, causal, streams = (1,), "always", "any"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        total, count = (state.slot("total").value, state.slot("count").value) if state else (0, 0)
        totals, counts = total + x.cumsum(1), count + torch.arange(1, x.shape[1] + 1).to(x)[:, None].expand_as(x)
        if state:
            state.slot("total").put(totals[:, -1:])
            state.slot("count").put(counts[:, -1:])
        return self.gain * totals / counts

    def new_state(self, batch: int, capacity: int) -> State:
        return State(**{name: Slot(self.gain.new_zeros(batch, 1, len(self.gain))) for name in ("total", "count")})


@pytest.fixture
def _registered() -> Iterator[None]:
    registry.register("mixer", "mean", Mean)
    yield
    registry.unregister("mixer", "mean")


def test_it_is_a_few_lines() -> None:
    assert len(inspect.getsource(Mean).splitlines()) <= 20


@pytest.mark.usefixtures("_registered")
def test_it_is_listed_and_found() -> None:
    assert registry.index("mixer")["mean"] == f"{Mean.__module__}:Mean"
    assert registry.find("mixer", "mean") is Mean
    assert registry.name_of("mixer", Mean) == "mean"


@pytest.mark.usefixtures("_registered")
def test_it_stands_in_layouts_and_streams() -> None:
    body = {"kind": "stack", "layout": "(mean*2 attention)*2", "scheme": {"kind": "pre", "norm": "rms"}}
    model = Model({"stem": {"kind": "tokens", "dim": DIM, "vocab": 11}, "body": body, "head": "next_token"}).double()
    assert [type(mixer).__name__ for _, mixer in model.mixers()] == ["Mean", "Mean", "Attention"] * 2
    ids, state = torch.randint(0, 11, (2, 12)), model.new_state(2, 12)
    chunks = [model(chunk, state=state) for chunk in ids.split([5, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), model(ids))


@pytest.mark.parametrize("subject", list(subjects_of(Mean)), ids=str)
def test_it_keeps_the_contract(subject: Subject) -> None:
    held = MIXERS.hold(subject)
    assert {"check_causality", "check_any_split_gives_the_whole", "check_gradients", "check_exports"} <= set(held)
    assert "check_packed_is_separate" not in held  # it does not declare to pack
