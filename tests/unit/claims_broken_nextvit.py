"""What breaks claims of Next-ViT: parts and rewrites that are a little wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from formery.claims import nextvit
from formery.claims.check import Check
from formery.parts.mixers.multi_head_conv import MultiHeadConv
from formery.parts.mixers.pooled_attention import PooledAttention
from formery.rewrites import fold_steps
from formery.runtime.onnx_model import OnnxModel
from tests.unit.claims_broken import Break


def shifted_a_little(patch: pytest.MonkeyPatch) -> None:
    """A batch norm whose shift is off by a millionth."""
    whole = fold_steps.affine_map
    patch.setattr(fold_steps, "affine_map", lambda norm: (whole(norm)[0], whole(norm)[1] * (1 + 1e-6)))


def not_merged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nextvit, "merged", lambda model: model)


def runs_otherwise(patch: pytest.MonkeyPatch) -> None:
    """A runtime that is off by a thousandth."""
    whole = OnnxModel.forward
    patch.setattr(OnnxModel, "forward", lambda self, inputs: whole(self, inputs) * 1.001)


def always_squares(patch: pytest.MonkeyPatch) -> None:
    whole = PooledAttention._pooled

    def pooled(self: PooledAttention, x: Tensor) -> Tensor:
        self.pool = "2d"
        return whole(self, x)

    patch.setattr(PooledAttention, "_pooled", pooled)


def smooth_convolution(patch: pytest.MonkeyPatch) -> None:
    def forward(self: MultiHeadConv, x: Tensor, *_: Any) -> Tensor:
        return x.mean((1, 2), keepdim=True) + 1e-3 * torch.zeros_like(x)

    patch.setattr(MultiHeadConv, "forward", forward)


BROKEN: list[tuple[Check, Break]] = [
    (nextvit.merging, shifted_a_little),
    (nextvit.operators, not_merged),
    (nextvit.onnx_runtime, runs_otherwise),
    (nextvit.raster_runs, always_squares),
    (nextvit.frequencies, smooth_convolution),
]
