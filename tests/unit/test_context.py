"""What streams carry: slots, caches, windows, the tree of them, and the count of tokens."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from formery.context import NOTHING, Cache, Context, Slot, State, Stream, Window
from formery.errors import CannotRun


def numbered(start: int, length: int, batch: int = 1) -> Tensor:
    """Keys (batch, 1, length, 1) that say which token they are."""
    return torch.arange(start, start + length).float().expand(batch, 1, -1)[..., None]


# ------------------------------------------------------------------------------------------------ contexts


def test_contexts_are_values() -> None:
    assert NOTHING.but(causal=True) == Context(causal=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        NOTHING.causal = True  # type: ignore[misc]


def test_entries_that_no_part_reads_are_told() -> None:
    root = Path(__file__).parents[2]
    sources = "\n".join(path.read_text() for path in (root / "formery").rglob("*.py"))
    names = {field.name for field in dataclasses.fields(Context)}
    own = (root / "formery" / "context" / "shared.py").read_text()
    read = {name for name in names if re.search(rf"\bctx\.{name}\b", sources) or f"self.{name}" in own}
    told = re.search(r"No part reads (.*?) yet", (root / "docs" / "concepts.md").read_text(), re.DOTALL)
    assert told is not None
    assert names - read == set(re.findall(r"`(\w+)`", told[1]))


def test_what_is_worked_out_once() -> None:
    calls: list[int] = []

    def make() -> int:
        calls.append(1)
        return len(calls)

    with_memo = Context(memo={})
    assert [with_memo.once("a", make), with_memo.but(causal=True).once("a", make), with_memo.once("b", make)] == [
        1,
        1,
        2,
    ]
    assert [NOTHING.once("a", make), NOTHING.once("a", make)] == [3, 4]


# ------------------------------------------------------------------------------------------------ slots


def test_slots_are_written_in_place_unless_gradients_pass() -> None:
    memory = torch.zeros(2, 3)
    slot = Slot(memory)
    slot.put(torch.ones(2, 3, dtype=torch.bfloat16))
    assert slot.value is memory
    assert memory.eq(1).all()
    learned = torch.full((2, 3), 2.0, requires_grad=True)
    slot.put(learned * 1)
    assert memory.eq(1).all()
    assert slot.value.requires_grad
    with torch.no_grad():
        slot.put(torch.zeros(2, 3))  # the graph keeps what it needs
    assert slot.value.eq(0).all()
    assert not slot.value.requires_grad


def test_slots_come_back_and_are_chosen() -> None:
    slot = Slot(torch.arange(6.0).reshape(3, 2))
    early = slot.snapshot()
    slot.put(torch.zeros(3, 2))
    slot.restore(early)
    slot.put(torch.ones(3, 2))
    slot.restore(early)
    assert torch.equal(slot.select(torch.tensor([2, 0])).value, torch.tensor([[4.0, 5.0], [0.0, 1.0]]))
    assert slot.nbytes() == 24


# ------------------------------------------------------------------------------------------------ caches


def test_caches_grow_in_memory_taken_once() -> None:
    cache = Cache.empty(torch.zeros(1), 2, 1, 6, 1)
    memory = cache.keys
    assert [cache.append(k, k).keys.flatten(1).shape[1] for k in (numbered(0, 2, 2), numbered(2, 1, 2))] == [2, 3]
    seen = cache.append(numbered(3, 3, 2), -numbered(3, 3, 2))
    assert seen.keys[1].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert seen.values[1].flatten().tolist() == [0, 1, 2, -3, -4, -5]
    assert seen.keys.data_ptr() == memory.data_ptr()
    assert seen.places is None
    assert cache.nbytes() == 2 * 2 * 6 * 4
    with pytest.raises(CannotRun) as caught:
        cache.append(numbered(6, 1, 2), numbered(6, 1, 2))
    assert str(caught.value) == "this state holds 6 tokens, 7 are needed; make it with a larger capacity"


def test_values_may_have_another_width() -> None:
    cache = Cache.empty(torch.zeros(1), 2, 3, 4, 5, 7)
    seen = cache.append(torch.ones(2, 3, 2, 5), torch.ones(2, 3, 2, 7))
    assert (seen.keys.shape, seen.values.shape) == ((2, 3, 2, 5), (2, 3, 2, 7))
    window = Window.empty(torch.zeros(1), 2, 3, 9, 5, 7, size=4)
    window.append(torch.ones(2, 3, 2, 5), torch.ones(2, 3, 2, 7))
    seen = window.append(torch.ones(2, 3, 1, 5), torch.ones(2, 3, 1, 7))
    assert (seen.keys.shape, seen.values.shape) == ((2, 3, 3, 5), (2, 3, 3, 7))


# ------------------------------------------------------------------------------------------------ windows


@given(st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_windows_show_the_last_tokens_of_even_rows(size: int, lengths: list[int]) -> None:
    window, count = Window.empty(torch.zeros(1), 2, 1, sum(lengths), 1, size=size), 0
    for length in lengths:
        new = numbered(count, length, 2)
        seen = window.append(new, -new)
        held = min(count, window.room)
        if length == 1:  # all may be seen, in whatever order; the new one is among them
            expected = list(range(max(0, count + 1 - window.room), count + 1))
            assert sorted(seen.keys[1].flatten().tolist()) == expected
            assert seen.places is None
        elif count:
            assert seen.places is not None
            assert seen.keys[1].flatten().tolist() == seen.places[0].tolist()
            assert sorted(seen.places[0].tolist()) == list(range(count - held, count + length))
            assert seen.places[0, -length:].tolist() == list(range(count, count + length))
        else:
            assert torch.equal(seen.keys, new)
            assert seen.places is None
        assert torch.equal(seen.values, -seen.keys)
        count += length
    assert window.nbytes() == 2 * 2 * 4 * min(size, sum(lengths))


@given(st.integers(1, 5), st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=14), st.data())
def test_windows_count_the_real_tokens_of_each_row(size: int, padding: list[list[bool]], data: st.DataObject) -> None:
    """Rows of padding or not, cut anywhere: what is held and new is each row's last real tokens, at their places."""
    window = Window.empty(torch.zeros(1), 3, 1, 100, 1, size=size)
    pads = torch.tensor(padding).mT  # (3, L)
    places = (~pads).cumsum(1) - 1
    start, length = 0, pads.shape[1]
    while start < length:
        end = data.draw(st.integers(start + 1, length))
        pad = pads[:, start:end]
        keys = places[:, start:end].float().masked_fill(pad, -9)[:, None, :, None]
        seen = window.append(keys, keys, pad if pad.any() or data.draw(st.booleans()) else None)
        for row in range(3):
            count = int((~pads[row, :start]).sum())
            new = int((~pad[row]).sum())
            if seen.places is None:
                shown = sorted(seen.keys[row].flatten().tolist())
            else:
                at = seen.places.expand(3, -1)[row]
                shown = sorted(seen.keys[row].flatten()[at >= 0].tolist())
                assert shown == sorted(at[at >= 0].tolist())
                assert torch.equal(at[-(end - start) :], places[row, start:end].masked_fill(pad[row], -1))
            oldest = max(0, count + 1 - size if seen.places is None and end - start == 1 else count - size)
            assert shown == list(range(oldest, count + new))
        start = end


