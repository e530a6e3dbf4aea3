"""CrossFormer (arXiv 2108.00154) and ++ (arXiv 2303.06908): tokens of several scales, attention near and far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[int, list[int]]] = {  # first width (doubling), depths: tables 1 of both papers
    "crossformer_t": (64, [1, 1, 8, 6]),
    "crossformer_s": (96, [2, 2, 6, 2]),
    "crossformer_b": (96, [2, 2, 18, 2]),
    "crossformer_l": (128, [2, 2, 18, 2]),
    "crossformerpp_s": (64, [2, 2, 18, 2]),
    "crossformerpp_b": (96, [2, 2, 18, 2]),
    "crossformerpp_l": (128, [2, 2, 18, 2]),
    "crossformerpp_h": (128, [6, 6, 18, 2]),
}
GROUPS: dict[str, list[tuple[int, int]]] = {  # tokens along a side of a group and interval, stage by stage
    "crossformer": [(7, 8), (7, 4), (7, 2), (7, 1)],
    "crossformerpp": [(4, 4), (4, 2), (14, 1), (7, 1)],
}
COOLING = {"mixer": {"kind": "depthwise_conv", "size": 3}, "channel": "none", "scheme": {"kind": "chain", "bare": [0]}}
"""The amplitude cooling layer of ++: convolution and norm, without a residual."""
EVERY = 3
"""Blocks from one cooling layer to the next."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    first, depths = SIZES[name]
    family = name.partition("_")[0]
    words: dict[str, Any] = {"cooling": COOLING}
    layouts = []
    for stage, (depth, (size, interval)) in enumerate(zip(depths, GROUPS[family], strict=True), start=1):
        near = {"kind": "window_attention", "window": size, "head_dim": 32, "position": "offset_mlp"}
        far = {"kind": "long_distance_attention", "size": size, "interval": interval, "head_dim": 32}
        words |= {f"near_{stage}": {"mixer": near}, f"far_{stage}": {"mixer": far}}
        layout = []
        for index in range(depth):
            layout.append(f"{'far' if index % 2 else 'near'}_{stage}")
            if family == "crossformerpp" and index % EVERY == EVERY - 1 and index < depth - 1:
                layout.append("cooling")
        layouts.append(" ".join(layout))
    return {
        "stem": {"kind": "cross_scale", "dim": first},
        "body": {
            "kind": "pyramid",
            "dims": [first * 2**i for i in range(4)],
            "layouts": layouts,
            "blocks": words,
            "merge": "cross_scale",
        },
        "head": "classes",
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, in which a cooling layer belongs to the block before it."""
    rules = [
        Rule("stem.convs.{i}", "patch_embed.projs.{i}"),
        Rule("stem.norm", "patch_embed.norm"),
        Rule("body.stages.{i}.merge.convs.{j}", "layers.{i-1}.downsample.reductions.{j}"),
        Rule("body.stages.{i}.merge.norm", "layers.{i-1}.downsample.norm"),
        Rule("head.norm", "norm"),
        Rule("head.fc", "head"),
    ]
    for number, stage in enumerate(resolved["body"]["stages"]):
        theirs = -1
        for index, block in enumerate(stage["blocks"]):
            cooling = block["scheme"]["kind"] == "chain"
            theirs += not cooling
            names = COOLED if cooling else BLOCK
            ours, their = f"body.stages.{number}.blocks.{index}", f"layers.{number}.blocks.{theirs}"
            rules += [Rule(f"{ours}.{part}", f"{their}.{name}") for part, name in names.items()]
    return [Dialect("authors", tuple(rules), ignores=DERIVED)]


DERIVED = (r"\.relative_position_index$", r"\.attn_mask$", r"\.biases$", r"_mask$")
BLOCK = {
    "scheme.norms.0": "norm1",
    "mixer.position.project": "attn.pos.pos_proj",
    **{f"mixer.position.norms.{i}": f"attn.pos.pos{i + 1}.0" for i in range(3)},
    **{f"mixer.position.layers.{i}": f"attn.pos.pos{i + 1}.2" for i in range(3)},
    "mixer.qkv": "attn.qkv",
    "mixer.out": "attn.proj",
    "scheme.norms.1": "norm2",
    "channel.expand": "mlp.fc1",
    "channel.reduce": "mlp.fc2",
}
COOLED = {"mixer.conv": "ex_conv", "scheme.norms.1": "ex_ln"}
