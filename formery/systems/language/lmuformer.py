"""LMUFormer (arXiv 2402.04882): a Legendre memory in attention's place, for speech; and its spiking versions.

`formery.runtime.listening` hears a model of this kind piece by piece and says at every frame what it takes the whole to
be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

FIRES = {
    "spiking_lmuformer_256": "before", "spiking_lmuformer_256_post": "after", "spiking_attention_256": "before",
}  # fmt: skip
"""Where the neurons of the spiking versions stand."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant: 128 mel bands, 35 spoken words."""
    attention = name.startswith("spiking_attention")
    return spec(dim=256, in_chans=128, num_classes=35, fires=FIRES.get(name), attention=attention)


def spec(
    *,
    dim: int,
    in_chans: int,
    num_classes: int,
    fires: str | None = None,
    attention: bool = False,
    depth: int = 1,
    length: int = 128,
) -> dict[str, Any]:
    """An LMUFormer of any size, spiking where it says where it `fires`; with `attention` in the memory's place, the
    spiking one that it is compared with."""
    inputs = {"dim": dim, "in_chans": in_chans, "length": length}
    head = {"kind": "classes", "num_classes": num_classes, "norm": None}
    scheme: dict[str, Any] = {"kind": "pre", "norm": None}
    memory = {"theta": 128.0}
    if fires is None:
        mixer = {"kind": "legendre_memory", **memory, "norm": "batch"}
        block = {"mixer": mixer, "channel": "normed_mlp", "scheme": scheme}
        return {
            "stem": {"kind": "frame_convolutions", **inputs},
            "body": {"kind": "stack", "blocks": [block] * depth},
            "head": head,
        }
    remembered = {"kind": "spiking_legendre_memory", **memory, "fires": fires}
    mixers: list[dict[str, Any]] = [{"kind": "spiking_attention"} if attention else remembered]
    sublayers = [*mixers, {"kind": "spiking_mlp", "fires": fires}]
    blocks: list[dict[str, Any]] = [{"kind": "sequence", "sublayers": sublayers, "scheme": scheme}] * depth
    if fires == "before":  # the stream holds numbers, so that neurons stand in front of the head too
        blocks = [*blocks, {"mixer": "fire", "channel": None, "scheme": {"kind": "chain", "norm": None}}]
    stem = {"kind": "spiking_convolutions", **inputs, "fires": fires}
    return {"stem": stem, "body": {"kind": "stack", "blocks": blocks}, "head": head}


TABLES = (r"\.lmu\.(A|B|H|fft_H)$",)


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names."""
    stem, blocks = resolved["stem"], resolved["body"]["blocks"]
    rules = [Rule("head.fc", "head"), Rule("stem.relative", "patch_embed.rpe_conv")]
    if stem["kind"] == "frame_convolutions":
        rules += [
            Rule("stem.convs.{i}", "patch_embed.conv_layers.{i}.0"),
            Rule("stem.norms.{i}", "patch_embed.conv_layers.{i}.3"),
            *_memory("body.blocks.{i}.mixer", "block.{i}.attn"),
            *_pointwise("body.blocks.{i}.channel.expand", "block.{i}.mlp.fc1_conv"),
            *_pointwise("body.blocks.{i}.channel.reduce", "block.{i}.mlp.fc2_conv"),
            Rule("body.blocks.{i}.channel.expand_norm", "block.{i}.mlp.fc1_bn"),
            Rule("body.blocks.{i}.channel.reduce_norm", "block.{i}.mlp.fc2_bn"),
        ]
        return [Dialect("authors", tuple(rules), ignores=TABLES)]
    for i in range(stem.get("layers", 0)):
        number = str(i or "")
        rules.append(Rule(f"stem.convs.{i}", f"patch_embed.proj_conv{number}"))
        rules.append(Rule(f"stem.neurons.{i}.norm", f"patch_embed.proj_bn{number}"))
    rules.append(Rule(f"stem.neurons.{stem.get('layers', 0)}.norm", "patch_embed.rpe_bn"))
    first, second = "body.blocks.{i}.sublayers.0", "body.blocks.{i}.sublayers.1"
    attention = _attention(first, "block.{i}.attn", resolved)
    rules += [
        *_memory(first, "block.{i}.attn"),
        *([] if attention else [Rule(f"{first}.first.norm", "block.{i}.attn.prev_bn")]),
        Rule(f"{first}.input_neurons.norm", "block.{i}.attn.lmu.bn_u"),
        Rule(f"{first}.memory_neurons.norm", "block.{i}.attn.lmu.bn_m"),
        Rule(f"{first}.hidden_neurons.norm", "block.{i}.attn.lmu.bn_h"),
        Rule(f"{first}.last.norm", "block.{i}.attn.proj_bn"),
        *attention,
        *_pointwise(f"{second}.expand", "block.{i}.mlp.fc1_conv"),
        *_pointwise(f"{second}.reduce", "block.{i}.mlp.fc2_conv"),
        Rule(f"{second}.first.norm", "block.{i}.mlp.fc1_bn"),
        Rule(f"{second}.second.norm", "block.{i}.mlp.fc2_bn"),
        Rule(f"body.blocks.{len(blocks) - 1}.mixer.neurons.norm", "head_bn"),
    ]
    return [Dialect("authors", tuple(rules), ignores=TABLES)]


def _memory(ours: str, theirs: str) -> list[Rule]:
    return [
        Rule(f"{ours}.input", f"{theirs}.lmu.W_u"),
        Rule(f"{ours}.hidden", f"{theirs}.lmu.W_h"),
        *_pointwise(f"{ours}.out", f"{theirs}.proj_conv"),
        Rule(f"{ours}.norm", f"{theirs}.proj_bn"),
    ]


def _attention(ours: str, theirs: str, resolved: Mapping[str, Any]) -> list[Rule]:
    """The spiking attention's own names, where the model has one."""
    kinds = {sub["kind"] for block in resolved["body"]["blocks"] for sub in block.get("sublayers", [])}
    if "spiking_attention" not in kinds:
        return []
    rules = [Rule(f"{ours}.{n}_neurons.norm", f"{theirs}.{n}_bn") for n in "qkv"]
    rules += [Rule(f"{ours}.{n}.weight", f"{theirs}.{n}_conv.weight", ones=(2,)) for n in "qkv"]
    return [*rules, Rule(f"{ours}.first.norm", f"{theirs}.pre_bn")]


def _pointwise(ours: str, theirs: str) -> list[Rule]:
    """A dense layer that they hold as a convolution of one tap."""
    return [Rule(f"{ours}.weight", f"{theirs}.weight", ones=(2,)), Rule(f"{ours}.bias", f"{theirs}.bias")]
