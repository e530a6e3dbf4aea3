"""Tokens-to-Token ViT (arXiv 2101.11986)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[int, int, int, float]] = {  # width, depth, heads, MLP ratio: table 1 and the authors' code
    "7": (256, 7, 4, 2.0),
    "10": (256, 10, 4, 2.0),
    "12": (256, 12, 4, 2.0),
    "14": (384, 14, 6, 3.0),
    "19": (448, 19, 7, 3.0),
    "24": (512, 24, 8, 3.0),
    "14_resnext": (384, 14, 32, 3.0),
    "14_wide": (768, 4, 12, 3.0),
}
INNER = 64
"""Width of the tokens between soft splits."""
SCALED_BY = {768: 512}
"""Widths whose released checkpoints scale the scores by another width's root than their own (the wide one)."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant: `t2t_vit_14`, or `t2t_vit_t_14` with softmax attention between the splits."""
    softmax = name.startswith("t2t_vit_t_")
    dim, depth, heads, ratio = SIZES[name.removeprefix("t2t_vit_t_" if softmax else "t2t_vit_")]
    between = {"attention": "softmax"} if softmax else {"attention": "performer", "dropout": 0.1}
    return {
        "stem": {"kind": "tokens_to_token", "dim": dim, "inner": INNER, **between},
        "body": {
            "kind": "stack",
            "depth": depth,
            "mixer": {"kind": "attention", "heads": heads, "bias": False, "out_bias": True},
            "channel": {"kind": "mlp", "ratio": ratio},
            "prefix": 1,  # the class token, which has the first place
            "position": {"kind": "learned", "prefix": 1, "init": "sine", "frozen": True, "antialias": False},
        },
        "head": {"kind": "classes", "pool": "token"},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names. Their released files were trained with scores scaled by the width's root, not a head's."""
    stem = resolved["stem"]
    dim, softmax = int(stem["dim"]), stem.get("attention") == "softmax"
    scale = {"body.blocks.*.mixer.scale": SCALED_BY.get(dim, dim) ** -0.5}
    kinds = {block["mixer"]["kind"] for block in resolved["body"]["blocks"] if block.get("mixer")}
    return [
        Dialect("authors", (*_tokens(softmax, stem.get("inner", INNER)), *RULES), scale if kinds == ATTENTION else {})
    ]


ATTENTION = {"attention"}
STEM, THEIRS = "stem.blocks.{i}", "tokens_to_token.attention{i+1}"
RULES = (
    Rule("stem.project", "tokens_to_token.project"),
    Rule("body.prefix", "cls_token", ones=(0,)),
    Rule(("body.position.prefix", "body.position.table"), "pos_embed", ones=(0,), rows=True),
    Rule("body.blocks.{i}.scheme.norms.0", "blocks.{i}.norm1"),
    Rule("body.blocks.{i}.scheme.norms.1", "blocks.{i}.norm2"),
    Rule("body.blocks.{i}.mixer.qkv", "blocks.{i}.attn.qkv"),
    Rule("body.blocks.{i}.mixer.out", "blocks.{i}.attn.proj"),
    Rule("body.blocks.{i}.channel.expand", "blocks.{i}.mlp.fc1"),
    Rule("body.blocks.{i}.channel.reduce", "blocks.{i}.mlp.fc2"),
    Rule("head.norm", "norm"),
    Rule("head.fc", "head"),
)


def _tokens(softmax: bool, inner: int) -> tuple[Rule, ...]:
    """The blocks between splits; the Performer's keys come first in its dense layer, then queries and values."""
    names = ("attn.proj", "mlp.fc1", "mlp.fc2") if softmax else ("proj", "mlp.0", "mlp.2")
    ours = ("out", "mlp.expand", "mlp.reduce")
    keys_first = Rule(f"{STEM}.qkv", f"{THEIRS}.kqv", pieces=((1, (inner,) * 3),), order=(1, 0, 2))
    return (
        Rule(f"{STEM}.qkv", f"{THEIRS}.attn.qkv") if softmax else keys_first,
        Rule(f"{STEM}.draws", f"{THEIRS}.w"),
        Rule(f"{STEM}.norms.0", f"{THEIRS}.norm1"),
        Rule(f"{STEM}.norms.1", f"{THEIRS}.norm2"),
        *(Rule(f"{STEM}.{our}", f"{THEIRS}.{their}") for our, their in zip(ours, names, strict=True)),
    )
