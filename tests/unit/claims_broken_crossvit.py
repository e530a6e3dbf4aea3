"""What breaks claims about CrossViT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from formery.bodies.branches import Branches
from formery.claims import crossvit
from formery.claims.check import Check
from formery.parts.heads.branch_classes import BranchClasses
from formery.parts.mixers.class_attention import ClassAttention
from tests.unit.claims_broken import Break


def every_token_asks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClassAttention, "macs", lambda self, tokens, past=0: 2 * self.heads * self.head_dim * tokens**2)


def patches_join_in(patch: pytest.MonkeyPatch) -> None:
    """Patch tokens go through the fusion of their branch as well."""
    whole = Branches._fused

    def fused(self: Branches, b: int, *rest: Any) -> Tensor:
        y = whole(self, b, *rest)
        return torch.cat([y[:, :1], 1.001 * y[:, 1:]], dim=1)

    patch.setattr(Branches, "_fused", fused)


def nobody_asks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Branches, "_fused", lambda self, b, tokens, *rest: tokens[b])


def summed(patch: pytest.MonkeyPatch) -> None:
    whole = BranchClasses.scores
    patch.setattr(BranchClasses, "scores", lambda self, pooled: 2 * whole(self, pooled))


BROKEN: list[tuple[Check, Break]] = [
    (crossvit.linear_fusion, every_token_asks),
    (crossvit.patches_pass, patches_join_in),
    (crossvit.patches_pass, nobody_asks),
    (crossvit.heads_are_averaged, summed),
]
