"""What breaks claims about windows: masks, costs and first values that are a little wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor
from torch.nn import functional as F

from formery.claims import swin
from formery.claims.check import Check
from formery.ops import token_groups
from formery.parts.mixers import group_attention
from formery.parts.norms.layer import Layer

Break = Callable[[pytest.MonkeyPatch], None]


def leaky_mask(patch: pytest.MonkeyPatch) -> None:
    """Tokens that the roll brought together see each other a little."""
    patch.setattr(token_groups, "APART", -4.0)
    patch.setattr(group_attention, "arrangement", token_groups.arrangement.__wrapped__)  # no memory of the right one


def cost_of_all_pairs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(group_attention.GroupAttention, "macs", lambda self, tokens, past=0: tokens**2)


def restless_norm(patch: pytest.MonkeyPatch) -> None:
    def forward(self: Layer, x: Tensor, *_: object) -> Tensor:
        return F.layer_norm(x, self.shape, None, self.bias, self.eps) * (self.weight + 1e-6)

    patch.setattr(Layer, "forward", forward)


BROKEN: list[tuple[Check, Break]] = [
    (swin.linear_cost, cost_of_all_pairs),
    (swin.shift_isolated, leaky_mask),
    (swin.roll_and_mask, leaky_mask),
    (swin.identity_at_start, restless_norm),
]
