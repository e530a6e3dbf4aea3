"""EfficientFormer (arXiv 2206.01191) and EfficientFormerV2 (arXiv 2212.08059)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[list[int], list[int], int]] = {  # depths, dims, attention blocks at the end: tables 4 and 5
    "efficientformer_l1": ([3, 2, 6, 4], [48, 96, 224, 448], 1),
    "efficientformer_l3": ([4, 4, 12, 6], [64, 128, 320, 512], 4),
    "efficientformer_l7": ([6, 6, 18, 8], [96, 192, 384, 768], 8),
}
SIZES_V2: dict[str, tuple[list[int], list[int], int, tuple[range, range]]] = {
    # depths, dims, attention blocks at the end of stages 3 and 4, blocks there of ratio 3: the authors' code
    "efficientformerv2_s0": ([2, 2, 6, 4], [32, 48, 96, 176], 2, (range(1, 4), range(1, 3))),
    "efficientformerv2_s1": ([3, 3, 9, 6], [32, 48, 120, 224], 2, (range(2, 6), range(2, 4))),
    "efficientformerv2_s2": ([4, 4, 12, 8], [32, 64, 144, 288], 4, (range(2, 8), range(2, 6))),
    "efficientformerv2_l": ([5, 5, 15, 10], [40, 80, 192, 384], 6, (range(4, 11), range(3, 7))),
}
HEADS, KEY_DIM, VALUE_DIM = 8, 32, 128
SCALE = 1e-5
"""First layer scale."""
UNNORMED = {"kind": "pre", "norm": None, "scale": SCALE}
"""Blocks of convolutions have no norm in front: there is one behind each convolution."""
MERGE = {"kind": "conv", "out_norm": "batch"}
ZEROS = {"kind": "distance_table", "std": 0.0}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    return _first(*SIZES[name]) if name in SIZES else _second(*SIZES_V2[name])


def _stem(dim: int, activation: str) -> dict[str, Any]:
    return {"kind": "convs", "widths": [dim // 2, dim], "activation": activation}


def _first(depths: list[int], dims: list[int], num_attention: int) -> dict[str, Any]:
    attention = {"kind": "biased_attention", "heads": HEADS, "key_dim": KEY_DIM, "value_dim": VALUE_DIM}
    blocks = {
        "convolutional": {
            "mixer": "pooling",
            "channel": {"kind": "normed_mlp", "last": None},
            "scheme": UNNORMED,
        },
        "attentive": {
            "mixer": attention | {"position": ZEROS},
            "channel": "mlp",
            "scheme": UNNORMED | {"norm": "layer"},
        },
    }
    attentive = [0, 0, 0, num_attention]
    words = [["convolutional"] * (d - n) + ["attentive"] * n for d, n in zip(depths, attentive, strict=True)]
    return {
        "stem": _stem(dims[0], "relu"),
        "body": {
            "kind": "pyramid",
            "dims": dims,
            "layouts": [" ".join(stage) for stage in words],
            "blocks": blocks,
            "merge": MERGE,
        },
        "head": {"kind": "distilled", "norm": "layer"},
    }


def _second(depths: list[int], dims: list[int], num_attention: int, narrow: tuple[range, range]) -> dict[str, Any]:
    merges = [None, MERGE, MERGE, {"kind": "convolved_attention", "position": ZEROS | {"stride": 2}}]
    stages = []
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        late, stride = i >= 2, 2 if i == 2 else 1
        attention = {
            "kind": "convolved_attention",
            "heads": HEADS,
            "key_dim": KEY_DIM,
            "value_dim": VALUE_DIM,
            "stride": stride,
            "position": ZEROS,
        }
        blocks = [
            {
                "kind": "block",
                "mixer": attention if late and j >= depth - num_attention else None,
                "channel": {"kind": "inverted_bottleneck", "ratio": 3.0 if late and j in narrow[i - 2] else 4.0},
                "scheme": UNNORMED,
            }
            for j in range(depth)
        ]
        stages.append({"kind": "stack", "blocks": blocks, "dim_out": dim, "merge": merges[i]})
    return {
        "stem": _stem(dims[0], "gelu"),
        "body": {"kind": "pyramid", "stages": stages},
        "head": {"kind": "distilled", "norm": "batch"},
    }


Pair = tuple[str, str]
"""Published names of a layer and of the norm behind it."""


@dataclass(frozen=True)
class Names:
    """How a release names its layers."""

    stem: tuple[Pair, Pair]
    merge: str
    """Of a stage numbered i, behind 2 i - 1 parts: blocks and merges count alike in the authors' network."""
    merge_conv: Pair
    attentive_conv: Pair
    """The convolution beside the attention of a merge."""
    block: str
    scale: str
    hidden: tuple[Pair, Pair, Pair]
    """Of a feed-forward network: expand, convolve, reduce."""
    layers: Mapping[str, Pair]
    """Of attention among convolutions."""
    distilled: str


