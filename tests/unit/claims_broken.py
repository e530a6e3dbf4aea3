"""What breaks claims about sequences: parts, operators and models that are a little wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from formery.claims import (
    atlas,
    atlas_recall,
    gtrxl,
    hybrid_linear_attention,
    lmuformer,
    mamba,
    mamba2_hybrid,
    olmo_hybrid,
    qwen3_next,
    tcnca,
)
from formery.claims.check import Check
from formery.context import Cache, Context, Slot, State
from formery.model import Model
from formery.ops import (
    damped_average,
    delta_rule,
    feature_maps,
    gated_delta_rule,
    gated_linear_attention,
    newton_schulz,
    selective_scan,
    state_space_duality,
)
from formery.ops import test_time_memory as memories
from formery.parts.channels.mixture_of_experts import MixtureOfExperts
from formery.parts.mixers.gated_deltanet import GatedDeltaNet
from formery.parts.mixers.mamba import Mamba
from formery.parts.mixers.mixer import Mixer
from formery.runtime.listening import Listening

Break = Callable[[pytest.MonkeyPatch], None]


def handed(patch: pytest.MonkeyPatch, home: Any, name: str, change: Callable[..., tuple[Any, ...]]) -> None:
    """`home.name` is given what `change` makes of its arguments."""
    whole = getattr(home, name)
    patch.setattr(home, name, lambda *args, **options: whole(*change(*args), **options))


def hoards(patch: pytest.MonkeyPatch, kind: type[Mixer]) -> None:
    """A recurrence whose state has room for every token."""
    whole = kind.new_state

    def new_state(self: Mixer, batch: int, capacity: int) -> State | None:
        state = whole(self, batch, capacity)
        assert state is not None
        return State(**state.entries, everything=Slot(torch.zeros(batch, capacity)))

    patch.setattr(kind, "new_state", new_state)


# ------------------------------------------------------------------------------------------------ caches and states


def forgetful_cache(patch: pytest.MonkeyPatch) -> None:
    """The cache loses the oldest token."""
    whole = Cache.append

    def append(self: Cache, *args: Any) -> Any:
        seen = whole(self, *args)
        return seen._replace(keys=torch.cat([seen.keys[:, :, :1] * 0, seen.keys[:, :, 1:]], dim=2))

    patch.setattr(Cache, "append", append)


def mamba_hoards(patch: pytest.MonkeyPatch) -> None:
    hoards(patch, Mamba)


def deltanet_hoards(patch: pytest.MonkeyPatch) -> None:
    hoards(patch, GatedDeltaNet)


def more_attention(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mamba2_hybrid.system, "SHARES", "attention=.16, mlp=.5")


def one_attention_more(patch: pytest.MonkeyPatch) -> None:
    whole = qwen3_next._released

    def released() -> Model:
        blocks = whole().resolved["body"]["blocks"]
        return qwen3_next.create_hollow({"body.blocks.0.mixer": blocks[3]["mixer"]})

    patch.setattr(qwen3_next, "_released", released)


def other_ratio(patch: pytest.MonkeyPatch) -> None:
    whole = hybrid_linear_attention.as_model

    def as_model(what: Any) -> Any:
        return whole(what.replace("12_1", "3_1") if isinstance(what, str) else what)

    patch.setattr(hybrid_linear_attention, "as_model", as_model)


def other_shares(patch: pytest.MonkeyPatch) -> None:
    handed(patch, mamba2_hybrid, "parse", lambda text: (text.replace(".08", ".12"),))


def mean_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A listener that takes the mean over the last piece alone."""

    class Forgets(Listening):
        def hear(self, frames: Tensor, *, last: bool = False) -> Tensor:
            self.total = 0 * self.total
            return super().hear(frames, last=last)

    patch.setattr(lmuformer, "Listening", Forgets)


def episodes_joined(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gtrxl, "Context", lambda **facts: Context(**(facts | {"bounds": None})))


def all_experts_asked(patch: pytest.MonkeyPatch) -> None:
    """Experts that a token does not go to have a say as well."""
    whole = MixtureOfExperts.forward

    def forward(self: MixtureOfExperts, x: Tensor, *rest: Any) -> Tensor:
        return whole(self, x, *rest) + 1e-6 * self.reduce.mean()

    patch.setattr(MixtureOfExperts, "forward", forward)