def test_windows_above_their_capacity_do_not_drop_what_may_be_seen() -> None:
    window = Window.empty(torch.zeros(1), 1, 1, 3, 1, size=5)
    window.append(numbered(0, 2), numbered(0, 2))
    for padding in (None, torch.zeros(1, 2, dtype=torch.bool)):
        with pytest.raises(CannotRun, match="this state holds 3 tokens, 4 are needed"):
            window.append(numbered(2, 2), numbered(2, 2), padding)


def test_one_token_is_written_to_one_place() -> None:
    window = Window.empty(torch.zeros(1), 1, 1, 100, 1, size=4)
    for token in range(11):
        memory, before = window.keys, window.keys.clone()
        seen = window.append(numbered(token, 1), numbered(token, 1))
        assert window.keys is memory
        assert int((before != memory).sum()) <= 1
        assert seen.keys.data_ptr() == memory.data_ptr()


# ------------------------------------------------------------------------------------------------ trees and streams


def tree() -> State:
    return State(
        blocks=State(
            a=State(tail=Slot(torch.arange(3.0)[:, None])), b=State(seen=Cache.empty(torch.zeros(1), 3, 1, 8, 1))
        )
    )


def test_trees_mirror_the_modules() -> None:
    state = tree()
    assert [path for path, _ in state.leaves()] == ["blocks.a.tail", "blocks.b.seen"]
    assert state.under("blocks.a") is not None
    assert "tail" in state.under("blocks.a")  # type: ignore[operator]
    assert state.under("blocks.c") is None
    assert state.under("blocks.a.tail.x") is None
    assert bool(State())  # a state that holds nothing is a state
    own = State(memory=Slot(torch.zeros(3, 2)))
    state.put("blocks.c.mixer", own)
    assert state.under("blocks.c.mixer") is own
    assert state.nbytes() == 12 + 2 * 3 * 8 * 4 + 24
    chosen = state.select(torch.tensor([2, 2])).under("blocks.a")
    assert chosen is not None
    assert chosen.slot("tail").value.flatten().tolist() == [2.0, 2.0]


