"""What ConvNeXt and ConvNeXt V2 have in common: sizes, the pyramid, and the published names of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..weights import Dialect, Rule

SIZES: dict[str, tuple[int, list[int]]] = {  # first width (doubling), depths
    "atto": (40, [2, 2, 6, 2]),
    "femto": (48, [2, 2, 6, 2]),
    "pico": (64, [2, 2, 6, 2]),
    "nano": (80, [2, 2, 8, 2]),
    "tiny": (96, [3, 3, 9, 3]),
    "small": (96, [3, 3, 27, 3]),
    "base": (128, [3, 3, 27, 3]),
    "large": (192, [3, 3, 27, 3]),
}
NORM = {"kind": "layer", "eps": 1e-6}

AUTHORS = {
    "mixer.conv": "dwconv",
    "scheme.norms.1": "norm",
    "channel.expand": "pwconv1",
    "channel.reduce": "pwconv2",
}
"""Our names inside a block and the authors'."""
TIMM = AUTHORS | {"mixer.conv": "conv_dw", "channel.expand": "mlp.fc1", "channel.reduce": "mlp.fc2"}
TRANSFORMERS = AUTHORS | {"scheme.norms.1": "layernorm"}
BLOCK = "body.stages.{i}.blocks.{j}"
Names = dict[str, str]


def widths(first: int) -> list[int]:
    """The four stages' widths."""
    return [first * 2**i for i in range(4)]


def head(**options: Any) -> dict[str, Any]:
    """Classes of the pooled features, normed behind the pooling."""
    return {"kind": "classes", "norm": NORM, "order": "pool_norm"} | options


def pyramid(dims: list[int], depths: list[int], *, channel: Any, scale: float | None = None) -> dict[str, Any]:
    """Stem and body; `scale` is the first value of the layer scales, none where it is None."""
    return {
        "stem": {"kind": "conv", "dim": dims[0], "size": 4, "stride": 4, "padding": 0, "norm": NORM},
        "body": {
            "kind": "pyramid",
            "dims": dims,
            "depths": depths,
            "mixer": "depthwise_conv",
            "channel": channel,
            "scheme": {"kind": "single", "norm": NORM, "scale": scale},
            "merge": {"kind": "conv", "size": 2, "padding": 0, "norm": NORM},
        },
    }


def authors(more: Names, *rules: Rule) -> Dialect:
    """The authors' names, `more` of them inside blocks, and further rules."""
    ends = _ends("downsample_layers.0.0", "downsample_layers.0.1", "norm", "head")
    merges = _merges("downsample_layers.{i}.0", "downsample_layers.{i}.1")
    return Dialect("authors", (*ends, *merges, *blocks(BLOCK, "stages.{i}.{j}", AUTHORS | more), *rules))


def timm(resolved: Mapping[str, Any], more: Names) -> Dialect:
    """timm's names; its own small sizes (first width below 96) keep the MLP as 1x1 convolutions."""
    small = int(resolved["stem"]["dim"]) < 96
    ends = _ends("stem.0", "stem.1", "head.norm", "head.fc")
    merges = _merges("stages.{i}.downsample.0", "stages.{i}.downsample.1")
    inside = blocks(BLOCK, "stages.{i}.blocks.{j}", TIMM | more, convs=small)
    return Dialect("timm", (*ends, *merges, *inside))


def transformers(root: str, more: Names, *rules: Rule) -> Dialect:
    """transformers' names below `root`, whose last norm has an eps of its own."""
    start, stages = f"{root}.embeddings", f"{root}.encoder.stages.{{i}}"
    ends = _ends(f"{start}.patch_embeddings", f"{start}.layernorm", f"{root}.layernorm", "classifier")
    merges = _merges(f"{stages}.downsampling_layer.0", f"{stages}.downsampling_layer.1")
    inside = blocks(BLOCK, f"{stages}.layers.{{j}}", TRANSFORMERS | more)
    return Dialect("transformers", (*ends, *merges, *inside, *rules), {"head.norm.eps": 1e-12})


def blocks(ours: str, theirs: str, names: Names, *, convs: bool = False) -> tuple[Rule, ...]:
    """Rules for the blocks `ours`; with `convs` the dense layers are 1x1 convolutions there."""
    dense = ("channel.expand", "channel.reduce") if convs else ()
    return (
        *(Rule(f"{ours}.{name}", f"{theirs}.{their}") for name, their in names.items()),
        *(Rule(f"{ours}.{name}.weight", f"{theirs}.{names[name]}.weight", ones=(2, 3)) for name in dense),
    )


def _ends(conv: str, norm: str, last: str, scores: str) -> tuple[Rule, ...]:
    return Rule("stem.conv", conv), Rule("stem.norm", norm), Rule("head.norm", last), Rule("head.fc", scores)


def _merges(norm: str, conv: str) -> tuple[Rule, ...]:
    return Rule("body.stages.{i}.merge.norm", norm), Rule("body.stages.{i}.merge.conv", conv)
