"""Transformer in Transformer (arXiv 2103.00112): patches are sentences of words, which small blocks mix inside each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[int, int, int, int]] = {  # width and heads of patches, of words: table 1
    "tiny": (192, 3, 12, 2),
    "s": (384, 6, 24, 4),
    "b": (640, 10, 40, 4),
}
DEPTH, PATCH, STRIDE = 12, 16, 4
NORM = {"kind": "layer", "eps": 1e-5}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    size, *legacy = name.split("_")[1:]
    width, heads, word, word_heads = SIZES[size]
    return {
        "stem": {"kind": "pixel_words", "width": word, "size": PATCH, "stride": STRIDE, "across": bool(legacy)},
        "body": {
            "kind": "nested",
            "depth": DEPTH,
            "width": width,
            "side": PATCH // STRIDE,
            "inner": block(word_heads),
            "outer": block(heads),
            "join": "word" if legacy else "token",
            "norm": NORM,
            "prefix": 1,
            "position": {"kind": "learned", "prefix": 1},
            "inner_position": "learned",
        },
        "head": {"kind": "classes", "pool": "token", "norm": NORM},
    }


def block(heads: int) -> dict[str, Any]:
    """A plain block whose queries, keys and values have no bias."""
    mixer = {"kind": "attention", "heads": heads, "bias": False, "out_bias": True}
    return {"mixer": mixer, "channel": {"kind": "mlp", "ratio": 4.0}, "scheme": {"kind": "pre", "norm": NORM}}


def excited(heads: int) -> dict[str, Any]:
    """The outer block with squeeze and excitation, an option of the authors' code that no released model has."""
    plain = block(heads)
    return {
        "kind": "sequence",
        "sublayers": [plain["mixer"], {"kind": "excited_mlp", "norm": NORM}],
        "scheme": plain["scheme"],
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, whose files have an unused table beside them, and timm's."""
    word = resolved["stem"]["width"] if resolved["stem"]["kind"] == "pixel_words" else 1
    width = resolved["body"].get("width", 1)
    return [
        Dialect("authors", _rules(AUTHORS, width, word), ignores=(r"^outer_tokens$",)),
        Dialect("timm", _rules(TIMM, width, word)),
    ]


AUTHORS = {
    "stem": "patch_embed.proj",
    "words": "inner_pos",
    "tokens": "outer_pos",
    "norms": ("proj_norm1", "proj_norm2"),
    "inner": ("inner_norm1", "inner_attn", "inner_norm2", "inner_mlp"),
    "outer": ("outer_norm1", "outer_attn", "outer_norm2", "outer_mlp"),
}
TIMM = {
    "stem": "pixel_embed.proj",
    "words": "pixel_pos",
    "tokens": "patch_pos",
    "norms": ("norm1_proj", "norm2_proj"),
    "inner": ("norm_in", "attn_in", "norm_mlp_in", "mlp_in"),
    "outer": ("norm_out", "attn_out", "norm_mlp", "mlp"),
}


def _rules(names: Mapping[str, Any], width: int, word: int) -> tuple[Rule, ...]:
    rows = names is AUTHORS  # their words stand in a row, timm's on a map
    return (
        Rule("stem.conv", names["stem"]),
        Rule("body.inner_position.table", names["words"], ones=(0,), rows=rows, channels_first=not rows),
        Rule("body.prefix", "cls_token", ones=(0,)),
        Rule(("body.position.prefix", "body.position.table"), names["tokens"], ones=(0,), rows=True),
        *_join("body.enter", "", names),
        *block_rules("body.", "blocks.{i}.", names, width, word, ".{i}"),
        Rule("head.norm", "norm"),
        Rule("head.fc", "head"),
    )


def block_rules(
    ours: str, theirs: str, names: Mapping[str, Any], width: int, word: int, number: str
) -> tuple[Rule, ...]:
    """An inner block, a join and an outer block; `number` is how ours are numbered."""
    rules = list(_join(f"{ours}joins{number}", theirs, names))
    for kind, dim in (("inner", word), ("outer", width)):
        norm1, attention, norm2, mlp = (f"{theirs}{name}" for name in names[kind])
        path = f"{ours}{kind}{number}"
        rules += [Rule(f"{path}.scheme.norms.0", norm1), Rule(f"{path}.scheme.norms.1", norm2)]
        for mixer, channel in (("mixer", "channel"), ("sublayers.0", "sublayers.1.mlp")):
            rules += [
                Rule(f"{path}.{mixer}.qkv", (f"{attention}.qk", f"{attention}.v"), sizes=(2 * dim, dim)),
                Rule(f"{path}.{mixer}.out", f"{attention}.proj"),
                Rule(f"{path}.{channel}.expand", f"{mlp}.fc1"),
                Rule(f"{path}.{channel}.reduce", f"{mlp}.fc2"),
            ]
    excited = (("norm", 0), ("reduce", 1), ("expand", 3))
    rules += [Rule(f"{ours}outer{number}.sublayers.1.{x}", f"{theirs}se_layer.fc.{y}") for x, y in excited]
    return tuple(rules)


def _join(ours: str, theirs: str, names: Mapping[str, Any]) -> tuple[Rule, ...]:
    first, last = names["norms"]
    return (
        Rule(f"{ours}.norm", f"{theirs}{first}"),
        Rule(f"{ours}.dense", f"{theirs}proj"),
        Rule(f"{ours}.out_norm", f"{theirs}{last}"),
    )
