"""The contract can be broken: each check finds the mixer that breaks it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formery.context import NOTHING, Cache, Context, Slot, State
from formery.parts.mixers.attention import Attention
from formery.parts.mixers.depthwise_conv import DepthwiseConv
from formery.parts.mixers.identity import Identity
from formery.parts.mixers.spatial_fc import SpatialFC
from tests.contract import mixer_streams
from tests.contract.mixers import MIXERS
from tests.contract.subjects import GRIDS, Subject

assert mixer_streams.LENGTH
SEQUENCE = {"size": 4, "axes": 1}
HEADS = {"heads": 4}
WINDOW = {"heads": 4, "window": 5}
breaches: list[tuple[type, dict[str, Any], str]] = []


def breaks(check: str, options: dict[str, Any]) -> Any:
    """Note that the decorated mixer breaks a check."""

    def note(mixer: type) -> type:
        breaches.append((mixer, options, check))
        return mixer

    return note


@breaks("check_batch", SEQUENCE)
class SeesBatch(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return super().forward(x, ctx, state) + 1e-3 * x.mean(0, keepdim=True)


@breaks("check_batch", SEQUENCE)
class SeesBatchInTraining(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = super().forward(x, ctx, state)
        return y - y.mean(0) if self.training else y


@breaks("check_causality", HEADS)
class SeesLaterTokens(Attention):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return super().forward(x, ctx.but(causal=False), state)


@breaks("check_later_tokens_are_seen", HEADS)
class DeclaresTooLittle(Attention):
    causal, streams = "never", "no"

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return super().forward(x, ctx.but(causal=True), state)


@breaks("check_any_split_gives_the_whole", SEQUENCE)
@breaks("check_snapshots_come_back", SEQUENCE)
class ForgetsItsTail(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = super().forward(x, ctx, state)
        if state is not None:
            state.slot("tail").value = torch.zeros_like(state.slot("tail").value)
        return y


@breaks("check_gradients_pass_through_a_stream", SEQUENCE)
class CutsGradients(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = super().forward(x, ctx, state)
        if state is not None:
            state.slot("tail").value = state.slot("tail").value.detach()
        return y


@breaks("check_packed_is_separate", SEQUENCE)
class IgnoresBounds(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return super().forward(x, ctx.but(bounds=None), state)


@breaks("check_padding_changes_nothing", SEQUENCE)
@breaks("check_no_gradient_from_padding", SEQUENCE)
@breaks("check_ragged_streams_go_on", SEQUENCE)
@breaks("check_padded_prompt_then_decoding", SEQUENCE)
class IgnoresPadding(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return super().forward(x, ctx.but(padding=None), state)


@breaks("check_ragged_streams_go_on", WINDOW)
@breaks("check_padded_prompt_then_decoding", WINDOW)
class CountsPaddingIntoItsWindow(Attention):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        if state is None or ctx.padding is None:
            return super().forward(x, ctx, state)
        return super().forward(x.masked_fill(ctx.padding[..., None], 0), ctx.but(padding=None), state)


@breaks("check_shape_and_dtype", {})
class ReadsUnwrittenMemory(Identity):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return x + 0 * torch.empty_like(x)


@breaks("check_shape_and_dtype", {})
class Widens(Identity):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return x.double()


@breaks("check_gradients", {})
class HasAnIdleParameter(Identity):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.idle = nn.Parameter(torch.ones(dim))


@breaks("check_gradients", SEQUENCE)
class HasAWrongGradient(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = super().forward(x, ctx, state)
        return y + 0.1 * y.detach()


@breaks("check_nothing_is_stored", {})
class RemembersItsInput(Identity):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        self.last = x
        return x


@breaks("check_state_growth", SEQUENCE)
class GrowsInSecret(DepthwiseConv):
    def new_state(self, batch: int, capacity: int) -> State | None:
        state = super().new_state(batch, capacity)
        assert state is not None
        return State(**state.entries, spare=Slot(torch.zeros(batch, capacity)))


@breaks("check_overflow_is_an_error", HEADS)
class MakesRoomInSecret(Attention):
    def new_state(self, batch: int, capacity: int) -> State:
        return State(seen=Cache.empty(self.out.weight, batch, self.kv_heads, 2 * capacity, self.head_dim))


@breaks("check_states_of_chosen_rows", SEQUENCE)
class SelectsTheFirstRows(DepthwiseConv):
    class Tail(Slot):
        def select(self, rows: Tensor) -> Slot:
            return Slot(self.value.repeat(2, 1, 1)[: len(rows)])

    def new_state(self, batch: int, capacity: int) -> State | None:
        state = super().new_state(batch, capacity)
        assert state is not None
        return State(tail=self.Tail(state.slot("tail").value))


@breaks("check_detach_cuts_gradients", SEQUENCE)
class HoldsOnToGradients(DepthwiseConv):
    class Tail(Slot):
        def detach(self) -> Slot:
            return self

    def new_state(self, batch: int, capacity: int) -> State | None:
        state = super().new_state(batch, capacity)
        assert state is not None
        return State(tail=self.Tail(state.slot("tail").value))


@breaks("check_compiles", SEQUENCE)
@breaks("check_exports", SEQUENCE)
class AsksForNumbers(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = super().forward(x, ctx, state)
        return y if y.sum() > 0 else y + 1


@breaks("check_exports", SEQUENCE)
class PinsItsLength(DepthwiseConv):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return super().forward(x, ctx, state) + torch.ones(24, 1).to(x)


@breaks("check_other_sizes", {})
class HidesThatItIsBound(SpatialFC):
    fixed_grid = False


@breaks("check_bound_to_one_grid", {"bias": True})
class ForgetsARule(SpatialFC):
    def __init__(self, dim: int, *, bias: bool = False, grid: tuple[int, ...]) -> None:
        super().__init__(dim, bias=bias, grid=grid)
        self.resizes = {"mix.weight": self.resizes["mix.weight"]}


@breaks("check_scales_fold", HEADS)
class ReadsMoreThanItSays(Attention):
    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return super().forward(x, ctx, state) + x


@breaks("check_names", HEADS)
class NamesWhatIsNotThere(Attention):
    undecayed = ("table",)


@breaks("check_no_state_without_streams", {"size": 3})
class HasAStateAllTheSame(DepthwiseConv):
    def new_state(self, batch: int, capacity: int) -> State | None:
        return State(tail=Slot(torch.zeros(batch, 1)))


@pytest.mark.parametrize(("mixer", "options", "check"), breaches, ids=[f"{m.__name__} {c}" for m, _, c in breaches])
def test_breach_is_found(mixer: type, options: dict[str, Any], check: str) -> None:
    rank = 2 if options == {"size": 3} else 1
    subject = Subject(mixer, options, GRIDS[rank])
    promise = next(promise for promise in MIXERS if str(promise) == check)
    if promise.applies(sound := Subject(mixer.__mro__[1], options, GRIDS[rank])):
        promise.check(sound)  # what it is made from keeps it
    assert promise.applies(subject)
    with pytest.raises((Exception, pytest.fail.Exception)):  # an assertion, or what the fault brings about in torch
        promise.check(subject)
