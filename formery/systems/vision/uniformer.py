"""UniFormer (arXiv 2201.09450, 2201.04676): local relations where maps are large, global ones where they are small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[list[int], list[int]]] = {  # depths, dims: table 1 and the authors' code
    "small": ([3, 4, 8, 3], [64, 128, 320, 512]),
    "small_plus": ([3, 5, 9, 3], [64, 128, 320, 512]),
    "base": ([5, 8, 20, 7], [64, 128, 320, 512]),
    "large": ([5, 10, 24, 7], [128, 192, 448, 640]),
}
NORM = {"kind": "layer", "eps": 1e-6}
"""Of blocks with attention; the norms behind patch embeddings have eps 1e-5."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    size = name.removeprefix("uniformer_")
    scale = 1e-6 if size.endswith("_ls") else None
    size = size.removesuffix("_ls")
    head_dim = 32 if size == "small_plus" else 64
    depths, dims = SIZES[size.removesuffix("_dim64")]
    return image(depths, dims, head_dim=head_dim, scale=scale, convs=size.startswith("small_plus"))


def image(
    depths: list[int],
    dims: list[int],
    *,
    head_dim: int = 64,
    scale: float | None = None,
    convs: bool = False,
    ratio: float = 4.0,
) -> dict[str, Any]:
    """An image model: local relations in the first half of the stages, global ones in the second.

    With `convs` overlapping convolutions make and merge tokens, with batch norms; else patches, with layer norms.
    `scale` is the first value of the layer scales behind attention.
    """
    if convs:
        widths = [dims[0] // 2, dims[0]]
        stem: dict[str, Any] = {"kind": "convs", "widths": widths, "activation": "gelu", "last_activation": False}
        merge: dict[str, Any] = {"kind": "conv", "size": 3, "padding": 1, "out_norm": "batch"}
    else:
        stem = {"kind": "conv", "dim": dims[0], "size": 4, "stride": 4, "padding": 0, "norm": "layer"}
        merge = {"kind": "conv", "size": 2, "padding": 0, "out_norm": "layer"}
    local = len(dims) // 2
    stages = [
        {
            "kind": "stack",
            "dim_out": dim,
            "merge": merge if i else None,
            "blocks": [local_block(ratio) if i < local else global_block(dim // head_dim, ratio, scale)] * depth,
        }
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True))
    ]
    return {
        "stem": stem,
        "body": {"kind": "pyramid", "stages": stages},
        "head": {"kind": "classes", "norm": "batch", "order": "norm_pool"},
    }


def local_block(ratio: float = 4.0) -> dict[str, Any]:
    """Position, local relations, MLP (equations 1 to 3)."""
    return _block({"kind": "separable_conv", "ratio": 1.0, "size": 5}, ratio, {"norm": "batch"})


def global_block(heads: int, ratio: float = 4.0, scale: float | None = None) -> dict[str, Any]:
    """Position, relations between all tokens, MLP."""
    return _block({"kind": "attention", "heads": heads}, ratio, {"norm": NORM, "scale": scale})


def _block(mixer: dict[str, Any], ratio: float, scheme: dict[str, Any]) -> dict[str, Any]:
    position = {"kind": "depthwise_conv", "size": 3}
    sublayers = [position, mixer, {"kind": "mlp", "ratio": ratio}]
    return {"kind": "sequence", "sublayers": sublayers, "scheme": {"kind": "pre", "bare": [0], **scheme}}


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names."""
    ones = (2, 3)
    rules = [Rule("head.norm", "norm"), Rule("head.fc", "head"), *_embedding(resolved["stem"])]
    for i, stage in enumerate(resolved["body"]["stages"]):
        theirs = f"patch_embed{i + 1}"
        if i and (stage["merge"]["out_norm"] or {}).get("kind") == "batch":
            rules += [
                Rule(f"body.stages.{i}.merge.conv", f"{theirs}.proj.0"),
                Rule(f"body.stages.{i}.merge.out_norm", f"{theirs}.proj.1"),
            ]
        elif i:
            rules += [
                Rule(f"body.stages.{i}.merge.conv", f"{theirs}.proj"),
                Rule(f"body.stages.{i}.merge.out_norm", f"{theirs}.norm"),
            ]
        for j, block in enumerate(stage["blocks"]):
            rules += _rules_of_block(block, f"body.stages.{i}.blocks.{j}", f"blocks{i + 1}.{j}", ones)
    return [Dialect("authors", tuple(rules), ignores=(r"num_batches_tracked$",))]


def _embedding(stem: Mapping[str, Any]) -> list[Rule]:
    """The stem's tensors: with several convolutions, a sequence of convolution, norm and activation there."""
    if stem["kind"] != "convs":
        return [Rule("stem.conv", "patch_embed1.proj"), Rule("stem.norm", "patch_embed1.norm")]
    return [
        Rule("stem.convs.{i}", "patch_embed1.proj.{3i}"),
        Rule("stem.norms.{i}", "patch_embed1.proj.{3i+1}"),
    ]


def _rules_of_block(block: Mapping[str, Any], ours: str, theirs: str, ones: tuple[int, ...]) -> list[Rule]:
    mixer, local = f"{ours}.sublayers.1", block["sublayers"][1]["kind"] == "separable_conv"
    rules = [
        Rule(f"{ours}.sublayers.0.conv", f"{theirs}.pos_embed"),
        *(Rule(f"{ours}.scheme.norms.{n}", f"{theirs}.norm{n}") for n in (1, 2)),
        *(Rule(f"{ours}.scheme.scales.{n}.weight", f"{theirs}.gamma_{n}") for n in (1, 2)),
        *(Rule(f"{ours}.sublayers.2.{a}", f"{theirs}.mlp.{b}") for a, b in MLP.items()),
    ]
    if not local:
        return [*rules, Rule(f"{mixer}.qkv", f"{theirs}.attn.qkv"), Rule(f"{mixer}.out", f"{theirs}.attn.proj")]
    return [
        *rules,
        *(Rule(f"{ours}.sublayers.2.{a}.weight", f"{theirs}.mlp.{b}.weight", ones=ones) for a, b in MLP.items()),
        Rule(f"{mixer}.conv", f"{theirs}.attn"),
        Rule(f"{mixer}.expand", f"{theirs}.conv1"),
        Rule(f"{mixer}.reduce", f"{theirs}.conv2"),
        Rule(f"{mixer}.expand.weight", f"{theirs}.conv1.weight", ones=ones),
        Rule(f"{mixer}.reduce.weight", f"{theirs}.conv2.weight", ones=ones),
    ]


MLP = {"expand": "fc1", "reduce": "fc2"}
