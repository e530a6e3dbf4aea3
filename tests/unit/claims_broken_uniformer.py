"""What breaks claims of UniFormer."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
from torch import Tensor

from formery.bodies.slow_fast import SlowFast
from formery.claims import uniformer
from formery.parts.mixers.separable_conv import SeparableConv


def activated_aggregator(patch: pytest.MonkeyPatch) -> None:
    """A local aggregator with an activation inside."""
    whole = SeparableConv.forward

    def forward(self: SeparableConv, x: Tensor, *rest: Any) -> Tensor:
        self.activation = "gelu"
        return whole(self, x, *rest)

    patch.setattr(SeparableConv, "forward", forward)


def mean_at_the_centre(patch: pytest.MonkeyPatch) -> None:
    """Weights inflated by the mean, whatever was asked for."""
    whole = uniformer.load_inflated
    patch.setattr(uniformer, "load_inflated", lambda model, theirs, rule: whole(model, theirs))


def all_kept(patch: pytest.MonkeyPatch) -> None:
    """Light models that keep all tokens in every block."""
    whole = SlowFast.__init__

    @wraps(whole)
    def init(self: SlowFast, dim: int, **options: Any) -> None:
        whole(self, dim, **options)
        self.keep = [1.0] * len(self.keep)

    patch.setattr(SlowFast, "__init__", init)


def passes_by_the_class_token(patch: pytest.MonkeyPatch) -> None:
    """A class token that is forgotten after each block."""
    whole = SlowFast._through

    def through(self: SlowFast, block: Any, share: float, tokens: Any, ctx: Any) -> Any:
        return whole(self, block, share, tokens, ctx)._replace(token=tokens.token)

    patch.setattr(SlowFast, "_through", through)


def smaller_windows(patch: pytest.MonkeyPatch) -> None:
    """Windows of half the size that was asked for."""
    whole = uniformer.uniformer.dense
    patch.setattr(uniformer.uniformer, "dense", lambda *args, window, **more: whole(*args, window=window // 2, **more))


BROKEN = [
    (uniformer.fewer_tokens, all_kept),
    (uniformer.fewer_tokens, passes_by_the_class_token),
    (uniformer.local_affinity, activated_aggregator),
    (uniformer.inflation, mean_at_the_centre),
    (uniformer.one_window, smaller_windows),
]