NESTED: dict[str, Pair] = {n: (f"{n}.conv", f"{n}.bn") for n in ("stride_conv", "q", "k", "v", "v_local", "proj")}
AUTHORS = Names(
    stem=(("patch_embed.0", "patch_embed.1"), ("patch_embed.3", "patch_embed.4")),
    merge="network.{odd}",
    merge_conv=("proj", "norm"),
    attentive_conv=("conv", "bn"),
    block="network.{even}.{j}",
    scale="layer_scale_{n}",
    hidden=(("fc1", "norm1"), ("mid", "mid_norm"), ("fc2", "norm2")),
    layers={n: (f"{n}.0", f"{n}.1") for n in ("stride_conv", "q", "k", "v", "v_local")}
    | {"proj": ("proj.1", "proj.2"), "query": ("q.proj.0", "q.proj.1"), "near": ("q.local.0", "")},
    distilled="dist_head",
)
TIMM = Names(
    stem=(("stem.conv1", "stem.norm1"), ("stem.conv2", "stem.norm2")),
    merge="stages.{i}.downsample",
    merge_conv=("conv", "norm"),
    attentive_conv=("conv", "norm"),
    block="stages.{i}.blocks.{j}",
    scale="ls{n}.gamma",
    hidden=AUTHORS.hidden,
    layers=NESTED | {"query": ("q.proj.conv", "q.proj.bn"), "near": ("q.local", "")},
    distilled="head_dist",
)
TIMM_V2 = replace(
    TIMM,
    stem=(("stem.conv1.conv", "stem.conv1.bn"), ("stem.conv2.conv", "stem.conv2.bn")),
    merge_conv=("conv.conv", "conv.bn"),
    attentive_conv=("conv.conv", "conv.bn"),
    hidden=(("fc1.conv", "fc1.bn"), ("mid.conv", "mid.bn"), ("fc2.conv", "fc2.bn")),
)
DERIVED = (r"attention_bias_idxs$",)
"""What published files hold beside weights: numbers of distances, which follow from the grid."""


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names and timm's."""
    second = any(_in_maps(block) == "inverted_bottleneck" for block in resolved["body"]["stages"][0]["blocks"])
    return [
        Dialect("authors", tuple(_rules(resolved, AUTHORS)), ignores=DERIVED),
        Dialect("timm", tuple(_rules(resolved, TIMM_V2 if second else TIMM)), ignores=DERIVED),
    ]


def _rules(resolved: Mapping[str, Any], names: Names) -> Iterator[Rule]:
    for i, pair in enumerate(names.stem):
        yield Rule(f"stem.convs.{i}", pair[0])
        yield Rule(f"stem.norms.{i}", pair[1])
    yield Rule("head.norm", "norm")
    yield Rule("head.fc", "head")
    yield Rule("head.fc_distilled", names.distilled)
    for i, stage in enumerate(resolved["body"]["stages"]):
        ours, theirs = f"body.stages.{i}", names.merge.format(i=i, odd=2 * i - 1)
        if stage["merge"] is not None:
            yield from _merge(f"{ours}.merge", theirs, stage["merge"], names)
        marker = 0  # from here on tokens are rows in the authors' code, and what makes them rows has a number
        for j, block in enumerate(stage["blocks"]):
            marker = marker or int(not _in_maps(block))
            place = names.block.format(i=i, even=2 * i, j=j + marker)
            yield from _block(f"{ours}.blocks.{j}", place, block, names)


def _in_maps(block: Mapping[str, Any]) -> str:
    """The feed-forward network of a block whose layers were published as convolutions of maps; empty for others."""
    kind = str((block["channel"] or {}).get("kind"))
    return kind if kind in ("normed_mlp", "inverted_bottleneck") else ""


