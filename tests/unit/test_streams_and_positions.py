"""A learned table of positions has an end, and nobody goes beyond it unseen; a stream holds what was read, no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from formery.context import Context
from formery.errors import CannotRun
from formery.model import Model

SPEC: dict[str, Any] = {
    "stem": {"kind": "tokens", "dim": 8, "vocab": 16, "length": 6},
    "body": {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": 2}, "position": "learned"},
    "head": {"kind": "next_token"},
}


@pytest.fixture
def model() -> Model:
    return Model(SPEC).eval()


def tokens(length: int, rows: int = 1) -> torch.Tensor:
    return torch.arange(rows * length).view(rows, length) % 16


def test_whole_texts_padded_rows_and_packed_sequences_end_with_the_table(model: Model) -> None:
    real = torch.zeros(2, 7, dtype=torch.bool)
    cases = {
        "text": (tokens(7), Context()),
        "padded": (tokens(7, 2), Context(padding=real)),
        "packed": (tokens(9), Context(bounds=torch.tensor([0, 2, 9]))),
        "placed": (tokens(2), Context(positions=torch.tensor([[0, 6]]))),
    }
    for inputs, ctx in cases.values():
        with pytest.raises(CannotRun, match="the learned positions end at 6 tokens, got 7; set a larger length"):
            model(inputs, ctx=ctx)
    with pytest.raises(CannotRun, match="positions are 0 or more, got -1"):
        model(tokens(2), ctx=Context(positions=torch.tensor([[-1, 0]])))


def test_what_fits_runs(model: Model) -> None:
    padding = torch.zeros(1, 9, dtype=torch.bool)
    padding[:, :3] = True
    whole = model(tokens(9)[:, 3:])
    assert torch.allclose(model(tokens(9), ctx=Context(padding=padding))[:, 3:], whole, atol=1e-6)
    assert model(tokens(12), ctx=Context(bounds=torch.tensor([0, 6, 12]))).shape == (1, 12, 16)


def test_a_stream_is_no_longer_than_the_table(model: Model) -> None:
    with pytest.raises(CannotRun, match=r"body\.position: the positions end at 6 tokens, a capacity of 7 is too large"):
        model.new_state(1, 7)
    state = model.new_state(1, 6)
    assert torch.allclose(
        torch.cat([model(tokens(6)[:, :4], state=state), model(tokens(6)[:, 4:], state=state)], 1),
        model(tokens(6)),
        atol=1e-6,
    )
    with pytest.raises(CannotRun, match="got 8"):
        model(tokens(1), state=model.new_state(1, 6), ctx=Context(positions=torch.tensor([[7]])))


def test_a_refused_input_leaves_the_stream_where_it_was(model: Model) -> None:
    state, padding = model.new_state(1, 6), torch.tensor([[True, False]])
    pieces = [model(tokens(2), state=state)]
    for wrong, ctx in (
        (torch.zeros(1, 2), Context()),
        (torch.zeros(1, 2), Context(padding=padding)),
        (tokens(1), Context(positions=torch.tensor([[6]]))),
        (tokens(5), Context()),
    ):
        with pytest.raises(CannotRun):
            model(wrong, state=state, ctx=ctx)
    pieces += [model(tokens(6)[:, 2:4], state=state), model(tokens(6)[:, 4:], state=state)]
    assert torch.allclose(torch.cat(pieces, 1), model(tokens(6)), atol=1e-6)


def test_a_stream_that_broke_off_amid_its_layers_is_not_gone_on_with() -> None:
    model = Model({**SPEC, "body": {**SPEC["body"], "depth": 2}}).eval()
    state = model.new_state(1, 6)
    first = model(tokens(2), state=state)
    before = state.snapshot()

    def fail(*_: Any) -> None:
        raise MemoryError

    hook = model.body.blocks[1].register_forward_pre_hook(fail)  # type: ignore[index, union-attr]
    with pytest.raises(MemoryError):
        model(tokens(6)[:, 2:], state=state)
    hook.remove()
    for _ in range(2):
        with pytest.raises(CannotRun, match="broke off amid its layers; restore a snapshot of it, or begin a new one"):
            model(tokens(6)[:, 2:], state=state)
    state.restore(before)
    assert torch.allclose(torch.cat([first, model(tokens(6)[:, 2:], state=state)], 1), model(tokens(6)), atol=1e-6)


@pytest.mark.parametrize("sizes", [(1, -1), (-2, 4)])
def test_states_of_less_than_nothing_are_refused(model: Model, sizes: tuple[int, int]) -> None:
    with pytest.raises(CannotRun, match="0 or more"):
        model.new_state(*sizes)
