"""Claims of CrossViT (arXiv 2103.14899); `crossvit_learning` has the one that needs trainings."""

from __future__ import annotations

from typing import Any

import torch

from ..bodies.branches import Branches
from ..context import NOTHING, Context
from ..create import create_model
from ..measure import count_macs
from .check import Measured, Progress, check
from .crossvit_learning import cross_attention_over_averaging
from .figures import counted

__all__ = ["cross_attention_over_averaging", "figures", "heads_are_averaged", "linear_fusion", "patches_pass"]

SIDES = (120, 240, 480)
"""Pixels, so that the first branch has 100, 400 and 1600 patches."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("crossvit", progress)


@check
def linear_fusion(seed: int, progress: Progress) -> Measured:
    """Multiply-accumulates of one fusion and of one self-attention, at one, four and sixteen times the patches."""
    fusion, attention, tokens = [], [], []
    for side in SIDES:
        progress(f"{side} pixels")
        with torch.device("meta"):
            model = create_model("crossvit_tiny", img_size=side).eval()
        counted = count_macs(model)
        fusion.append(counted.below("body.stages.0.fusions.1.mixer"))  # which looks at the first branch's patches
        attention.append(counted.below("body.stages.0.branches.0.blocks.0.mixer"))
        tokens.append(1 + (side // 12) ** 2)
    own = model.get_submodule("body.stages.0.fusions.1.mixer")
    assert isinstance(own, torch.nn.Module)
    fixed = 2 * model.embed_dim[0] ** 2  # type: ignore[index] # query and output of the one row
    a_token = [(n - fixed) / t for n, t in zip(fusion, tokens, strict=True)]
    growth = [attention[i] / attention[0] for i in range(3)]
    shares = [tokens[i] / tokens[0] for i in range(3)]
    linear = a_token[0] == a_token[1] == a_token[2]
    faster = all(g > 1.05 * s for g, s in zip(growth[1:], shares[1:], strict=True))
    said = f"fusion {a_token[0]:,.0f} a token at {', '.join(map(str, tokens))} tokens: {linear}; " + (
        f"self-attention {growth[1]:.2f} and {growth[2]:.2f} times its first, of {shares[1]:.2f} and {shares[2]:.2f}"
    )
    return Measured({"fusion": fusion, "attention": attention, "tokens": tokens}, linear and faster, said)


@check
def patches_pass(seed: int, progress: Progress) -> Measured:
    """What a fusion leaves of the tokens that its branches hand it."""
    model = create_model("crossvit_tiny", img_size=48).eval()
    stage = model.get_submodule("body.stages.0")
    assert isinstance(stage, Branches)
    with torch.no_grad():
        given: list[Any] = []
        hooks = [m.register_forward_hook(lambda m, x, y: given.append(y.x)) for m in stage.branches]
        got = stage(model.stem(torch.randn(2, 3, 48, 48), NOTHING)[0], Context())
        for hook in hooks:
            hook.remove()
    n = got.prefix
    kept = all(torch.equal(a[:, n:], b[:, n:]) for a, b in zip(given, got.x, strict=True))
    changed = all(bool((a[:, :n] != b[:, :n]).any()) for a, b in zip(given, got.x, strict=True))
    said = f"patch tokens equal to the last bit: {kept}; class tokens changed: {changed}"
    return Measured({"kept": kept, "changed": changed}, kept and changed, said)


@check
def heads_are_averaged(seed: int, progress: Progress) -> Measured:
    """The scores of each branch's own head, by hand, against those of the model."""
    model = create_model("crossvit_tiny", img_size=48, num_classes=10).eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        layers = list(model.get_classifier().children())
        for layer in layers:
            assert isinstance(layer, torch.nn.Linear)
            layer.weight.normal_()
        tokens = model.forward_features(images)
        scores = [layer(x[:, 0]) for layer, x in zip(layers, tokens, strict=True)]
        worst = (model(images) - (scores[0] + scores[1]) / 2).abs().max().item()
        apart = (scores[0] - scores[1]).abs().max().item()
    passed = worst <= 1e-5 * apart
    said = f"largest difference {worst:.1e}, where the two heads are {apart:.1f} apart"
    return Measured({"difference": worst, "apart": apart}, passed, said)