# ------------------------------------------------------------------------------------------------ recurrences


def other_steps(patch: pytest.MonkeyPatch) -> None:
    handed(patch, selective_scan, "chunked", lambda u, dt, *rest: (u, 1.001 * dt, *rest))


def other_response(patch: pytest.MonkeyPatch) -> None:
    handed(patch, selective_scan, "selective_scan", lambda u, dt, *rest: (u, 1.001 * dt, *rest))


def always_decaying(patch: pytest.MonkeyPatch) -> None:
    handed(patch, state_space_duality, "state_space_duality", lambda x, g, *rest: (x, g - 1e-3, *rest))


def other_gates(patch: pytest.MonkeyPatch) -> None:
    handed(patch, gated_linear_attention, "chunked", lambda q, k, v, g, state: (q, k, v, 1.001 * g, state))


def always_writing(patch: pytest.MonkeyPatch) -> None:
    handed(
        patch, gated_delta_rule, "gated_delta_rule", lambda q, k, v, g, beta, state: (q, k, v, g, beta + 1e-3, state)
    )


def never_corrected(patch: pytest.MonkeyPatch) -> None:
    """Sums in the place of the delta rule."""

    def sums(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Any:
        return gated_linear_attention.gated_linear_attention(q, k, v)

    patch.setattr(delta_rule, "delta_rule", sums)


def faster_decay(patch: pytest.MonkeyPatch) -> None:
    handed(patch, damped_average, "damped_average", lambda x, keep, *rest: (x, 0.999 * keep, *rest))


# ------------------------------------------------------------------------------------------------ test-time memories


def other_rate(name: str) -> Break:
    """Steps of another size, in one form of the memory's training."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        handed(
            patch, memories, name,
            lambda q, k, v, gates, *rest: (q, k, v, gates._replace(rate=1.001 * gates.rate), *rest),
        )  # fmt: skip

    broken.__name__ = f"other_rate_{name}"
    return broken


def larger_coefficients(patch: pytest.MonkeyPatch) -> None:
    handed(patch, feature_maps, "polynomial", lambda x, coefficients, tables: (x, 1.01 * coefficients, tables))


def endless_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(atlas_recall, "learned", lambda phi, values: 0.0)


def last_pair_only(patch: pytest.MonkeyPatch) -> None:
    whole = memories.Rule
    patch.setattr(memories, "Rule", lambda **options: whole(**(options | {"window": 1})))


def two_steps(patch: pytest.MonkeyPatch) -> None:
    handed(patch, newton_schulz, "newton_schulz", lambda x: (x, 2))


def sharper(patch: pytest.MonkeyPatch) -> None:
    handed(patch, memories, "by_kernel", lambda q, *rest: (1.01 * q, *rest))


BROKEN: list[tuple[Check, Break]] = [
    (atlas.delta_rule, other_rate("trained_memory")),
    (atlas.chunks, other_rate("chunked")),
    (atlas.features, larger_coefficients),
    (atlas.capacity, endless_memory),
    (atlas.window, last_pair_only),
    (atlas.orthogonal, two_steps),
    (atlas.softmax, sharper),
    (gtrxl.episodes, episodes_joined),
    (hybrid_linear_attention.chunks, other_gates),
    (hybrid_linear_attention.reductions, always_writing),
    (hybrid_linear_attention.associative_memory, never_corrected),
    (hybrid_linear_attention.cache, other_ratio),
    (lmuformer.streaming, mean_forgotten),
    (mamba.splits, other_steps),
    (mamba.linear_attention, always_decaying),
    (mamba.convolution, other_response),
    (mamba.state, mamba_hoards),
    (mamba2_hybrid.allocation, other_shares),
    (mamba2_hybrid.cache, more_attention),
    (olmo_hybrid.state, deltanet_hoards),
    (qwen3_next.active, all_experts_asked),
    (qwen3_next.streams, forgetful_cache),
    (qwen3_next.state, one_attention_more),
    (tcnca.recurrence, faster_decay),
]
"""Checks, and what breaks their claims."""
