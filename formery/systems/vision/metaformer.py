"""MetaFormer (arXiv 2111.11418): PoolFormer and the studies of other token mixers in the same skeleton."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import BadSpec
from ...weights import Dialect, Rule
from .. import published_layers as layers

SIZES: dict[str, tuple[list[int], list[int], float]] = {  # dims, depths, layer scale: table 1 and the authors' code
    "s12": ([64, 128, 320, 512], [2, 2, 6, 2], 1e-5),
    "s24": ([64, 128, 320, 512], [4, 4, 12, 4], 1e-5),
    "s36": ([64, 128, 320, 512], [6, 6, 18, 6], 1e-6),
    "m36": ([96, 192, 384, 768], [6, 6, 18, 6], 1e-6),
    "m48": ([96, 192, 384, 768], [8, 8, 24, 8], 1e-6),
}
ATTENTION = {"kind": "attention", "head_dim": 32, "bias": False}
STUDIES: dict[str, list[str]] = {  # mixers of the four stages (table 5); p pooling, a attention, f spatial FC
    "metaformer_id_s12": ["identity"] * 4,
    "metaformer_rand_s12": ["random"] * 4,  # the paper's 21M frozen numbers are one N x N matrix in every block
    "metaformer_pppa_s12": ["pooling", "pooling", "pooling", "attention"],
    "metaformer_ppaa_s12": ["pooling", "pooling", "attention", "attention"],
    "metaformer_pppf_s12": ["pooling", "pooling", "pooling", "spatial_fc"],
    "metaformer_ppff_s12": ["pooling", "pooling", "spatial_fc", "spatial_fc"],
}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    mixers = STUDIES.get(name, ["pooling"] * 4)
    dims, depths, scale = SIZES[name.rpartition("_")[2]]
    # The authors' attention studies norm each pixel's channels, all others the whole map.
    norm = "layer" if "attention" in mixers else "group1"
    first = mixers.index("attention") if "attention" in mixers else None
    positions = [{"kind": "learned", "std": 0.0} if i == first else None for i in range(4)]
    return {
        "stem": {"kind": "conv", "dim": dims[0], "size": 7, "stride": 4, "padding": 2},
        "body": {
            "kind": "pyramid",
            "dims": dims,
            "depths": depths,
            "mixer": [
                ATTENTION | {"heads": dim // 32} if m == "attention" else m for m, dim in zip(mixers, dims, strict=True)
            ],
            "scheme": {"kind": "pre", "norm": norm, "scale": scale},
            "positions": positions,
        },
        "head": {"kind": "classes", "norm": norm, "order": "norm_pool"},
    }


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a `poolformer` config of transformers describes; BadSpec names what formery has no part for."""
    sizes, strides, paddings = (
        list(config.get(key, default))
        for key, default in (("patch_sizes", (7, 3, 3, 3)), ("strides", (4, 2, 2, 2)), ("padding", (2, 1, 1, 1)))
    )
    geometry = list(zip(sizes, strides, paddings, strict=True))
    if len(set(geometry[1:])) > 1:
        raise BadSpec(f"patch_sizes, strides and padding are those of one merge between all stages, got {geometry[1:]}")
    stem, merge = (dict(zip(("size", "stride", "padding"), three, strict=True)) for three in geometry[:2])
    dims = list(config.get("hidden_sizes", (64, 128, 320, 512)))
    scale = float(config.get("layer_scale_init_value", 1e-5)) if config.get("use_layer_scale", True) else None
    return {
        "stem": {"kind": "conv", "dim": dims[0], "in_chans": config.get("num_channels", 3), **stem},
        "body": {
            "kind": "pyramid",
            "dims": dims,
            "depths": list(config.get("depths", (2, 2, 6, 2))),
            "mixer": {"kind": "pooling", "size": config.get("pool_size", 3)},
            "channel": {
                "kind": "mlp",
                "ratio": float(config.get("mlp_ratio", 4.0)),
                "activation": layers.activation(config),
            },
            "scheme": {"kind": "pre", "norm": "group1", "scale": scale},
            "merge": {"kind": "conv", **merge},
        },
        "head": {"kind": "classes", "norm": "group1", "num_classes": layers.num_labels(config)},
    }


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    stem, stages = resolved["stem"], resolved["body"]["stages"]
    block = stages[0]["blocks"][0]
    geometry = [stem, *(stage["merge"] for stage in stages[1:])]
    mixer, channel, scale = block["mixer"] or {}, block["channel"] or {}, block["scheme"].get("scale")
    return {
        "architectures": ["PoolFormerForImageClassification"],
        "model_type": "poolformer",
        "num_channels": stem["in_chans"],
        "num_encoder_blocks": len(stages),
        "hidden_sizes": [stem["dim"], *(stage["dim_out"] for stage in stages[1:])],
        "depths": [len(stage["blocks"]) for stage in stages],
        "patch_sizes": [part["size"] for part in geometry],
        "strides": [part["stride"] for part in geometry],
        "padding": [part["padding"] for part in geometry],
        "pool_size": mixer.get("size", 3),
        "mlp_ratio": channel.get("ratio", 4.0),
        "hidden_act": layers.hidden_act(channel.get("activation", "gelu")),
        "use_layer_scale": scale is not None,
        "layer_scale_init_value": scale or 1e-5,
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors', timm's and transformers' names, for a spec with any mixers."""
    authors = [Rule("stem.conv", "patch_embed.proj"), Rule("head.norm", "norm"), Rule("head.fc", "head")]
    number = 0  # of the element in the authors' flat `network`
    for i, stage in enumerate(resolved["body"]["stages"]):
        if i:
            authors.append(Rule(f"body.stages.{i}.merge.conv", f"network.{number}.proj"))
            number += 1
        if stage.get("position"):
            authors.append(
                Rule(f"body.stages.{i}.position.table", f"network.{number}.pos_embed", ones=(0,), channels_first=True)
            )
            number += 1
        block, theirs = f"body.stages.{i}.blocks.{{j}}", f"network.{number}.{{j}}"
        authors += [
            *(Rule(f"{block}.scheme.norms.{n}", f"{theirs}.norm{n + 1}") for n in (0, 1)),
            *(Rule(f"{block}.scheme.scales.{n}.weight", f"{theirs}.layer_scale_{n + 1}") for n in (0, 1)),
            Rule(f"{block}.mixer.qkv", f"{theirs}.token_mixer.qkv"),
            Rule(f"{block}.mixer.out", f"{theirs}.token_mixer.proj"),
            Rule(f"{block}.mixer.mix", f"{theirs}.token_mixer.fc"),
            Rule(f"{block}.mixer.matrix", f"{theirs}.token_mixer.random_matrix"),
            *_mlp(block, f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2"),
        ]
        number += 1
    pool_norm = {"head.order": "pool_norm", "head.norm": {"kind": "layer", "eps": 1e-6}}
    return [
        Dialect("authors", tuple(authors)),
        Dialect("timm", _timm(), pool_norm),
        Dialect("transformers", _transformers()),
    ]


def _mlp(block: str, *theirs: str) -> Iterator[Rule]:
    """The two dense layers of a block's MLP, 1x1 convolutions there, and what they are called."""
    for ours, their in zip(("expand", "reduce"), theirs, strict=True):
        yield Rule(f"{block}.channel.{ours}.weight", f"{their}.weight", ones=(2, 3))
        yield Rule(f"{block}.channel.{ours}.bias", f"{their}.bias")


def _timm() -> tuple[Rule, ...]:
    block, theirs = "body.stages.{i}.blocks.{j}", "stages.{i}.blocks.{j}"
    return (
        Rule("stem.conv", "stem.conv"),
        Rule("body.stages.{i}.merge.conv", "stages.{i}.downsample.conv"),
        *(Rule(f"{block}.scheme.norms.{n}", f"{theirs}.norm{n + 1}") for n in (0, 1)),
        *(Rule(f"{block}.scheme.scales.{n}.weight", f"{theirs}.layer_scale{n + 1}.scale") for n in (0, 1)),
        *_mlp(block, f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2"),
        Rule("head.norm", "head.norm"),
        Rule("head.fc", "head.fc"),
    )


def _transformers() -> tuple[Rule, ...]:
    block, theirs = "body.stages.{i}.blocks.{j}", "poolformer.encoder.block.{i}.{j}"
    return (
        Rule("stem.conv", "poolformer.encoder.patch_embeddings.0.projection"),
        Rule("body.stages.{i}.merge.conv", "poolformer.encoder.patch_embeddings.{i}.projection"),
        Rule(f"{block}.scheme.norms.0", f"{theirs}.before_norm"),
        Rule(f"{block}.scheme.norms.1", f"{theirs}.after_norm"),
        *(Rule(f"{block}.scheme.scales.{n}.weight", f"{theirs}.layer_scale_{n + 1}") for n in (0, 1)),
        *_mlp(block, f"{theirs}.output.conv1", f"{theirs}.output.conv2"),
        Rule("head.norm", "norm"),
        Rule("head.fc", "classifier"),
    )
