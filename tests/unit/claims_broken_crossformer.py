"""What breaks claims of CrossFormer: orders, biases, masks and costs that are a little wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from formery.claims import crossformer
from formery.claims.check import Check
from formery.parts.mixers import group_attention
from formery.parts.positions.offset_bias import offset_rows
from formery.parts.positions.offset_mlp import OffsetMLP

Break = Callable[[pytest.MonkeyPatch], None]


def noisy_bias(patch: pytest.MonkeyPatch) -> None:
    """A network that gives another number each time."""
    whole = OffsetMLP.rows
    patch.setattr(OffsetMLP, "rows", lambda self, grid: whole(self, grid) * (1 + 1e-2 * torch.rand(1)))


def bias_of_its_group(patch: pytest.MonkeyPatch) -> None:
    """Offsets as shares of the group's side."""
    whole = OffsetMLP.rows

    def rows(self: OffsetMLP, grid: tuple[int, ...]) -> Tensor:
        return whole(self, grid) + 1e-3 * offset_rows(grid).sum(1, keepdim=True) / grid[0]

    patch.setattr(OffsetMLP, "rows", rows)


def other_interval(patch: pytest.MonkeyPatch) -> None:
    whole = group_attention.for_map
    patch.setattr(group_attention, "for_map", lambda cut, grid: whole(cut._replace(interval=1), grid))


def filling_seen(patch: pytest.MonkeyPatch) -> None:
    whole = group_attention.for_map
    patch.setattr(group_attention, "for_map", lambda cut, grid: whole(cut._replace(seen=True), grid))


def cost_of_all_pairs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(group_attention.GroupAttention, "macs", lambda self, tokens, past=0: tokens**2)


BROKEN: list[tuple[Check, Break]] = [
    (crossformer.table, noisy_bias),
    (crossformer.any_group, bias_of_its_group),
    (crossformer.permutation, other_interval),
    (crossformer.filling_hidden, filling_seen),
    (crossformer.linear_cost, cost_of_all_pairs),
]
