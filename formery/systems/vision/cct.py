"""Compact Transformers (arXiv 2104.05704): ViT-Lite, CVT and CCT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[int, tuple[int, int, float]] = {  # layers: width, heads, MLP ratio (the authors' code)
    2: (128, 2, 1.0),
    4: (128, 2, 1.0),
    6: (256, 4, 2.0),
    7: (256, 4, 2.0),
    14: (384, 6, 3.0),
}
NAME = re.compile(r"(vit_lite|cvt|cct)_(\d+)_(\d)(?:x(\d))?(?:_(384))?(_sine)?")
INNER = 64
"""Channels between the tokenizer's convolutions."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant: `cct_14_7x2_384` has 14 layers and 2 convolutions of 7 x 7, for images of 384."""
    found = NAME.fullmatch(name)
    assert found
    family, layers, size, convs, side, sine = found.groups()
    dim, heads, ratio = SIZES[int(layers)]
    token = family == "vit_lite"
    img_size = int(side) if side else 224 if size == "7" else 32
    stem: dict[str, Any] = {"kind": "patches", "dim": dim, "size": int(size), "img_size": img_size}
    if family == "cct":
        stem = tokenizer(dim, int(size), int(convs)) | {"img_size": img_size}
    position: dict[str, Any] = {"kind": "learned", "resize": "bilinear", "antialias": False}
    position |= {"init": "sine", "frozen": True} if sine else {"std": 0.2}
    return {
        "stem": stem,
        "body": {
            "kind": "stack",
            "depth": int(layers),
            "mixer": {"kind": "attention", "heads": heads, "bias": False, "out_bias": True},
            "channel": {"kind": "mlp", "ratio": ratio},
            "scheme": "between",
            "prefix": 1 if token else 0,
            "position": position | ({"prefix": 1} if token else {}),
        },
        "head": {
            "kind": "classes",
            "pool": "token" if token else "sequence",
            "num_classes": 1000 if layers == "14" else 102 if size == "7" else 10,
        },
    }


def tokenizer(dim: int, size: int, count: int) -> dict[str, Any]:
    """The stem: `count` times a convolution without bias, ReLU, and a maximum over 3 x 3 with stride 2."""
    geometry = {"sizes": size, "strides": max(1, size // 2 - 1), "paddings": max(1, size // 2)}
    return {"kind": "convs", "widths": [INNER] * (count - 1) + [dim], **geometry, **PLAIN}


PLAIN = {"norm": None, "activation": "relu", "pool": True, "bias": False}


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names."""
    return [Dialect("authors", RULES)]


THEIRS = "classifier.blocks.{i}"
RULES = (
    Rule("stem.conv", "tokenizer.conv_layers.0.0"),
    Rule("stem.convs.{i}", "tokenizer.conv_layers.{i}.0"),
    Rule("body.prefix", "classifier.class_emb", ones=(0,)),
    Rule(("body.position.prefix", "body.position.table"), "classifier.positional_emb", ones=(0,), rows=True),
    Rule("body.blocks.{i}.scheme.norms.0", f"{THEIRS}.pre_norm"),
    Rule("body.blocks.{i}.scheme.norms.1", f"{THEIRS}.norm1"),
    Rule("body.blocks.{i}.mixer.qkv", f"{THEIRS}.self_attn.qkv"),
    Rule("body.blocks.{i}.mixer.out", f"{THEIRS}.self_attn.proj"),
    Rule("body.blocks.{i}.channel.expand", f"{THEIRS}.linear1"),
    Rule("body.blocks.{i}.channel.reduce", f"{THEIRS}.linear2"),
    Rule("head.norm", "classifier.norm"),
    Rule("head.weigh", "classifier.attention_pool"),
    Rule("head.fc", "classifier.fc"),
)
