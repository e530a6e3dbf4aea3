"""Swin (arXiv 2103.14030), Swin V2 (arXiv 2111.09883) and Swin-MLP: pyramids with shifting windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[int, list[int]]] = {  # first width (doubling), depths: section 3.3
    "tiny": (96, [2, 2, 6, 2]),
    "small": (96, [2, 2, 18, 2]),
    "base": (128, [2, 2, 18, 2]),
    "large": (192, [2, 2, 18, 2]),
}
V1 = {"kind": "window_attention", "window": 7, "head_dim": 32}
V2 = V1 | {"position": "log_offsets", "scaling": "cosine", "key_bias": False}
MLP = {"kind": "window_mlp", "window": 7, "head_dim": 32}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    family, size, *rest = name.split("_")
    if family == "swinv2":
        window = int(rest[0].removeprefix("w"))
        quiet = {"kind": "layer", "gain": 0.0}  # a fresh block gives out what it gets
        merge = {"kind": "patch_merging", "norm": None, "out_norm": "layer"}
        return _pyramid(size, 256, V2 | {"window": window}, {"kind": "reordered", "norm": quiet}, merge)
    if family == "swinmlp":
        if not rest:
            return _pyramid(size, 224, MLP)
        return _pyramid(size, 256, MLP | {"window": 8, "head_dim": int(rest[0].removeprefix("c"))})
    return _pyramid(size, 384, V1 | {"window": 12}) if rest else _pyramid(size, 224, V1)


def _pyramid(
    size: str, img_size: int, mixer: Mapping[str, Any], scheme: Any = "pre", merge: Any = "patch_merging"
) -> dict[str, Any]:
    """Stem, body and head; blocks with and without shift take turns."""
    first, depths = SIZES[size]
    return {
        "stem": {"kind": "patches", "dim": first, "size": 4, "norm": "layer", "img_size": img_size},
        "body": {
            "kind": "pyramid",
            "dims": [first * 2**i for i in range(4)],
            "layouts": [f"(still shifted)*{depth // 2}" for depth in depths],
            "blocks": {"still": {"mixer": mixer}, "shifted": {"mixer": {**mixer, "shift": True}}},
            "scheme": scheme,
            "merge": merge,
        },
        "head": "classes",
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names; where they have the model, timm's, and transformers' modules of version 5 and files."""
    kinds = {block["mixer"]["kind"] for stage in resolved["body"]["stages"] for block in stage["blocks"]}
    authors = Dialect("authors", _rules(AUTHORS, merge="layers.{i-1}.downsample", head="head"), ignores=DERIVED)
    if "window_mlp" in kinds:
        return [authors]
    timm = Dialect("timm", _rules(AUTHORS, merge="layers.{i}.downsample", head="head.fc"), ignores=DERIVED)
    second = resolved["body"]["stages"][0]["blocks"][0]["scheme"]["kind"] == "reordered"
    model = "swinv2" if second else "swin"
    files = Dialect("transformers_files", _transformers(FILES, model), ignores=DERIVED)
    return [authors, timm, *([] if second else [Dialect("transformers", _transformers(MODULES, model))]), files]


DERIVED = (r"\.relative_position_index$", r"\.attn_mask$", r"\.relative_coords_table$", r"\.k_bias$")
BLOCK = "body.stages.{i}.blocks.{j}"
AUTHORS: dict[str, str | tuple[str, ...]] = {
    "scheme.norms.0": "norm1",
    "mixer.qkv": "attn.qkv",
    "mixer.qv_bias": ("attn.q_bias", "attn.v_bias"),
    "mixer.log_factor": "attn.logit_scale",
    "mixer.position.table": "attn.relative_position_bias_table",
    "mixer.position.expand": "attn.cpb_mlp.0",
    "mixer.position.reduce": "attn.cpb_mlp.2",
    "mixer.out": "attn.proj",
    "mixer.mix": "spatial_mlp",
    "scheme.norms.1": "norm2",
    "channel.expand": "mlp.fc1",
    "channel.reduce": "mlp.fc2",
}
MODULES: dict[str, str | tuple[str, ...]] = {
    "scheme.norms.0": "layernorm_before",
    "mixer.qkv": tuple(f"attention.{n}_proj" for n in "qkv"),
    "mixer.position.table": "attention.relative_position_bias.relative_position_bias_table",
    "mixer.out": "attention.o_proj",
    "scheme.norms.1": "layernorm_after",
    "channel.expand": "mlp.fc1",
    "channel.reduce": "mlp.fc2",
}
INNER = "attention.self"
FILES: dict[str, str | tuple[str, ...]] = {
    "scheme.norms.0": "layernorm_before",
    "mixer.qkv": tuple(f"{INNER}.{n}" for n in ("query", "key", "value")),
    "mixer.qv_bias": tuple(f"{INNER}.{n}.bias" for n in ("query", "value")),
    "mixer.log_factor": f"{INNER}.logit_scale",
    "mixer.position.table": f"{INNER}.relative_position_bias_table",
    "mixer.position.expand": f"{INNER}.continuous_position_bias_mlp.0",
    "mixer.position.reduce": f"{INNER}.continuous_position_bias_mlp.2",
    "mixer.out": "attention.output.dense",
    "scheme.norms.1": "layernorm_after",
    "channel.expand": "intermediate.dense",
    "channel.reduce": "output.dense",
}


def _blocks(names: Mapping[str, str | tuple[str, ...]], ours: str, theirs: str) -> list[Rule]:
    """Rules for the blocks below two prefixes."""
    return [
        Rule(
            f"{ours}.{part}",
            f"{theirs}{name}" if isinstance(name, str) else tuple(f"{theirs}{n}" for n in name),
            ones=(1, 2) if part == "mixer.log_factor" else (),
        )
        for part, name in names.items()
    ]


def _merge(theirs: str) -> tuple[Rule, ...]:
    norms = (Rule(f"body.stages.{{i}}.merge.{name}", f"{theirs}.norm") for name in ("norm", "out_norm"))
    return *norms, Rule("body.stages.{i}.merge.reduce", f"{theirs}.reduction")


def _rules(names: Mapping[str, str | tuple[str, ...]], merge: str, head: str) -> tuple[Rule, ...]:
    """The authors keep a merge with the stage before it, timm with the stage behind it."""
    return (
        Rule("stem.conv", "patch_embed.proj"),
        Rule("stem.norm", "patch_embed.norm"),
        *_blocks(names, BLOCK, "layers.{i}.blocks.{j}."),
        *_merge(merge),
        Rule("head.norm", "norm"),
        Rule("head.fc", head),
    )


def _transformers(names: Mapping[str, str | tuple[str, ...]], model: str) -> tuple[Rule, ...]:
    return (
        Rule("stem.conv", f"{model}.embeddings.patch_embeddings.projection"),
        Rule("stem.norm", f"{model}.embeddings.norm"),
        *_blocks(names, BLOCK, f"{model}.encoder.layers.{{i}}.blocks.{{j}}."),
        *_merge(f"{model}.encoder.layers.{{i-1}}.downsample"),
        Rule("head.norm", f"{model}.layernorm"),
        Rule("head.fc", "classifier"),
    )
