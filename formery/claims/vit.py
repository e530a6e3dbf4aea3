"""Claims of ViT (arXiv 2010.11929)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..context import NOTHING
from ..create import create_model
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted

BARE = {"body.position": None}


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("vit", progress)


@check
def patches_are_dense(seed: int, progress: Progress) -> Measured:
    """The stem's convolution against one dense layer on flattened patches; float64."""
    stem = create_model("vit_tiny", img_size=64).double().eval().stem
    conv = stem.get_submodule("conv")
    assert isinstance(conv, torch.nn.Conv2d)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.normal_()
        ours = stem(images, NOTHING)[0].flatten(1, 2)
        patches = F.unfold(images, 16, stride=16).mT
        theirs = F.linear(patches, conv.weight.flatten(1), conv.bias)
    worst = relative(ours, theirs)
    return Measured({"relative": worst}, worst <= 1e-12, f"largest difference {worst:.1e} of the output's scale")


@check
def positions_alone_order(seed: int, progress: Progress) -> Measured:
    """Shuffled patches with and without the position table; float64."""
    order = torch.randperm(16)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    tiles = images.unfold(2, 16, 16).unfold(3, 16, 16).flatten(2, 3)[:, :, order].unflatten(2, (4, 4))
    shuffled = tiles.permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 64, 64)
    change = {}
    for name, override in (("with", {}), ("without", BARE)):
        model = create_model("vit_tiny", img_size=64, override=override).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            scores = model(images)
            change[name] = relative(model(shuffled), scores)
    said = f"scores change by {change['without']:.1e} of their scale without positions, {change['with']:.1e} with them"
    return Measured(change, change["without"] <= 1e-10 and change["with"] > 1e-3, said)