def _merge(ours: str, theirs: str, merge: Mapping[str, Any], names: Names) -> Iterator[Rule]:
    attentive = merge["kind"] == "convolved_attention"
    conv, norm = names.attentive_conv if attentive else names.merge_conv
    yield Rule(f"{ours}.conv", f"{theirs}.{conv}")
    yield Rule(f"{ours}.{'conv_norm' if attentive else 'out_norm'}", f"{theirs}.{norm}")
    if attentive:
        keys, values = merge["heads"] * merge["key_dim"], merge["heads"] * merge["value_dim"]
        theirs = f"{theirs}.attn"
        yield from _common(ours, theirs, names)
        yield from _layers(f"{ours}.q", theirs, [names.layers["query"]], (keys,))
        yield from _layers(f"{ours}.kv", theirs, [names.layers[n] for n in "kv"], (keys, values))
        yield Rule(f"{ours}.near", f"{theirs}.{names.layers['near'][0]}")


def _block(ours: str, theirs: str, block: Mapping[str, Any], names: Names) -> Iterator[Rule]:
    mixer, maps = block["mixer"], _in_maps(block)
    ones = (1, 2) if maps == "inverted_bottleneck" and names is AUTHORS else ()
    for n, number in enumerate((1, 2) if mixer else (2,)):
        yield Rule(f"{ours}.scheme.scales.{n}.weight", f"{theirs}.{names.scale.format(n=number)}", ones=ones)
        yield Rule(f"{ours}.scheme.norms.{n}", f"{theirs}.norm{number}")
    if mixer and mixer["kind"] == "biased_attention":
        yield from attention(f"{ours}.mixer", f"{theirs}.token_mixer", mixer)
    elif mixer and mixer["kind"] == "convolved_attention":
        yield from _convolved(f"{ours}.mixer", f"{theirs}.token_mixer", mixer, names)
    if not maps:
        yield Rule(f"{ours}.channel.expand", f"{theirs}.mlp.fc1")
        yield Rule(f"{ours}.channel.reduce", f"{theirs}.mlp.fc2")
        return
    for layer, pair in zip(("expand", "conv", "reduce"), names.hidden, strict=True):
        yield from _layers(f"{ours}.channel.{layer}", f"{theirs}.mlp", [pair], pointwise=layer != "conv")


def _layers(
    ours: str, theirs: str, pairs: list[Pair], sizes: tuple[int, ...] | None = None, *, pointwise: bool = True
) -> Iterator[Rule]:
    """One of our layers with its norm, which were published as several, `pointwise` as convolutions of 1 x 1."""
    whole = sizes if len(pairs) > 1 else None
    yield Rule(
        f"{ours}.weight", tuple(f"{theirs}.{n}.weight" for n, _ in pairs), whole, ones=(2, 3) if pointwise else ()
    )
    yield Rule(f"{ours}.bias", tuple(f"{theirs}.{n}.bias" for n, _ in pairs), whole)
    yield Rule(f"{ours}_norm", tuple(f"{theirs}.{n}" for _, n in pairs), whole)


def attention(ours: str, theirs: str, mixer: Mapping[str, Any]) -> Iterator[Rule]:
    """The first version's: rows of the one layer stand by head, each with its query, key and value."""
    keys = mixer["key_dim"]
    yield Rule(f"{ours}.qkv", f"{theirs}.qkv", pieces=((mixer["heads"], (keys, keys, mixer["value_dim"] or keys)),))
    yield Rule(f"{ours}.out", f"{theirs}.proj")
    yield Rule(f"{ours}.position.table", f"{theirs}.attention_biases", transpose=True)


def _convolved(ours: str, theirs: str, mixer: Mapping[str, Any], names: Names) -> Iterator[Rule]:
    """The second version's: three layers, which are one here."""
    keys, values = mixer["heads"] * mixer["key_dim"], mixer["heads"] * mixer["value_dim"]
    yield from _common(ours, theirs, names)
    yield from _layers(f"{ours}.down", theirs, [names.layers["stride_conv"]], pointwise=False)
    yield from _layers(f"{ours}.qkv", theirs, [names.layers[n] for n in "qkv"], (keys, keys, values))
    for part, number in (("before", 1), ("behind", 2)):
        yield Rule(f"{ours}.{part}.weight", f"{theirs}.talking_head{number}.weight", ones=(2, 3))
        yield Rule(f"{ours}.{part}.bias", f"{theirs}.talking_head{number}.bias")


def _common(ours: str, theirs: str, names: Names) -> Iterator[Rule]:
    """What attention among convolutions has in blocks and merges."""
    yield Rule(f"{ours}.position.table", f"{theirs}.attention_biases", transpose=True)
    yield from _layers(f"{ours}.local", theirs, [names.layers["v_local"]], pointwise=False)
    yield from _layers(f"{ours}.out", theirs, [names.layers["proj"]])
