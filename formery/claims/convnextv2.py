"""Claims of ConvNeXt V2 (arXiv 2301.00808)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..create import create_model
from ..parts.norms.global_response import GlobalResponse
from .check import Measured, Progress, check
from .figures import counted


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("convnextv2", progress)


@check
def fresh_identity(seed: int, progress: Progress) -> Measured:
    """A fresh network with its global response norms, and without them."""
    model: Any = create_model("convnextv2_atto", num_classes=10).eval()
    images = torch.randn(1, 3, 64, 64)
    norms = [module for module in model.modules() if isinstance(module, GlobalResponse)]
    with torch.no_grad():
        whole = model(images)
        for block in (block for stage in model.body.stages for block in stage.blocks):
            block.channel.grn = nn.Identity()
        change = (model(images) - whole).abs().max().item()
    said = f"largest change {change:g} without the {len(norms)} norms"
    return Measured({"change": change, "norms": len(norms)}, change == 0 and len(norms) > 0, said)


@check
def competition(seed: int, progress: Progress) -> Measured:
    """The factors of drawn maps, and those after one channel was doubled."""
    norm = GlobalResponse(64)
    with torch.no_grad():
        norm.weight.fill_(1.0)
        x = torch.randn(4, 14, 14, 64) * torch.rand(64)
        before = norm(x) / x - 1
        louder = x.clone()
        louder[..., 0] *= 2
        after = norm(louder) / louder - 1
    mean = (before[:, 0, 0].mean(-1) - 1).abs().max().item()
    own, others = (after - before)[..., 0].min().item(), (after - before)[..., 1:].max().item()
    said = f"mean weight 1 within {mean:.1e}; the doubled channel's rises by >= {own:.2f}, others' by <= {others:.1e}"
    return Measured({"mean": mean, "own": own, "others": others}, mean <= 1e-5 and own > 0 > others, said)
