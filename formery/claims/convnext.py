"""Claims of ConvNeXt (arXiv 2201.03545); `convnext_learning` has the one that needs trainings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cards import spec_of
from ..create import create_model
from ..measure import count_macs, count_parameters
from ..measure.inputs import as_model
from ..spec import resolve
from .check import Measured, Progress, check
from .comparing import relative
from .convnext_learning import kernel_size
from .figures import counted

__all__ = ["figures", "kernel_size", "layouts_agree", "near_identity", "roadmap", "translation"]

SMALL = "convnext_atto"
BORDER = 8
"""Tokens from the border that a 7 x 7 kernel reaches, and a shift of 3 beyond: 3 + 3, and two to spare."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("convnext", progress)


def _blocks() -> list[Any]:
    """Every block of a small variant."""
    body: Any = create_model(SMALL).eval().body
    return [block for stage in body.stages for block in stage.blocks]


@check
def layouts_agree(seed: int, progress: Progress) -> Measured:
    """Every block against the same block written with channels first."""
    worst = 0.0
    for block in _blocks():
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
            x = torch.randn(2, 14, 14, block.mixer.conv.in_channels)
            ours, theirs = block(x), channels_first(block, x.movedim(-1, 1)).movedim(1, -1)
        worst = max(worst, relative(ours, theirs))
    return Measured({"relative": worst}, worst <= 1e-6, f"largest difference {worst:.1e} of the output's scale")


def channels_first(block: Any, x: Tensor) -> Tensor:
    """The block on maps (B, C, H, W): norm over axis 1 by hand, 1 x 1 convolutions for the dense layers."""
    norm, channel = block.scheme.norms[1], block.channel

    def column(vector: Tensor) -> Tensor:
        return vector[:, None, None]

    def dense(layer: nn.Linear, y: Tensor) -> Tensor:
        return F.conv2d(y, layer.weight[:, :, None, None], layer.bias)

    conv = block.mixer.conv
    y = F.conv2d(x, conv.weight, conv.bias, padding=conv.padding, groups=conv.groups)
    mean = y.mean(1, keepdim=True)
    y = (y - mean) / ((y - mean).square().mean(1, keepdim=True) + norm.eps).sqrt()
    y = y * column(norm.weight) + column(norm.bias)
    y = dense(channel.reduce, F.gelu(dense(channel.expand, y)))
    return x + column(block.scheme.scales[1].weight) * y


@check
def translation(seed: int, progress: Progress) -> Measured:
    """A rolled input against the rolled output, inside the border."""
    block = _blocks()[0]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
        x = torch.randn(2, 40, 40, block.mixer.conv.in_channels)
        rolled, wanted = block(x.roll((3, 2), (1, 2))), block(x).roll((3, 2), (1, 2))
    inside = slice(BORDER, -BORDER)
    difference = (rolled - wanted)[:, inside, inside].abs().max().item()
    border = (rolled - wanted).abs().max().item()
    said = f"largest difference {difference:g} inside a border of {BORDER}, {border:.2g} on the border"
    return Measured({"inside": difference, "border": border}, difference == 0 and border > 0, said)


@check
def near_identity(seed: int, progress: Progress) -> Measured:
    """What fresh blocks add to a standard normal input."""
    changes = []
    with torch.no_grad():
        for block in _blocks():
            x = torch.randn(2, 14, 14, block.mixer.conv.in_channels)
            changes.append((block(x) - x).abs().max().item())
    said = f"largest change {max(changes):.1e}, over {len(changes)} blocks"
    value = {"largest": max(changes), "smallest": min(changes)}
    return Measured(value, min(changes) > 0 and max(changes) <= 1e-5, said)


Gigas = tuple[float, float]
STEPS: tuple[tuple[str, dict[str, Any], Gigas | None], ...] = (
    # what changes, the options, the paper's GFLOPs before and after (figure 2) where they are compared
    ("stage ratio 3:3:9:3", {"depths": [3, 3, 9, 3]}, (4.1, 4.5)),
    ("patch stem", {"stem": (4, 4, 0)}, (4.5, 4.4)),
    ("width 64 to 96", {"width": 96}, (2.4, 5.3)),
    ("inverted bottleneck", {"inverted": True}, (5.3, 4.6)),
    ("kernel 7", {"kernel": 7}, (4.1, 4.2)),
    ("GELU", {"activation": "gelu"}, (4.2, 4.2)),
    (
        "layer norm",
        {"norm": {"kind": "layer", "eps": 1e-6}},
        None,
    ),  # their tool counted norms, products are counted here
)
LEFT_OUT = "dense to depthwise convolution, its move to the front, fewer activations and fewer norms"


@check
def roadmap(seed: int, progress: Progress) -> Measured:
    """The road from a ResNet's shape to ConvNeXt-T, as changes of options; products counted after each step.

    Where a part of the road is no option of a block here, all of it has the form that ConvNeXt has.
    """
    options: dict[str, Any] = {
        "depths": [3, 4, 6, 3], "stem": (7, 4, 3), "width": 64, "inverted": False, "kernel": 3, "activation": "relu",
        "norm": "batch",
    }  # fmt: skip
    before = _cost(options)
    rows, right = {"start": before}, True
    words = []
    for name, change, published in STEPS:
        progress(name)
        options |= change
        after = _cost(options)
        rows[name] = after
        ours, theirs = after["macs"] - before["macs"], 0.0 if published is None else published[1] - published[0]
        right = right and (ours > 0) == (theirs > 0) and (ours < 0) == (theirs < 0)
        words.append(f"{name} {ours / 1e9:+.2f}G")
        before = after
    arrived = resolve(_spec(options) | {"name": "convnext_tiny"}) == resolve(spec_of("convnext_tiny"))
    said = f"{', '.join(words)}; the end is convnext_tiny's spec: {arrived}"
    theirs_said = ", ".join(
        f"{name} {published[0]:g} to {published[1]:g}G" for name, _, published in STEPS if published
    )
    note = f"Not an option of a block here, so not on this road: {LEFT_OUT}. Accuracies (figure 2) need ImageNet."
    return Measured(rows | {"arrived": arrived}, right and arrived, said, theirs_said, note)


def _spec(options: dict[str, Any]) -> dict[str, Any]:
    """A spec anywhere on the road. A bottleneck's stream is four times as wide as its inside; inverted, a quarter."""
    norm, (size, stride, padding) = options["norm"], options["stem"]
    width = options["width"] * (1 if options["inverted"] else 4)
    dims = [width * 2**i for i in range(4)]
    return {
        "stem": {"kind": "conv", "dim": width, "size": size, "stride": stride, "padding": padding, "norm": norm},
        "body": {
            "kind": "pyramid",
            "dims": dims,
            "depths": options["depths"],
            "mixer": {"kind": "depthwise_conv", "size": options["kernel"]},
            "channel": {
                "kind": "mlp",
                "ratio": 4.0 if options["inverted"] else 0.25,
                "activation": options["activation"],
            },
            "scheme": {"kind": "single", "norm": norm, "scale": 1e-6},
            "merge": {"kind": "conv", "size": 2, "padding": 0, "norm": norm},
        },
        "head": {"kind": "classes", "norm": norm, "order": "pool_norm"},
    }


def _cost(options: dict[str, Any]) -> dict[str, int]:
    model = as_model(_spec(options))
    return {"params": count_parameters(model).total, "macs": count_macs(model).total}
