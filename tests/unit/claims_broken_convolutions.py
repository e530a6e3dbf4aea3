"""What breaks claims about large kernels and global response norms."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery.claims import convnextv2, unireplknet
from formery.claims.check import Check
from formery.parts.mixers import large_kernel
from formery.parts.mixers.large_kernel import LargeKernel
from formery.parts.norms.global_response import GlobalResponse
from tests.unit.claims_broken import Break


def off_centre(patch: pytest.MonkeyPatch) -> None:
    """The dense kernels stand one place beside where the dilated ones look."""
    whole = large_kernel.spread
    for home in (large_kernel, unireplknet):
        patch.setattr(home, "spread", lambda kernel, dilation: whole(kernel, dilation).roll(1, -1))


def other_card(patch: pytest.MonkeyPatch) -> None:
    """A merged network that keeps one norm more than it should."""
    whole = unireplknet.override

    def less(resolved: Any, changes: dict[str, Any]) -> Any:
        return whole(resolved, {path: value for path, value in changes.items() if not path.endswith("channel.norm")})

    patch.setattr(unireplknet, "override", less)


def merged_slowly(patch: pytest.MonkeyPatch) -> None:
    """Merging leaves the branches where they are."""
    patch.setattr(LargeKernel, "reparameterize", lambda self: None)


def near_sighted(patch: pytest.MonkeyPatch) -> None:
    """Large kernels are zero but for their inner 3 x 3."""
    whole = LargeKernel.forward

    @wraps(whole)
    def forward(self: LargeKernel, x: Tensor, *rest: Any) -> Tensor:
        own, self.branches = self.branches, None
        margin = (self.size - 3) // 2
        inner = F.pad(torch.ones(3, 3), (margin,) * 4)
        with torch.no_grad():
            self.conv.weight.mul_(inner)
        y = whole(self, x, *rest)
        self.branches = own
        return y

    patch.setattr(LargeKernel, "forward", forward)


def begins_at_one(patch: pytest.MonkeyPatch) -> None:
    whole = GlobalResponse.__init__

    @wraps(whole)
    def init(self: GlobalResponse, *args: Any, **options: Any) -> None:
        whole(self, *args, **options)
        self.weight.data.fill_(1e-3)

    patch.setattr(GlobalResponse, "__init__", init)


def each_for_itself(patch: pytest.MonkeyPatch) -> None:
    """A channel's energy is not set beside the others'."""

    def factors(self: GlobalResponse, x: Tensor) -> Tensor:
        return 1 + self.weight * torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)

    patch.setattr(GlobalResponse, "factors", factors)


BROKEN: list[tuple[Check, Break]] = [
    (unireplknet.smaller, other_card),
    (unireplknet.exact, off_centre),
    (unireplknet.dilated, off_centre),
    (unireplknet.faster, merged_slowly),
    (unireplknet.field, near_sighted),
    (convnextv2.fresh_identity, begins_at_one),
    (convnextv2.competition, each_for_itself),
]
