"""ConvNeXt V2 (arXiv 2301.00808): a global response norm in every MLP, and no layer scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[int, list[int]]] = {  # first width (doubling), depths: appendix A; small is timm's own
    "atto": (40, [2, 2, 6, 2]),
    "femto": (48, [2, 2, 6, 2]),
    "pico": (64, [2, 2, 6, 2]),
    "nano": (80, [2, 2, 8, 2]),
    "tiny": (96, [3, 3, 9, 3]),
    "small": (96, [3, 3, 27, 3]),
    "base": (128, [3, 3, 27, 3]),
    "large": (192, [3, 3, 27, 3]),
    "huge": (352, [3, 3, 27, 3]),
}
NORM = {"kind": "layer", "eps": 1e-6}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    first, depths = SIZES[name.rpartition("_")[2]]
    return {
        "stem": {"kind": "conv", "dim": first, "size": 4, "stride": 4, "padding": 0, "norm": NORM},
        "body": {
            "kind": "pyramid",
            "dims": [first * 2**i for i in range(4)],
            "depths": depths,
            "mixer": "depthwise_conv",
            "channel": "grn_mlp",
            "scheme": {"kind": "single", "norm": NORM},
            "merge": {"kind": "conv", "size": 2, "padding": 0, "norm": NORM},
        },
        "head": {"kind": "classes", "norm": NORM, "order": "pool_norm"},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, timm's and transformers'."""
    small = int(resolved["stem"]["dim"]) < 96  # as 1x1 convolutions in timm
    return [
        Dialect(
            "authors",
            (
                *_ends("downsample_layers.0.0", "downsample_layers.0.1", "norm", "head"),
                *_merges("downsample_layers.{i}.0", "downsample_layers.{i}.1"),
                *_blocks("stages.{i}.{j}", AUTHORS),
                Rule(f"{BLOCK}.channel.grn.weight", "stages.{i}.{j}.grn.gamma", ones=(0, 1, 2)),
                Rule(f"{BLOCK}.channel.grn.bias", "stages.{i}.{j}.grn.beta", ones=(0, 1, 2)),
            ),
        ),
        Dialect(
            "timm",
            (
                *_ends("stem.0", "stem.1", "head.norm", "head.fc"),
                *_merges("stages.{i}.downsample.0", "stages.{i}.downsample.1"),
                *_blocks("stages.{i}.blocks.{j}", TIMM, ones=(2, 3) if small else ()),
            ),
        ),
        Dialect(
            "transformers",
            (
                *_ends(
                    "convnextv2.embeddings.patch_embeddings",
                    "convnextv2.embeddings.layernorm",
                    "convnextv2.layernorm",
                    "classifier",
                ),
                *_merges(*(f"convnextv2.encoder.stages.{{i}}.downsampling_layer.{n}" for n in (0, 1))),
                *_blocks("convnextv2.encoder.stages.{i}.layers.{j}", TRANSFORMERS, ones=(0, 1, 2), of=("grn",)),
            ),
            {"head.norm.eps": 1e-12},
        ),
    ]


BLOCK = "body.stages.{i}.blocks.{j}"
AUTHORS = {"conv": "dwconv", "norm": "norm", "expand": "pwconv1", "grn": "grn", "reduce": "pwconv2"}
TIMM = {"conv": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "grn": "mlp.grn", "reduce": "mlp.fc2"}
TRANSFORMERS = AUTHORS | {"norm": "layernorm"}
DENSE = ("expand", "reduce")


def _ends(conv: str, norm: str, last: str, scores: str) -> tuple[Rule, ...]:
    return Rule("stem.conv", conv), Rule("stem.norm", norm), Rule("head.norm", last), Rule("head.fc", scores)


def _merges(norm: str, conv: str) -> tuple[Rule, ...]:
    return Rule("body.stages.{i}.merge.norm", norm), Rule("body.stages.{i}.merge.conv", conv)


def _blocks(
    theirs: str, names: Mapping[str, str], *, ones: tuple[int, ...] = (), of: tuple[str, ...] = DENSE
) -> tuple[Rule, ...]:
    """Rules for the blocks; the weights `of` some layers have axes of length 1 there."""
    return (
        Rule(f"{BLOCK}.mixer.conv", f"{theirs}.{names['conv']}"),
        Rule(f"{BLOCK}.scheme.norms.1", f"{theirs}.{names['norm']}"),
        *(Rule(f"{BLOCK}.channel.{n}", f"{theirs}.{names[n]}") for n in (*DENSE, "grn")),
        *(
            Rule(f"{BLOCK}.channel.{n}.{tensor}", f"{theirs}.{names[n]}.{tensor}", ones=ones)
            for n in of
            for tensor in ("weight", "bias")
            if ones and not (n in DENSE and tensor == "bias")
        ),
    )
