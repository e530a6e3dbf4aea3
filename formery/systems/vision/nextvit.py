"""Next-ViT (arXiv 2207.05501): convolution blocks, and behind every few of them one with attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...weights import Dialect, Rule

GROUPS: dict[str, int] = {"small": 2, "base": 4, "large": 6}
"""Groups of the third stage, of four convolution blocks and one transformer block each (table 3)."""
HEAD = 32
"""Channels a head, of attention and of convolution."""
WIDE = {192: 256, 384: 512, 768: 1024}
"""Channels after a transformer block, three quarters of which (its key) come from attention (section 3.3)."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    groups = GROUPS[name.rpartition("_")[2]]
    third = [_stage(384, 4, pool=2, stride=1 if i else 2) for i in range(groups)]
    return {
        "stem": {"kind": "convs", "widths": [64, 32, 64, 64], "strides": [2, 1, 1, 2], "bias": False},
        "body": {
            "kind": "pyramid",
            "stages": [
                _stage(96, 3, transformer=False, stride=1),
                _stage(192, 3, pool=4),
                {"kind": "pyramid", "stages": third},
                _stage(768, 2, pool=1),
            ],
        },
        "head": {"kind": "classes", "norm": "batch", "order": "norm_pool"},
    }


def _stage(dim: int, convolutions: int, *, transformer: bool = True, pool: int = 1, stride: int = 2) -> dict[str, Any]:
    """Convolution blocks of width `dim`, then a transformer block with keys and values of `pool` x `pool` tokens."""
    blocks = [convolution_block()] * convolutions
    if transformer:
        blocks = [*blocks, transformer_block(dim, WIDE[dim], pool=pool)]
    return {"kind": "stack", "blocks": blocks, "dim_out": dim, "merge": {"kind": "pooling", "stride": stride}}


def convolution_block() -> dict[str, Any]:
    """The Next Convolution Block (section 3.2): its convolution reads the stream without a norm."""
    return {
        "mixer": {"kind": "multi_head_conv", "head_dim": HEAD},
        "channel": {"kind": "mlp", "ratio": 3.0, "activation": "relu"},
        "scheme": {"kind": "pre", "norm": "batch", "unnormed": [0]},
    }


def transformer_block(dim: int, out: int, *, pool: int = 1) -> dict[str, Any]:
    """The Next Transformer Block (section 3.3): attention on `dim` channels, convolution on the other out - dim."""
    attention: dict[str, Any] = {"kind": "attention", "heads": dim // HEAD}
    if pool > 1:
        attention |= {"kind": "pooled_attention", "stride": pool}
    return {
        "kind": "widening",
        "dim_out": out,
        "mixer": attention,
        "local": {"kind": "multi_head_conv", "head_dim": HEAD},
        "channel": {"kind": "mlp", "ratio": 2.0, "activation": "relu"},
        "scheme": {"kind": "pre", "norm": "batch", "unnormed": [1], "drop_shares": [dim / out, 1 - dim / out, 1.0]},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, all blocks in one list, and timm's, a list a stage; the parts of a block are alike."""
    authors = [*_stem(), Rule("head.norm", "norm"), Rule("head.fc", "proj_head.0")]
    timm = [*_stem(), Rule("head.norm", "norm"), Rule("head.fc", "head.fc")]
    number = 0
    for i, stage in enumerate(resolved["body"]["stages"]):
        j = 0
        for path, group in _stacks(f"body.stages.{i}", stage):
            for rules, block, names in (
                (authors, f"features.{number}", ("conv1", "conv2")),
                (timm, f"stages.{i}.blocks.{j}", ("fc1", "fc2")),
            ):
                rules += _merge(path, block)
                for n, node in enumerate(group["blocks"]):
                    head, _, last = block.rpartition(".")
                    rules += _block(f"{path}.blocks.{n}", f"{head}.{int(last) + n}", node, names)
            number, j = number + len(group["blocks"]), j + len(group["blocks"])
    return [Dialect("authors", tuple(authors)), Dialect("timm", tuple(timm))]


def _stacks(path: str, stage: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The groups of blocks of a stage with their paths."""
    if "blocks" in stage:
        yield path, stage
    for i, inner in enumerate(stage.get("stages", ())):
        yield from _stacks(f"{path}.stages.{i}", inner)


def _stem() -> tuple[Rule, ...]:
    return Rule("stem.convs.{i}", "stem.{i}.conv"), Rule("stem.norms.{i}", "stem.{i}.norm")


def _merge(ours: str, block: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{ours}.merge.dense", f"{block}.patch_embed.conv", ones=(2, 3)),
        Rule(f"{ours}.merge.out_norm", f"{block}.patch_embed.norm"),
    )


def _block(ours: str, block: str, node: Mapping[str, Any], mlp: tuple[str, str]) -> Iterator[Rule]:
    """Rules for one block, of either kind."""
    wide = node["kind"] == "widening"
    convolution, norm = ("local", "norm2") if wide else ("mixer", "norm")
    yield Rule(f"{ours}.{convolution}.conv", f"{block}.mhca.group_conv3x3")
    yield Rule(f"{ours}.{convolution}.norm", f"{block}.mhca.norm")
    yield Rule(f"{ours}.{convolution}.out", f"{block}.mhca.projection", ones=(2, 3))
    yield Rule(f"{ours}.scheme.norms.{2 if wide else 1}", f"{block}.{norm}")
    for layer, theirs in zip(("expand", "reduce"), mlp, strict=True):
        yield Rule(f"{ours}.channel.{layer}.weight", f"{block}.mlp.{theirs}.weight", ones=(2, 3))
        yield Rule(f"{ours}.channel.{layer}.bias", f"{block}.mlp.{theirs}.bias")
    if not wide:
        return
    q, k, v = (f"{block}.e_mhsa.{name}" for name in "qkv")
    yield Rule(f"{ours}.scheme.norms.0", f"{block}.norm1")
    yield Rule(f"{ours}.mixer.qkv", (q, k, v))
    yield Rule(f"{ours}.mixer.q", q)
    yield Rule(f"{ours}.mixer.kv", (k, v))
    yield Rule(f"{ours}.mixer.norm", f"{block}.e_mhsa.norm")
    yield Rule(f"{ours}.mixer.out", f"{block}.e_mhsa.proj")
    yield Rule(f"{ours}.project", f"{block}.projection.conv", ones=(2, 3))
    yield Rule(f"{ours}.project_norm", f"{block}.projection.norm")
