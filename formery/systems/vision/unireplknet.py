"""UniRepLKNet (arXiv 2311.15599): large depthwise kernels in few blocks, small ones in many, merged for inference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...parts.mixers.large_kernel import BRANCHES
from ...weights import Dialect, Rule

SIZES: dict[str, tuple[int, list[int]]] = {  # first width (doubling), depths: table 5
    "a": (40, [2, 2, 6, 2]),
    "f": (48, [2, 2, 6, 2]),
    "p": (64, [2, 2, 6, 2]),
    "n": (80, [2, 2, 8, 2]),
    "t": (80, [3, 3, 18, 3]),
    "s": (96, [3, 3, 27, 3]),
    "b": (128, [3, 3, 27, 3]),
    "l": (192, [3, 3, 27, 3]),
    "xl": (256, [3, 3, 27, 3]),
}
LARGE, SMALL = 13, 3
NORM = {"kind": "layer", "eps": 1e-6}
CYCLES = {18: "(large small)*9", 27: "(large small*2)*9"}
"""Blocks of the third stage by their number; fewer than these have the large kernel throughout (section 3.1)."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    first, depths = SIZES[name.rpartition("_")[2]]
    layouts = [f"small*{depths[0]}", *(CYCLES.get(depth, f"large*{depth}") for depth in depths[1:])]
    blocks = {
        "large": {"mixer": {"kind": "large_kernel", "size": LARGE}},
        "small": {"mixer": {"kind": "large_kernel", "size": SMALL, "dilated": False}},
    }
    return {
        "stem": {
            "kind": "convs",
            "widths": [first // 2, first],
            "norm": NORM,
            "activation": "gelu",
            "last_activation": False,
        },
        "body": {
            "kind": "pyramid",
            "dims": [first * 2**i for i in range(4)],
            "layouts": layouts,
            "blocks": blocks,
            "channel": {"kind": "grn_mlp", "norm": "batch"},
            "scheme": {"kind": "single", "norm": None, "scale": 1e-6},
            "merge": {"kind": "conv", "out_norm": NORM},
        },
        "head": {"kind": "classes", "norm": NORM, "order": "pool_norm"},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names for the network that learns, and those for the merged one that they deploy."""
    blocks = [
        (f"body.stages.{i}.blocks.{j}", block)
        for i, stage in enumerate(resolved["body"].get("stages", ()))
        for j, block in enumerate(stage["blocks"])
    ]
    rules, merged = _rules(blocks), _structure(blocks, merged=True)
    return [
        Dialect("authors", rules, _structure(blocks, merged=False)),
        Dialect("authors_merged", tuple(r for r in rules if not GONE.search(str(r.ours))), merged),
    ]


GONE = re.compile(r"mixer\.(conv_norm|branches|norm)|channel\.(grn\.bias|norm)|scales")
"""What merging leaves nothing of."""
Blocks = list[tuple[str, Mapping[str, Any]]]


def _kind(part: Any) -> Any:
    return part["kind"] if isinstance(part, Mapping) else part


def _structure(blocks: Blocks, *, merged: bool) -> dict[str, Any]:
    """What the files imply: branches, norms, shift and layer scale as they are in training, or all of them merged."""
    changes: dict[str, Any] = {}
    for path, block in blocks:
        own = _kind(block.get("mixer")) == "large_kernel", _kind(block.get("channel")) == "grn_mlp"
        if own[0]:
            changes |= {f"{path}.mixer.merged": merged, f"{path}.mixer.norm": None if merged else "batch"}
        if own[1]:
            changes |= {f"{path}.channel.shift": not merged, f"{path}.channel.norm": None if merged else "batch"}
        if all(own):
            changes[f"{path}.scheme.scale"] = None if merged else 1e-6
    return changes


def _rules(blocks: Blocks) -> tuple[Rule, ...]:
    rules = [
        Rule("stem.convs.{i}", "downsample_layers.0.{3i}"),
        Rule("stem.norms.{i}", "downsample_layers.0.{3i+1}"),
        Rule("body.stages.{i}.merge.conv", "downsample_layers.{i}.0"),
        Rule("body.stages.{i}.merge.out_norm", "downsample_layers.{i}.1"),
        Rule("head.norm", "norm"),
        Rule("head.fc", "head"),
        Rule("head.norms.{i}", "norm{i}"),
    ]
    for path, block in blocks:
        theirs = path.removeprefix("body.").replace(".blocks.", ".")
        mixer = block.get("mixer")
        if _kind(mixer) == "large_kernel" and isinstance(mixer, Mapping):
            rules += _kernel(f"{path}.mixer", f"{theirs}.dwconv", mixer["size"])
            rules += [
                Rule(f"{path}.mixer.norm", f"{theirs}.norm"),
                *_dense(f"{path}.mixer.squeeze.reduce", f"{theirs}.se.down", ones=(2, 3)),
                *_dense(f"{path}.mixer.squeeze.expand", f"{theirs}.se.up", ones=(2, 3)),
            ]
        rules += [
            Rule(f"{path}.channel.expand", f"{theirs}.pwconv1.1"),
            Rule(f"{path}.channel.grn.weight", f"{theirs}.act.1.gamma", ones=(0, 1, 2)),
            Rule(f"{path}.channel.grn.bias", f"{theirs}.act.1.beta", ones=(0, 1, 2)),
            Rule(f"{path}.channel.reduce", f"{theirs}.pwconv2.0"),
            Rule(f"{path}.channel.norm", f"{theirs}.pwconv2.2"),
            Rule(f"{path}.scheme.scales.1.weight", f"{theirs}.gamma"),
        ]
    return tuple(rules)


def _kernel(ours: str, theirs: str, size: int) -> list[Rule]:
    """Small kernels are plain convolutions there, large ones blocks of their own."""
    if size < PLAIN:
        return [Rule(f"{ours}.conv", theirs)]
    rules = [Rule(f"{ours}.conv", f"{theirs}.lk_origin"), Rule(f"{ours}.conv_norm", f"{theirs}.origin_bn")]
    for i, (k, r) in enumerate(BRANCHES.get(size, ())):
        rules.append(Rule(f"{ours}.branches.{i}.conv", f"{theirs}.dil_conv_k{k}_{r}"))
        rules.append(Rule(f"{ours}.branches.{i}.norm", f"{theirs}.dil_bn_k{k}_{r}"))
    return rules


PLAIN = 7
"""Size from which on the authors' blocks have branches."""


def _dense(ours: str, theirs: str, *, ones: tuple[int, ...]) -> tuple[Rule, ...]:
    """A dense layer that is a 1x1 convolution there."""
    return Rule(ours, theirs), Rule(f"{ours}.weight", f"{theirs}.weight", ones=ones)
