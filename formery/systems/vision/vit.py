"""Vision Transformer (arXiv 2010.11929; the small sizes as in DeiT, arXiv 2012.12877)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule
from .. import published_layers as layers

SIZES: dict[str, tuple[int, int]] = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}  # width, heads
DEPTH = 12
NORM = {"kind": "layer", "eps": 1e-6}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    dim, heads = SIZES[name.rpartition("_")[2]]
    return _spec({"dim": dim, "size": 16}, DEPTH, {"heads": heads}, {}, NORM, {})


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a `vit` config of transformers describes; BadSpec names what formery has no part for."""
    stem = {
        "dim": int(config["hidden_size"]),
        "size": config.get("patch_size", 16),
        "img_size": config.get("image_size", 224),
        "in_chans": config.get("num_channels", 3),
    }
    attention = {"heads": config["num_attention_heads"], "bias": config.get("qkv_bias", True)}
    mlp = {"hidden": config["intermediate_size"], "activation": layers.activation(config)}
    norm = {"kind": "layer", "eps": float(config.get("layer_norm_eps", 1e-12))}
    return _spec(stem, config["num_hidden_layers"], attention, mlp, norm, {"num_classes": layers.num_labels(config)})


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    stem, blocks = resolved["stem"], resolved["body"]["blocks"]
    mixer, channel = blocks[0].get("mixer") or {}, blocks[0].get("channel") or {}
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": stem["dim"],
        "patch_size": stem["size"],
        "image_size": stem["img_size"],
        "num_channels": stem["in_chans"],
        "num_hidden_layers": len(blocks),
        "num_attention_heads": mixer.get("heads"),
        "qkv_bias": mixer.get("bias"),
        "intermediate_size": channel.get("hidden") or int(stem["dim"] * (channel.get("ratio") or 4)),
        "hidden_act": layers.hidden_act(channel.get("activation", "gelu")),
        "layer_norm_eps": (resolved["head"]["norm"] or {}).get("eps"),
    }


