"""The Llama decoder (arXiv 2302.13971): pre-norm RMS, rotary attention, gated MLP; the baseline of language models.

`from_config` makes the spec of any checkpoint folder of transformers whose `model_type` the card names; their files all
use Llama's names. GPT's older wiring, as in Pre-RMSNorm's code (arXiv 2305.14858), is reached by a spec of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadSpec
from ...weights import Dialect, Rule
from .. import published_layers as layers

SIZES: dict[str, tuple[int, int, int]] = {  # width, depth, heads: plain baselines over bytes, nobody's publication
    "tiny": (128, 5, 4),
    "small": (512, 8, 8),
    "base": (768, 12, 12),
}
ROPE_BASE = 10000.0
"""What all four families mean where a config does not give a base."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    dim, depth, heads = SIZES[name.rpartition("_")[2]]
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": 256},
        "body": {
            "kind": "stack",
            "depth": depth,
            "mixer": {"kind": "attention", "heads": heads, "position": "rope", "bias": False, "out_bias": False},
            "channel": "swiglu",
            "scheme": {"kind": "pre", "norm": "rms"},
        },
        "head": {"kind": "next_token", "norm": "rms"},
    }


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a config of transformers describes; BadSpec names the entry that formery has no part for."""
    family = config["model_type"]
    layers.silu_only(config)
    norm = {"kind": "rms", "eps": float(config.get("rms_norm_eps", 1e-6))}
    heads, dim = int(config["num_attention_heads"]), int(config["hidden_size"])
    bias = bool(config.get("attention_bias", False))
    windows = _windows(config)
    attention = {
        "kind": "attention",
        "heads": heads,
        "kv_heads": int(config.get("num_key_value_heads") or heads),
        "head_dim": int(config.get("head_dim") or (128 if family == "qwen3" else dim // heads)),
        "position": _rope(config),
        "qk_norm": norm if family == "qwen3" else None,
        "bias": True if family == "qwen2" else bias,
        "out_bias": False if family == "qwen2" else bias,
    }
    channel = {
        "kind": "swiglu",
        "hidden": int(config["intermediate_size"]),
        "bias": bool(config.get("mlp_bias", False)),
    }
    scheme = {"kind": "pre", "norm": norm}
    blocks = [{"mixer": attention | {"window": window}, "channel": channel, "scheme": scheme} for window in windows]
    vocab = int(config["vocab_size"])
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {"kind": "stack", "blocks": blocks},
        "head": {"kind": "next_token", "norm": norm, "tie": bool(config.get("tie_word_embeddings", False))},
    }


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    blocks = resolved["body"]["blocks"]
    mixers = [block.get("mixer") or {} for block in blocks]
    first, channel, head = mixers[0], blocks[0]["channel"] or {}, resolved["head"]
    windows = [mixer.get("window") for mixer in mixers]
    family = "llama"
    if first.get("qk_norm"):
        family = "qwen3"
    elif first.get("bias") and not first.get("out_bias"):
        family = "qwen2"
    elif all(windows):
        family = "mistral"
    dim, heads = resolved["stem"]["dim"], first.get("heads") or 1
    config = {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        "vocab_size": resolved["stem"]["vocab"],
        "hidden_size": dim,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": heads,
        "num_key_value_heads": first.get("kv_heads") or heads,
        "head_dim": first.get("head_dim") or dim // heads,
        "intermediate_size": layers.swiglu_width(channel, dim),
        "hidden_act": "silu",
        "rms_norm_eps": (head.get("norm") or {}).get("eps"),
        "rope_parameters": layers.rope_parameters(first.get("position")),
        "tie_word_embeddings": head["tie"],
    }
    if family == "mistral":
        return config | {"sliding_window": windows[0]}
    if family == "llama":
        return config | {"attention_bias": bool(first.get("bias")), "mlp_bias": bool(channel.get("bias"))}
    if any(windows):
        kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
        sliding = {"use_sliding_window": True, "sliding_window": next(filter(None, windows)), "layer_types": kinds}
        config |= sliding | {"max_window_layers": windows.index(sliding["sliding_window"])}
    return config | ({"attention_bias": bool(first.get("bias"))} if family == "qwen3" else {})


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    theta, fraction = layers.rope(config)
    explicit = [config.get("rope_parameters"), config]
    if theta is None and any(entry and "rope_theta" in entry for entry in explicit):
        raise BadSpec("rope_theta: these decoders turn by some base, got null; write the base into the config")
    return {"kind": "rope", "theta": ROPE_BASE if theta is None else theta, "fraction": fraction}


def _windows(config: Mapping[str, Any]) -> list[int | None]:
    """How many tokens each layer's attention looks back at; None for all."""
    family, depth = config["model_type"], int(config["num_hidden_layers"])
    window = config.get("sliding_window")
    if family == "llama" or window is None:
        return [None] * depth
    if family == "mistral":
        return [int(window)] * depth
    if not config.get("use_sliding_window", False):
        return [None] * depth
    first = int(config.get("max_window_layers", 28))
    kinds = config.get("layer_types") or ["full_attention" if i < first else "sliding_attention" for i in range(depth)]
    if len(kinds) != depth:
        raise BadSpec(f"layer_types: {len(kinds)} entries for {depth} layers")
    return [int(window) if kind == "sliding_attention" else None for kind in kinds]


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """transformers' names for the Llama family, and those of Pre-RMSNorm's GPT."""
    return [
        Dialect("transformers", _transformers(resolved), ignores=(r"\.rotary_emb\.inv_freq$",)),
        Dialect("pre_rmsnorm", _pre_rmsnorm()),
    ]


BLOCK = "body.blocks.{i}"


def _transformers(resolved: Mapping[str, Any]) -> tuple[Rule, ...]:
    theirs, dim = "model.layers.{i}", resolved["stem"]["dim"]
    rules = [
        Rule("stem.embed", "model.embed_tokens"),
        Rule(f"{BLOCK}.scheme.norms.0", f"{theirs}.input_layernorm"),
        Rule(f"{BLOCK}.scheme.norms.1", f"{theirs}.post_attention_layernorm"),
        *layers.swiglu(f"{BLOCK}.channel", f"{theirs}.mlp"),
        Rule("head.norm", "model.norm"),
        Rule("head.scores", "lm_head"),
    ]
    for i, block in enumerate(resolved["body"]["blocks"]):
        mixer = block.get("mixer") or {}
        if mixer.get("kind") == "attention":
            rules += layers.attention(f"body.blocks.{i}.mixer", f"model.layers.{i}.self_attn", mixer, dim)
    return tuple(rules)


def _pre_rmsnorm() -> tuple[Rule, ...]:
    """Norms without weights, learned positions."""
    theirs = "transformer.layers.{i}"
    return (
        Rule("stem.embed", "wte"),
        Rule("body.position.table", "wpe.weight"),
        Rule(f"{BLOCK}.mixer.qkv", f"{theirs}.1.to_qkv"),
        Rule(f"{BLOCK}.mixer.out", f"{theirs}.1.to_out"),
        Rule(f"{BLOCK}.channel.expand", f"{theirs}.3.net.0"),
        Rule(f"{BLOCK}.channel.reduce", f"{theirs}.3.net.2"),
        Rule("head.scores", "final_linear"),
    )
