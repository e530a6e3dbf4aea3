"""ConvNeXt (arXiv 2201.03545): a convolutional network in a Transformer's skeleton, as pyramid and isotropic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadSpec
from ...weights import Dialect, Rule
from .. import convnext_pyramid as common
from .. import published_layers as layers

SIZES = common.SIZES | {"xlarge": (256, [3, 3, 27, 3])}
"""First width and depths: section 3; atto to nano are timm's own."""
ISOTROPIC: dict[str, tuple[int, int]] = {"small": (384, 18), "base": (768, 18), "large": (1024, 36)}  # width, depth


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    size = name.rpartition("_")[2]
    if name.startswith("convnext_isotropic"):
        dim, depth = ISOTROPIC[size]
        blocks = {"mixer": "depthwise_conv", "scheme": {"kind": "single", "norm": common.NORM}}  # no layer scale
        stem = {"kind": "conv", "dim": dim, "size": 16, "stride": 16, "padding": 0}
        return {"stem": stem, "body": {"kind": "stack", "depth": depth, **blocks}, "head": common.head()}
    first, depths = SIZES[size]
    return common.pyramid(common.widths(first), depths, channel="mlp", scale=1e-6) | {"head": common.head()}


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a `convnext` config of transformers describes; BadSpec names what formery has no part for."""
    stem = {
        "size": config.get("patch_size", 4),
        "stride": config.get("patch_size", 4),
        "img_size": config.get("image_size", 224),
        "in_chans": config.get("num_channels", 3),
    }
    scale = float(config.get("layer_scale_init_value", 1e-6))
    built = common.pyramid(
        list(config.get("hidden_sizes", (96, 192, 384, 768))),
        list(config.get("depths", (3, 3, 9, 3))),
        scale=scale if scale > 0 else None,  # as in the authors' code, none where it would begin at 0
        channel={"kind": "mlp", "activation": layers.activation(config)},
    )
    norm = {"kind": "layer", "eps": float(config.get("layer_norm_eps", 1e-12))}
    head = common.head(norm=norm, num_classes=layers.num_labels(config))
    return built | {"stem": built["stem"] | stem, "head": head}


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    stem, stages = resolved["stem"], resolved["body"].get("stages")
    if stages is None:
        raise BadSpec("transformers' ConvNext has stages; an isotropic one has no config there")
    block = stages[0]["blocks"][0]
    return {
        "architectures": ["ConvNextForImageClassification"],
        "model_type": "convnext",
        "patch_size": stem["size"],
        "image_size": stem["img_size"],
        "num_channels": stem["in_chans"],
        "num_stages": len(stages),
        "hidden_sizes": [stem["dim"], *(stage["dim_out"] for stage in stages[1:])],
        "depths": [len(stage["blocks"]) for stage in stages],
        "hidden_act": layers.hidden_act((block["channel"] or {}).get("activation", "gelu")),
        "layer_norm_eps": (resolved["head"]["norm"] or {}).get("eps"),
        "layer_scale_init_value": block["scheme"].get("scale") or 0.0,
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, and for pyramids timm's and transformers' as well."""
    if "stages" not in resolved["body"]:
        blocks = common.blocks("body.blocks.{j}", "blocks.{j}", common.AUTHORS | {SCALE: "gamma"})
        ends = Rule("stem.conv", "stem"), Rule("head.norm", "norm"), Rule("head.fc", "head")
        return [Dialect("authors", (*ends, *blocks))]
    return [
        common.authors({SCALE: "gamma"}, Rule("head.norms.{i}", "norm{i}")),
        common.timm(resolved, {SCALE: "gamma"}),
        common.transformers("convnext", {SCALE: "layer_scale_parameter"}),
    ]


SCALE = "scheme.scales.1.weight"
"""The layer scale inside a block."""
