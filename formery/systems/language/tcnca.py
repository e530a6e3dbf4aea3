"""TCNCA (arXiv 2312.05605), and Mega (arXiv 2209.10655), which it is built on: gated attention of one head in chunks.

What moves information between chunks is a damped moving average in Mega and a dilated convolution network in TCNCA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

CONVOLUTIONS = {"kind": "temporal_convolution", "width": 17, "factor": 4, "layers": 4}
"""Reach 1361 tokens."""
AVERAGE = {"kind": "damped_average", "dims": 16}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant: enwik8's sizes, or a small one over bytes."""
    move = AVERAGE if name.startswith("mega") else CONVOLUTIONS
    if name.endswith("tiny"):
        small = {"kind": "temporal_convolution", "width": 5, "factor": 3, "layers": 3}
        return spec(dim=64, depth=2, shared=16, values=128, hidden=128, chunk=32, vocab=256, move=small)
    return spec(dim=512, depth=12, shared=128, values=1024, hidden=1024, chunk=2048, vocab=205, move=move)


def spec(
    *,
    dim: int,
    depth: int,
    shared: int,
    values: int,
    hidden: int,
    chunk: int,
    vocab: int,
    move: Mapping[str, Any] | None,
    function: str = "softmax",
    rotary: bool = False,
) -> dict[str, Any]:
    """A language model of any size: gated attention and a feed-forward network by turns, each a block of its own, for
    the attention norms its tokens itself."""
    norm = {"kind": "layer", "eps": 1e-5}
    mixer = {
        "kind": "gated_chunk_attention", "shared": shared, "values": values, "chunk": chunk, "move": move,
        "function": function, "rotary": rotary, "norm": norm,
    }  # fmt: skip
    network = {"kind": "mlp", "hidden": hidden, "activation": "silu"}
    blocks = [
        {"mixer": mixer, "channel": None, "scheme": {"kind": "pre", "norm": None}},
        {"mixer": None, "channel": network, "scheme": {"kind": "pre", "norm": norm}},
    ]
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {"kind": "stack", "blocks": blocks * depth},
        "head": {"kind": "next_token", "norm": norm, "tie": True},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """Mega's names; TCNCA has no published ones, so its convolutions are named beside Mega's average."""
    rules = [
        Rule("stem.embed", "decoder.embed_tokens"),
        Rule("head.norm", "decoder.final_norm.norm"),
        Rule("head.scores", "decoder.output_projection"),
    ]
    layer = -1
    for i, block in enumerate(resolved["body"]["blocks"]):
        if block.get("mixer"):
            layer += 1
            rules += attention(f"body.blocks.{i}.mixer", f"decoder.layers.{layer}.mega_layer")
        if block.get("channel"):
            network = f"decoder.layers.{layer}.nffn"
            index = 1 if block.get("mixer") else 0
            rules += [
                Rule(f"body.blocks.{i}.channel.expand", f"{network}.fc1"),
                Rule(f"body.blocks.{i}.channel.reduce", f"{network}.fc2"),
                Rule(f"body.blocks.{i}.scheme.norms.{index}", f"{network}.norm.norm"),
            ]
    return [Dialect("mega", tuple(rules), ignores=(r"\.rel_pos_bias\.freqs?$", r"\._float_tensor$"))]


def attention(ours: str, theirs: str) -> list[Rule]:
    """A gated_chunk_attention and Mega's layer, under two prefixes; empty ones are a bare layer's."""
    ours, theirs = (f"{prefix}." if prefix else "" for prefix in (ours, theirs))
    return [
        Rule(f"{ours}norm", f"{theirs}norm.norm"),
        Rule(f"{ours}value", f"{theirs}v_proj"),
        Rule(f"{ours}project", f"{theirs}mx_proj"),
        Rule(f"{ours}out", f"{theirs}h_proj"),
        Rule(f"{ours}gain", f"{theirs}gamma"),
        Rule(f"{ours}offset", f"{theirs}beta"),
        Rule(f"{ours}table", f"{theirs}rel_pos_bias.rel_pos_bias"),
        Rule(f"{ours}turned_alpha", f"{theirs}rel_pos_bias.alpha", ones=(0,)),
        Rule(f"{ours}turned_beta", f"{theirs}rel_pos_bias.beta", ones=(0,)),
        *average(f"{ours}move", f"{theirs}move"),
        Rule(f"{ours}move.convs.{{i}}", f"{theirs}move.convs.{{i}}"),
        Rule(f"{ours}move.norms.{{i}}", f"{theirs}move.norms.{{i}}"),
    ]


def average(ours: str, theirs: str) -> list[Rule]:
    """A damped_average and Mega's, under two prefixes."""
    ours, theirs = (f"{prefix}." if prefix else "" for prefix in (ours, theirs))
    thick = [Rule(f"{ours}{name}", f"{theirs}{name}", ones=(2,)) for name in ("delta", "alpha", "beta")]
    return [*thick, *(Rule(f"{ours}{name}", f"{theirs}{name}") for name in ("gamma", "omega"))]
