"""Claims of T2T-ViT (arXiv 2101.11986); `t2tvit_learning` has those that need trainings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..context import NOTHING
from ..create import create_model
from ..ops.random_features import gaussian_rows, positive_features
from ..ops.soft_split import soft_split
from ..parts.stems.tokens_to_token import TokensToToken
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted
from .t2tvit_learning import better_than_patches, deep_and_narrow

__all__ = [
    "better_than_patches", "deep_and_narrow", "figures", "overlap", "performer_approximates", "split_is_convolution",
]  # fmt: skip

DRAWS = 20
"""Over which the distance of an approximation is averaged."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("t2tvit", progress, "The depth of 24 has 13.35G in its blocks and 0.31G in its stem.")


@check
@torch.no_grad()
def overlap(seed: int, progress: Progress) -> Measured:
    """How many tokens hold a pixel, for the 256 places of one within 16 x 16, far from borders."""
    stem = create_model("t2t_vit_7").stem
    assert isinstance(stem, TokensToToken)
    reached: dict[int, int] = {}
    places = torch.zeros(256, 224, 224, 1)
    for place in range(256):
        places[place, 96 + place // 16, 96 + place % 16] = 1.0
    for start in range(0, 256, 32):
        x = places[start : start + 32]
        for split in stem.splits:
            x = soft_split(x, *split).amax(-1, keepdim=True)
        for count in x.flatten(1).sum(1).long().tolist():
            reached[count] = reached.get(count, 0) + 1
    tokens = torch.Size(stem.grid).numel()
    said = f"{tokens} tokens; " + ", ".join(f"{n} places reach {count}" for count, n in sorted(reached.items()))
    passed = tokens == 196 and reached == {4: 225, 2: 30, 1: 1}
    return Measured({"tokens": tokens, "reached": {str(k): v for k, v in reached.items()}}, passed, said)


@check
@torch.no_grad()
def split_is_convolution(seed: int, progress: Progress) -> Measured:
    """A stem of one split against torch's convolution with its weights; float64, an image that is not square."""
    stem = TokensToToken(dim=24, splits=[[7, 4, 2]], img_size=64).double().eval()
    stem.project.weight.normal_()
    images = torch.randn(2, 3, 64, 100, dtype=torch.float64)
    ours = stem(images, NOTHING)[0].movedim(-1, 1)
    theirs = F.conv2d(images, stem.project.weight.view(24, 3, 7, 7), stem.project.bias, stride=4, padding=2)
    worst = relative(ours, theirs)
    return Measured({"relative": worst}, worst <= 1e-12, f"largest difference {worst:.1e} of the output's scale")


@check
@torch.no_grad()
def performer_approximates(seed: int, progress: Progress) -> Measured:
    """Rows of attention by random features against the softmax's; scaled queries and keys of width 16."""
    q, k = torch.randn(2, 64, 16) * 16**-0.25
    exact = (q @ k.mT).softmax(-1)
    found = {}
    for name in ("gaussian", "orthogonal"):
        for count in (8, 128, 2048):
            draws = [torch.randn(count, 16) if name == "gaussian" else gaussian_rows(count, 16) for _ in range(DRAWS)]
            found[f"{name} {count}"] = sum(_distance(q, k, w, exact) for w in draws) / DRAWS
    falls = all(
        found[f"{name} 8"] > found[f"{name} 128"] > found[f"{name} 2048"]
        and found[f"{name} 2048"] < found[f"{name} 8"] / 2
        for name in ("gaussian", "orthogonal")
    )
    said = "L1 distance of rows: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    return Measured(found, falls, said, "1.07, .75, .40 by Gaussian draws of the authors' code")


def _distance(q: Tensor, k: Tensor, draws: Tensor, exact: Tensor) -> float:
    weights = positive_features(q, draws)[0] @ positive_features(k, draws)[0].mT
    rows = weights / weights.sum(-1, keepdim=True)
    return float((rows - exact).abs().sum(-1).mean())
