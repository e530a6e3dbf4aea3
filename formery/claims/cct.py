"""Claims of the Compact Transformers (arXiv 2104.05704); `cct_learning` has those that need trainings."""

from __future__ import annotations

import torch

from ..context import NOTHING
from ..create import create_model
from ..parts.heads.classes import Classes
from ..parts.heads.head import Features
from .cct_learning import order_on_little_data, positions_matter_less, small_suffices
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted

__all__ = ["any_size", "figures", "order_on_little_data", "positions_matter_less", "sequence_pooling", "small_suffices"]


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    why = "The authors' counts leave out the two products inside attention: 0.41G at 224 pixels, 3.57G at 384."
    return counted("cct", progress, why)


@check
@torch.no_grad()
def sequence_pooling(seed: int, progress: Progress) -> Measured:
    """The head's pooling without weights against the mean, with its bias moved, and of constant tokens; float64."""
    head = Classes(24, num_classes=5, pool="sequence", norm=None).double()
    weigh = head.weigh
    assert isinstance(weigh, torch.nn.Linear)
    tokens = torch.randn(3, 17, 24, dtype=torch.float64)

    def pooled(x: torch.Tensor) -> torch.Tensor:
        return head.pooled(Features(x), NOTHING)

    weigh.weight.normal_()
    before = pooled(tokens)
    weigh.bias.add_(3.0)
    found = {"bias": relative(pooled(tokens), before)}
    ones = torch.ones_like(tokens)
    ones[..., 1:] = tokens[..., 1:]  # a channel that is 1 everywhere gives the sum of the weights
    found["sum"] = relative(pooled(ones)[:, :1], torch.ones(3, 1, dtype=torch.float64))
    weigh.weight.zero_()
    found["mean"] = relative(pooled(tokens), tokens.mean(1))
    told = relative(before, tokens.mean(1))
    said = (
        f"with w = 0 {found['mean']:.1e} from the mean, with w drawn {told:.2f}; another b {found['bias']:.1e}; "
        f"sum of the weights 1 but for {found['sum']:.1e}"
    )
    return Measured(found | {"drawn": told}, max(found.values()) <= 1e-12 and told > 0.1, said)


@check
@torch.no_grad()
def any_size(seed: int, progress: Progress) -> Measured:
    """A CCT without positions, built for two sizes: the same weights, and the same scores of the same images."""
    sizes = (32, 48)
    models = {size: create_model("cct_2_3x2", img_size=size, override={"body.position": None}).eval() for size in sizes}
    models[48].load_state_dict(models[32].state_dict())
    difference, finite = 0.0, True
    for height, width in ((32, 32), (48, 48), (40, 64)):
        images = torch.randn(1, 3, height, width)
        scores = [model(images) for model in models.values()]
        finite = finite and all(bool(s.isfinite().all()) for s in scores)
        difference = max(difference, (scores[0] - scores[1]).abs().max().item())
    said = f"scores of 32x32, 48x48 and 40x64 finite: {finite}; built for 32 or 48 pixels, difference {difference:g}"
    return Measured({"finite": finite, "difference": difference}, finite and difference == 0, said)