def test_streams_count_each_row() -> None:
    stream = Stream.start(tree(), 3, 8)
    padding = torch.tensor([[True, False, False], [False, False, True], [True, True, True]])
    ctx = stream.context(Context(causal=True, padding=padding), 3)
    assert ctx.causal
    assert ctx.positions is not None
    assert ctx.positions.tolist() == [[0, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert torch.equal(ctx.key_padding, padding)  # type: ignore[arg-type]
    ctx = stream.context(Context(), 2)
    assert ctx.positions is not None
    assert ctx.positions.tolist() == [[2, 3], [2, 3], [0, 1]]
    assert ctx.key_padding is not None
    assert ctx.key_padding.tolist() == [[*row, False, False] for row in padding.tolist()]
    assert (stream.seen.tolist(), stream.total) == ([4, 4, 2], 5)
    with pytest.raises(CannotRun, match="this state holds 8 tokens, 9 are needed; make it with a larger capacity"):
        stream.context(Context(), 4)
    assert (stream.seen.tolist(), stream.total) == ([4, 4, 2], 5)  # what was refused was not counted


def test_streams_without_padding_have_none() -> None:
    stream = Stream.start(State(), 2, 8)
    for _ in range(2):
        ctx = stream.context(Context(), 3)
        assert ctx.key_padding is None
    assert ctx.positions is not None
    assert ctx.positions.tolist() == [[3, 4, 5]] * 2
    places = torch.tensor([7, 9])
    assert stream.context(Context(positions=places), 2).positions is places


def test_packed_sequences_do_not_stream() -> None:
    stream = Stream.start(State(), 1, 8)
    with pytest.raises(CannotRun, match="packed sequences do not stream"):
        stream.context(Context(bounds=torch.tensor([0, 3])), 3)


def test_streams_come_back_and_are_chosen() -> None:
    stream = Stream.start(tree(), 3, 8)
    stream.context(Context(padding=torch.tensor([[True, False]] * 2 + [[False, False]])), 2)
    early = stream.snapshot()
    stream.context(Context(), 3)
    stream.restore(early)
    assert (stream.seen.tolist(), stream.total) == ([1, 1, 2], 2)
    chosen = stream.select(torch.tensor([2, 0]))
    assert (chosen.seen.tolist(), chosen.total, chosen.parts.nbytes()) == ([2, 1], 2, 2 * (4 + 2 * 8 * 4))
    assert chosen.padding is not None
    assert chosen.padding.tolist() == [[False, False], [True, False]]
    chosen.context(Context(), 1)
    assert stream.total == 2
