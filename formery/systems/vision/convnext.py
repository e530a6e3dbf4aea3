"""ConvNeXt (arXiv 2201.03545): a convolutional network in a Transformer's skeleton, as pyramid and isotropic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadSpec
from ...weights import Dialect, Rule
from .. import published_layers as layers

SIZES: dict[str, tuple[int, list[int]]] = {  # first width (doubling), depths: section 3; atto to nano are timm's own
    "atto": (40, [2, 2, 6, 2]),
    "femto": (48, [2, 2, 6, 2]),
    "pico": (64, [2, 2, 6, 2]),
    "nano": (80, [2, 2, 8, 2]),
    "tiny": (96, [3, 3, 9, 3]),
    "small": (96, [3, 3, 27, 3]),
    "base": (128, [3, 3, 27, 3]),
    "large": (192, [3, 3, 27, 3]),
    "xlarge": (256, [3, 3, 27, 3]),
}
ISOTROPIC: dict[str, tuple[int, int]] = {"small": (384, 18), "base": (768, 18), "large": (1024, 36)}  # width, depth
NORM = {"kind": "layer", "eps": 1e-6}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    size = name.rpartition("_")[2]
    head = {"kind": "classes", "norm": NORM, "order": "pool_norm"}
    if name.startswith("convnext_isotropic"):
        dim, depth = ISOTROPIC[size]
        blocks = {"mixer": "depthwise_conv", "scheme": {"kind": "single", "norm": NORM}}  # no layer scale
        stem = {"kind": "conv", "dim": dim, "size": 16, "stride": 16, "padding": 0}
        return {"stem": stem, "body": {"kind": "stack", "depth": depth, **blocks}, "head": head}
    first, depths = SIZES[size]
    return _pyramid([first * 2**i for i in range(4)], depths, scale=1e-6) | {"head": head}


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a `convnext` config of transformers describes; BadSpec names what formery has no part for."""
    stem = {
        "size": config.get("patch_size", 4),
        "stride": config.get("patch_size", 4),
        "img_size": config.get("image_size", 224),
        "in_chans": config.get("num_channels", 3),
    }
    scale = float(config.get("layer_scale_init_value", 1e-6))
    built = _pyramid(
        list(config.get("hidden_sizes", (96, 192, 384, 768))),
        list(config.get("depths", (3, 3, 9, 3))),
        scale=scale if scale > 0 else None,  # as in the authors' code, none where it would begin at 0
        activation=layers.activation(config),
    )
    norm = {"kind": "layer", "eps": float(config.get("layer_norm_eps", 1e-12))}
    head = {"kind": "classes", "norm": norm, "order": "pool_norm", "num_classes": layers.num_labels(config)}
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


def _pyramid(dims: list[int], depths: list[int], *, scale: float | None, activation: str = "gelu") -> dict[str, Any]:
    """Stem and body."""
    return {
        "stem": {"kind": "conv", "dim": dims[0], "size": 4, "stride": 4, "padding": 0, "norm": NORM},
        "body": {
            "kind": "pyramid",
            "dims": dims,
            "depths": depths,
            "mixer": "depthwise_conv",
            "channel": {"kind": "mlp", "activation": activation},
            "scheme": {"kind": "single", "norm": NORM, "scale": scale},
            "merge": {"kind": "conv", "size": 2, "padding": 0, "norm": NORM},
        },
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, and for pyramids timm's and transformers' as well."""
    if "stages" not in resolved["body"]:
        return [Dialect("authors", (Rule("stem.conv", "stem"), *_blocks("body.", "", AUTHORS), *_head("norm", "head")))]
    return [
        Dialect("authors", _authors()),
        Dialect("timm", _timm(small=_first_width(resolved) < 96)),
        Dialect("transformers", _transformers(), {"head.norm.eps": 1e-12}),
    ]


AUTHORS = {"conv": "dwconv", "norm": "norm", "expand": "pwconv1", "reduce": "pwconv2", "scale": "gamma"}
TIMM = {"conv": "conv_dw", "norm": "norm", "expand": "mlp.fc1", "reduce": "mlp.fc2", "scale": "gamma"}
TRANSFORMERS = AUTHORS | {"norm": "layernorm", "scale": "layer_scale_parameter"}


def _first_width(resolved: Mapping[str, Any]) -> int:
    return int(resolved["stem"]["dim"])


def _head(norm: str, scores: str) -> tuple[Rule, ...]:
    return Rule("head.norm", norm), Rule("head.fc", scores)


def _blocks(ours: str, theirs: str, names: Mapping[str, str], *, convs: bool = False) -> tuple[Rule, ...]:
    """Rules for the blocks below `ours` and `theirs`; with `convs` the dense layers are 1x1 convolutions there."""
    block, their = f"{ours}blocks.{{j}}", f"{theirs or 'blocks.'}{{j}}"
    return (
        Rule(f"{block}.mixer.conv", f"{their}.{names['conv']}"),
        Rule(f"{block}.scheme.norms.1", f"{their}.{names['norm']}"),
        Rule(f"{block}.scheme.scales.1.weight", f"{their}.{names['scale']}"),
        *(Rule(f"{block}.channel.{n}", f"{their}.{names[n]}") for n in ("expand", "reduce")),
        *(
            Rule(f"{block}.channel.{n}.weight", f"{their}.{names[n]}.weight", ones=(2, 3))
            for n in ("expand", "reduce")
            if convs
        ),
    )


def _authors() -> tuple[Rule, ...]:
    return (
        Rule("stem.conv", "downsample_layers.0.0"),
        Rule("stem.norm", "downsample_layers.0.1"),
        Rule("body.stages.{i}.merge.norm", "downsample_layers.{i}.0"),
        Rule("body.stages.{i}.merge.conv", "downsample_layers.{i}.1"),
        *_blocks("body.stages.{i}.", "stages.{i}.", AUTHORS),
        *_head("norm", "head"),
        Rule("head.norms.{i}", "norm{i}"),
    )


def _timm(*, small: bool) -> tuple[Rule, ...]:
    """timm's own small sizes (first width below 96) keep the MLP as 1x1 convolutions."""
    return (
        Rule("stem.conv", "stem.0"),
        Rule("stem.norm", "stem.1"),
        Rule("body.stages.{i}.merge.norm", "stages.{i}.downsample.0"),
        Rule("body.stages.{i}.merge.conv", "stages.{i}.downsample.1"),
        *_blocks("body.stages.{i}.", "stages.{i}.blocks.", TIMM, convs=small),
        *_head("head.norm", "head.fc"),
    )


def _transformers() -> tuple[Rule, ...]:
    stages = "convnext.encoder.stages.{i}"
    return (
        Rule("stem.conv", "convnext.embeddings.patch_embeddings"),
        Rule("stem.norm", "convnext.embeddings.layernorm"),
        Rule("body.stages.{i}.merge.norm", f"{stages}.downsampling_layer.0"),
        Rule("body.stages.{i}.merge.conv", f"{stages}.downsampling_layer.1"),
        *_blocks("body.stages.{i}.", f"{stages}.layers.", TRANSFORMERS),
        *_head("convnext.layernorm", "classifier"),
    )
