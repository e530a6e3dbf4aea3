"""What breaks claims of EfficientFormer."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from formery.claims import efficientformer
from formery.ops.remembered import Remembered
from formery.parts.heads.distilled import DistilledScores
from formery.parts.merges.conv import ConvMerge
from formery.rewrites import fold_steps


def scattered_maps(patch: pytest.MonkeyPatch) -> None:
    """A merge that gives planes of channels."""
    whole = ConvMerge.forward

    def forward(self: ConvMerge, x: Tensor, *rest: Any) -> Tensor:
        return whole(self, x, *rest).movedim(-1, 1).contiguous().movedim(1, -1)

    patch.setattr(ConvMerge, "forward", forward)


def other_batch_norm(patch: pytest.MonkeyPatch) -> None:
    whole = fold_steps.affine_map

    def shifted(norm: Any) -> tuple[Tensor, Tensor]:
        scale, shift = whole(norm)
        return scale, shift + 0.01

    patch.setattr(fold_steps, "affine_map", shifted)


def stale_biases(patch: pytest.MonkeyPatch) -> None:
    """What was made once is kept, whatever becomes of the weight."""
    whole = Remembered.of

    def of(self: Remembered[Tensor], weight: Tensor) -> Tensor | None:
        return whole(self, weight) if self._made is None else self._made

    patch.setattr(Remembered, "of", of)


def blind_to_time(patch: pytest.MonkeyPatch) -> None:
    """Slimming by a table in which all blocks take alike."""
    whole = efficientformer.slim

    def slim(design: Any, table: Any, budget: float) -> Any:
        share = budget / design.milliseconds(table)
        return whole(design, lambda kind, stage, width: 1.0, share * design.milliseconds(lambda *_: 1.0))

    patch.setattr(efficientformer, "slim", slim)


def one_head_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DistilledScores, "mean", lambda self: self.scores)


BROKEN = [
    (efficientformer.one_change, scattered_maps),
    (efficientformer.folded, other_batch_norm),
    (efficientformer.bias_cache, stale_biases),
    (efficientformer.slimming, blind_to_time),
    (efficientformer.two_heads, one_head_alone),
]
