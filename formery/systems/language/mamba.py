"""Mamba (arXiv 2312.00752) and Mamba-2 (arXiv 2405.21060): one gated recurrent block, repeated, and nothing else.

Each block is one sublayer: norm, mixer, residual. There are no positions and no MLPs; the scores share the table of
tokens. The vocabularies are those of the releases, padded to a multiple of 8 (Mamba) and 16 (Mamba-2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import BadSpec
from ...weights import Dialect, Rule
from .. import published_layers as layers

SIZES: dict[str, tuple[int, int]] = {  # width, depth
    "130m": (768, 24),
    "370m": (1024, 48),
    "780m": (1536, 48),
    "790m": (1536, 48),
    "1_3b": (2048, 48),
    "1_4b": (2048, 48),
    "2_7b": (2560, 64),
    "2_8b": (2560, 64),
}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant; the tiny ones are over bytes."""
    kind, _, size = name.partition("_")
    first = kind == "mamba"
    if size == "tiny":
        small: dict[str, Any] = {} if first else {"heads": 8, "head_dim": 32, "state": 32}
        return spec(dim=128, depth=4, vocab=256, mixer={"kind": kind, **small})
    dim, depth = SIZES[size]
    heads: dict[str, Any] = {} if first else {"heads": dim // 32}
    return spec(dim=dim, depth=depth, vocab=50280 if first else 50288, mixer={"kind": kind, **heads})


def spec(
    *, dim: int, depth: int, vocab: int, mixer: Mapping[str, Any], eps: float = 1e-5, tie: bool = True
) -> dict[str, Any]:
    """A model of any size, of either mixer."""
    norm = {"kind": "rms", "eps": eps}
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {
            "kind": "stack",
            "depth": depth,
            "mixer": dict(mixer),
            "channel": None,
            "scheme": {"kind": "pre", "norm": norm},
        },
        "head": {"kind": "next_token", "norm": norm, "tie": tie},
    }


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a `mamba` or `mamba2` config of transformers describes; BadSpec names what has no part here."""
    layers.silu_only(config)
    dim, eps = int(config["hidden_size"]), float(config.get("layer_norm_epsilon", 1e-5))
    inner = int(config.get("expand", 2) * dim)
    second = config["model_type"] == "mamba2"
    shared = {
        "conv": int(config.get("conv_kernel", 4)),
        "bias": bool(config.get("use_bias", False)),
        "conv_bias": bool(config.get("use_conv_bias", True)),
    }
    if second:
        mixer = {**layers.mamba2_options(config), **shared, "eps": eps}
        if mixer["heads"] * mixer["head_dim"] != inner:
            raise BadSpec(
                f"num_heads: {mixer['heads']} heads of {mixer['head_dim']} are not the {inner} channels that expand "
                "makes of the width"
            )
    else:
        rank = config.get("time_step_rank", "auto")
        mixer = {
            "kind": "mamba",
            "inner": inner,
            "state": int(config.get("state_size", 16)),
            "rank": math.ceil(dim / 16) if rank == "auto" else int(rank),
            **shared,
        }
    return spec(
        dim=dim,
        depth=int(config["num_hidden_layers"]),
        vocab=int(config["vocab_size"]),
        mixer=mixer,
        eps=eps,
        tie=bool(config.get("tie_word_embeddings", not second)),
    )


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    blocks, dim, head = resolved["body"]["blocks"], resolved["stem"]["dim"], resolved["head"]
    mixer = blocks[0]["mixer"]
    second = mixer["kind"] == "mamba2"
    inner = layers.mamba_width(mixer, dim)
    if inner % dim:
        raise BadSpec(f"inner: transformers' is a multiple of the width {dim}, here it is {inner}")
    config = {
        "architectures": ["Mamba2ForCausalLM" if second else "MambaForCausalLM"],
        "model_type": "mamba2" if second else "mamba",
        "vocab_size": resolved["stem"]["vocab"],
        "hidden_size": dim,
        "num_hidden_layers": len(blocks),
        "state_size": mixer["state"],
        "expand": inner // dim,
        "conv_kernel": mixer["conv"],
        "use_bias": mixer["bias"],
        "use_conv_bias": mixer["conv_bias"],
        "hidden_act": "silu",
        "layer_norm_epsilon": (head["norm"] or {}).get("eps"),
        "tie_word_embeddings": head["tie"],
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if not second:
        return config | {"time_step_rank": mixer["rank"] or math.ceil(dim / 16)}
    own = {"num_heads": inner // mixer["head_dim"], "head_dim": mixer["head_dim"], "n_groups": mixer["groups"]}
    return config | own | {"time_step_limit": layers.step_limits(mixer)}


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """transformers' names and the authors', who call the table of tokens otherwise."""
    return [
        Dialect(name, _rules(resolved, table))
        for name, table in (("transformers", "embeddings"), ("authors", "embedding"))
    ]


def _rules(resolved: Mapping[str, Any], table: str) -> tuple[Rule, ...]:
    rules = [
        Rule("stem.embed", f"backbone.{table}"),
        Rule("body.blocks.{i}.scheme.norms.0", "backbone.layers.{i}.norm"),
        Rule("head.norm", "backbone.norm_f"),
        Rule("head.scores", "lm_head"),
    ]
    for i, block in enumerate(resolved["body"]["blocks"]):
        rules += layers.mamba(f"body.blocks.{i}.mixer", f"backbone.layers.{i}.mixer", block.get("mixer") or {})
    return tuple(rules)