def _spec(
    stem: Mapping[str, Any],
    depth: int,
    attention: Mapping[str, Any],
    mlp: Mapping[str, Any],
    norm: Mapping[str, Any],
    head: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "stem": {"kind": "patches", **stem},
        "body": {
            "kind": "stack",
            "depth": depth,
            "mixer": {"kind": "attention", **attention},
            "channel": {"kind": "mlp", **mlp},
            "scheme": {"kind": "pre", "norm": norm},
            "prefix": 1,  # the class token, with a position of its own
            "position": {"kind": "learned", "prefix": 1},
        },
        "head": {"kind": "classes", "pool": "token", "norm": norm, **head},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """timm's names, which are those of DeiT's authors as well (ViT's authors have arrays of Flax, which are not read);
    transformers' of version 5's modules and of its files; Pre-RMSNorm's (arXiv 2305.14858)."""
    size, chans = resolved["stem"].get("size", 1), resolved["stem"].get("in_chans", 3)
    eps = {f"{path}.eps": 1e-12 for path in NORMS}
    plain = {f"{path}.{key}": value for path in NORMS for key, value in (("eps", 1e-5), ("affine", False))}
    return [
        Dialect("timm", _timm()),
        *([Dialect("authors", _timm())] if str(resolved.get("name")).startswith("deit") else []),
        Dialect("transformers", _transformers(MODULES), eps),
        Dialect("transformers_files", _transformers(FILES), eps, ignores=(r"^vit\.pooler\.",)),
        Dialect("pre_rmsnorm", _pre_rmsnorm((size, size, chans)), plain | {"body.position.prefix": 0}),
    ]


def doubt(_: Mapping[str, Any], theirs: Mapping[str, Any], __: str) -> str | None:
    """Why a checkpoint is another model's: a distilled DeiT has a token more, and a second classifier."""
    more = next((name for name in ("dist_token", "deit.embeddings.distillation_token") if name in theirs), None)
    return more and (
        f"{more}: these weights are of a distilled DeiT, with a second token and classifier for its teacher, and "
        "formery has no variant for it; take the checkpoint of the model that is not distilled"
    )


NORMS = ("body.blocks.*.scheme.norm", "head.norm")
POSITIONS = ("body.position.prefix", "body.position.table")
BLOCK = "body.blocks.{i}"
PARTS = {
    f"{BLOCK}.scheme.norms.0": "norm1",
    f"{BLOCK}.mixer.qkv": "attn.qkv",
    f"{BLOCK}.mixer.out": "attn.proj",
    f"{BLOCK}.scheme.norms.1": "norm2",
    f"{BLOCK}.channel.expand": "mlp.fc1",
    f"{BLOCK}.channel.reduce": "mlp.fc2",
}
MODULES = {
    "block": "vit.layers.{i}",
    "norms": ("layernorm_before", "layernorm_after"),
    "qkv": tuple(f"attention.{n}_proj" for n in "qkv"),
    "out": "attention.o_proj",
    "expand": "mlp.fc1",
    "reduce": "mlp.fc2",
}
FILES = {
    "block": "vit.encoder.layer.{i}",
    "norms": ("layernorm_before", "layernorm_after"),
    "qkv": tuple(f"attention.attention.{n}" for n in ("query", "key", "value")),
    "out": "attention.output.dense",
    "expand": "intermediate.dense",
    "reduce": "output.dense",
}


def _timm() -> tuple[Rule, ...]:
    return (
        Rule("stem.conv", "patch_embed.proj"),
        Rule("body.prefix", "cls_token", ones=(0,)),
        Rule(POSITIONS, "pos_embed", ones=(0,), rows=True),
        *(Rule(ours, f"blocks.{{i}}.{theirs}") for ours, theirs in PARTS.items()),
        Rule("head.norm", "norm"),
        Rule("head.fc", "head"),
    )


def _transformers(names: Mapping[str, Any]) -> tuple[Rule, ...]:
    theirs = names["block"]
    return (
        Rule("stem.conv", "vit.embeddings.patch_embeddings.projection"),
        Rule("body.prefix", "vit.embeddings.cls_token", ones=(0,)),
        Rule(POSITIONS, "vit.embeddings.position_embeddings", ones=(0,), rows=True),
        *(Rule(f"{BLOCK}.scheme.norms.{n}", f"{theirs}.{norm}") for n, norm in enumerate(names["norms"])),
        Rule(f"{BLOCK}.mixer.qkv", tuple(f"{theirs}.{n}" for n in names["qkv"])),
        Rule(f"{BLOCK}.mixer.out", f"{theirs}.{names['out']}"),
        *(Rule(f"{BLOCK}.channel.{n}", f"{theirs}.{names[n]}") for n in ("expand", "reduce")),
        Rule("head.norm", "vit.layernorm"),
        Rule("head.fc", "classifier"),
    )


def _pre_rmsnorm(patch: tuple[int, int, int]) -> tuple[Rule, ...]:
    """Norms without weights; patches flattened row, column, channel; a class token without position."""
    theirs = "transformer.layers.{i}"
    return (
        Rule("stem.conv.weight", "to_patch_embedding.1.weight", pixels=patch),
        Rule("stem.conv.bias", "to_patch_embedding.1.bias"),
        Rule("body.prefix", "cls_token", ones=(0,)),
        Rule("body.position.table", "pos_embedding", ones=(0,), rows=True),
        Rule(f"{BLOCK}.mixer.qkv", f"{theirs}.1.to_qkv"),
        Rule(f"{BLOCK}.mixer.out", f"{theirs}.1.to_out"),
        Rule(f"{BLOCK}.channel.expand", f"{theirs}.3.net.0"),
        Rule(f"{BLOCK}.channel.reduce", f"{theirs}.3.net.2"),
        Rule("head.fc", "mlp_head.1"),
    )
