"""MetaFormer baselines (arXiv 2210.13452): CAFormer, ConvFormer, PoolFormerV2 and IdentityFormer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[list[int], list[int]]] = {  # dims, depths of IdentityFormer and PoolFormerV2
    "s12": ([64, 128, 320, 512], [2, 2, 6, 2]),
    "s24": ([64, 128, 320, 512], [4, 4, 12, 4]),
    "s36": ([64, 128, 320, 512], [6, 6, 18, 6]),
    "m36": ([96, 192, 384, 768], [6, 6, 18, 6]),
    "m48": ([96, 192, 384, 768], [8, 8, 24, 8]),
}
LARGE: dict[str, tuple[list[int], list[int]]] = {  # of ConvFormer and CAFormer
    "s18": ([64, 128, 320, 512], [3, 3, 9, 3]),
    "s36": ([64, 128, 320, 512], [3, 12, 18, 3]),
    "m36": ([96, 192, 384, 576], [3, 12, 18, 3]),
    "b36": ([128, 256, 512, 768], [3, 12, 18, 3]),
}
NORM = {"kind": "layer", "eps": 1e-6, "bias": False}
LAST_NORM = {"kind": "layer", "eps": 1e-6}
MIXERS: dict[str, list[str]] = {  # of the four stages
    "caformer": ["convolution", "convolution", "attention", "attention"],
    "convformer": ["convolution"] * 4,
    "poolformerv2": ["pooling"] * 4,
    "identityformer": ["identity"] * 4,
}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    family, _, size = name.rpartition("_")
    large = family in ("caformer", "convformer")
    dims, depths = (LARGE if large else SIZES)[size]
    norm = NORM if large else {"kind": "group1", "eps": 1e-6, "bias": False}
    # In the last two stages the stream is scaled by what a block learns.
    schemes = [{"kind": "pre", "norm": norm} | ({"stream_scale": 1.0} if stage > 1 else {}) for stage in range(4)]
    head = {"kind": "mlp_classes" if large else "classes", "norm": LAST_NORM, "order": "pool_norm"}
    return {
        "stem": {"kind": "conv", "dim": dims[0], "size": 7, "stride": 4, "padding": 2, "norm": NORM},
        "body": {
            "kind": "pyramid",
            "dims": dims,
            "depths": depths,
            "mixer": [_mixer(word, dim) for word, dim in zip(MIXERS[family], dims, strict=True)],
            "channel": {"kind": "mlp", "activation": "star_relu", "bias": False},
            "scheme": schemes,
            "merge": {"kind": "conv", "norm": NORM},
        },
        "head": head,
    }


def _mixer(word: str, dim: int) -> Any:
    if word == "convolution":
        return {"kind": "separable_conv", "ratio": 2.0, "size": 7, "activation": "star_relu", "bias": False}
    return {"kind": word, "heads": dim // 32, "bias": False, "out_bias": False} if word == "attention" else word


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, and timm's, whose head norms its hidden layer with another eps."""
    own = resolved["head"]["kind"] == "mlp_classes"
    timm = (
        Rule("stem", "stem"),
        Rule("body.stages.{i}.merge", "stages.{i}.downsample"),
        *_blocks(resolved, "stages.{i}.blocks.{j}", convolutions=True),
        Rule("head.norm", "head.norm"),
        *_classifier("head.fc", own=own),
    )
    authors = (
        Rule("stem.conv", "downsample_layers.0.conv"),
        Rule("stem.norm", "downsample_layers.0.post_norm"),
        Rule("body.stages.{i}.merge.conv", "downsample_layers.{i}.conv"),
        Rule("body.stages.{i}.merge.norm", "downsample_layers.{i}.pre_norm"),
        *_blocks(resolved, "stages.{i}.{j}", convolutions=False),
        Rule("head.norm", "norm"),
        *_classifier("head", own=own),
    )
    return [Dialect("authors", authors), Dialect("timm", timm, {"head.hidden_norm.eps": 1e-6} if own else {})]


def _classifier(theirs: str, *, own: bool) -> tuple[Rule, ...]:
    """The last layers: a network of its own, or one dense layer."""
    if not own:
        return (Rule("head.fc", theirs),)
    return (
        Rule("head.expand", f"{theirs}.fc1"),
        Rule("head.hidden_norm", f"{theirs}.norm"),
        Rule("head.fc", f"{theirs}.fc2"),
    )


def _blocks(resolved: Mapping[str, Any], theirs: str, *, convolutions: bool) -> list[Rule]:
    """Rules for the blocks. In timm dense layers are 1 x 1 `convolutions` in stages without attention."""
    rules: list[Rule] = []
    for i, stage in enumerate(resolved["body"]["stages"]):
        attends = any((block["mixer"] or {}).get("kind") == "attention" for block in stage["blocks"])
        maps = (2, 3) if convolutions and not attends else ()
        block, their = f"body.stages.{i}.blocks.{{j}}", theirs.replace("{i}", str(i))
        rules += [
            *(Rule(f"{block}.scheme.norms.{n}", f"{their}.norm{n + 1}") for n in (0, 1)),
            *(Rule(f"{block}.scheme.stream_scales.{n}.weight", f"{their}.res_scale{n + 1}.scale") for n in (0, 1)),
            Rule(f"{block}.mixer.qkv", f"{their}.token_mixer.qkv"),
            Rule(f"{block}.mixer.out", f"{their}.token_mixer.proj"),
            Rule(f"{block}.mixer.expand", f"{their}.token_mixer.pwconv1", ones=(2, 3) if convolutions else ()),
            Rule(f"{block}.mixer.activation", f"{their}.token_mixer.act1"),
            Rule(f"{block}.mixer.conv", f"{their}.token_mixer.dwconv"),
            Rule(f"{block}.mixer.reduce", f"{their}.token_mixer.pwconv2", ones=(2, 3) if convolutions else ()),
            Rule(f"{block}.channel.expand", f"{their}.mlp.fc1", ones=maps),
            Rule(f"{block}.channel.activation", f"{their}.mlp.act"),
            Rule(f"{block}.channel.reduce", f"{their}.mlp.fc2", ones=maps),
        ]
    return rules
