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
"""What Llama, Mistral and Qwen mean where a config does not give a base."""
OLMO = {"olmo2": 10000.0, "olmo3": 500000.0}
"""The families whose norms are on what is added, and their bases."""
KINDS = {False: "full_attention", True: "sliding_attention"}
"""transformers' words for layers without and with a window."""


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
    olmo = family in OLMO
    layers.silu_only(config)
    norm = {"kind": "rms", "eps": float(config.get("rms_norm_eps", 1e-5 if olmo else 1e-6))}
    heads, dim = int(config["num_attention_heads"]), int(config["hidden_size"])
    width = int(config.get("head_dim") or (128 if family == "qwen3" else dim // heads))
    bias = bool(config.get("attention_bias", False))
    attention = {
        "kind": "attention",
        "heads": heads,
        "kv_heads": int(config.get("num_key_value_heads") or heads),
        "head_dim": width,
        "qk_norm": norm if family == "qwen3" or olmo else None,
        "qk_norm_over": "width" if olmo else "head",
        "bias": True if family == "qwen2" else bias,
        "out_bias": False if family == "qwen2" else bias,
    }
    channel = {
        "kind": "swiglu",
        "hidden": int(config["intermediate_size"]),
        "bias": bool(config.get("mlp_bias", False)),
    }
    scheme = {"kind": "reordered" if olmo else "pre", "norm": norm}
    blocks = []
    for window in _windows(config):
        position = layers.position(_of_layer(config, window), OLMO.get(family, ROPE_BASE))
        own = {"position": position, "window": window}
        blocks.append({"mixer": attention | own, "channel": channel, "scheme": scheme})
    vocab = int(config["vocab_size"])
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {"kind": "stack", "blocks": blocks},
        "head": {"kind": "next_token", "norm": norm, "tie": bool(config.get("tie_word_embeddings", False))},
    }


def _of_layer(config: Mapping[str, Any], window: int | None) -> Mapping[str, Any]:
    """The config as layers with this window read their rope of it.

    Olmo 3 has one for each kind of layer, and stretches that of full attention alone.
    """
    if config["model_type"] != "olmo3":
        return config
    given = config.get("rope_parameters") or {}
    if given and not set(given) <= set(KINDS.values()):
        raise BadSpec(f"rope_parameters: Olmo 3 has one entry for {' and one for '.join(KINDS.values())}")
    stretched = config.get("rope_scaling") if window is None else None
    return {**config, "rope_parameters": given.get(KINDS[window is not None]), "rope_scaling": stretched}


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    blocks = resolved["body"]["blocks"]
    mixers = [block.get("mixer") or {} for block in blocks]
    first, channel, head = mixers[0], blocks[0]["channel"] or {}, resolved["head"]
    windows = [mixer.get("window") for mixer in mixers]
    family = _family(resolved)
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
    if family != "qwen2":
        config |= {"attention_bias": bool(first.get("bias"))}
    kinds = [KINDS[window is not None] for window in windows]
    sliding = next(filter(None, windows), None)
    if family == "olmo3":
        ropes = {kind: layers.rope_parameters(mixers[kinds.index(kind)].get("position")) for kind in kinds}
        none = {"sliding_attention": ropes.get("full_attention"), "full_attention": ropes.get("sliding_attention")}
        return config | {"rope_parameters": none | ropes, "sliding_window": sliding, "layer_types": kinds}
    if sliding is not None and family != "olmo2":
        config |= {"use_sliding_window": True, "sliding_window": sliding, "layer_types": kinds}
        config |= {"max_window_layers": windows.index(sliding)}
    return config


def _family(resolved: Mapping[str, Any]) -> str:
    """The `model_type` that a spec's parts are those of."""
    blocks = resolved["body"]["blocks"]
    mixers = [block.get("mixer") or {} for block in blocks]
    windows = [mixer.get("window") for mixer in mixers]
    if blocks[0]["scheme"]["kind"] == "reordered":
        return "olmo3" if any(windows) else "olmo2"
    if mixers[0].get("qk_norm"):
        return "qwen3"
    if mixers[0].get("bias") and not mixers[0].get("out_bias"):
        return "qwen2"
    return "mistral" if all(windows) else "llama"


def _windows(config: Mapping[str, Any]) -> list[int | None]:
    """How many tokens each layer's attention looks back at; None for all."""
    family, depth = config["model_type"], int(config["num_hidden_layers"])
    window = config.get("sliding_window", 4096 if family == "olmo3" else None)
    if family in ("llama", "olmo2") or window is None:
        return [None] * depth
    if family == "mistral":
        return [int(window)] * depth
    full, sliding = KINDS.values()
    if family == "olmo3":
        usual = [full if i % 4 == 3 else sliding for i in range(depth)]
    elif config.get("use_sliding_window", False):
        first = int(config.get("max_window_layers", 28))
        usual = [full if i < first else sliding for i in range(depth)]
    else:
        return [None] * depth
    kinds = config.get("layer_types") or usual
    if len(kinds) != depth or not set(kinds) <= {full, sliding}:
        raise BadSpec(f"layer_types: {depth} times {full} or {sliding} are needed, got {list(kinds)}")
    return [int(window) if kind == sliding else None for kind in kinds]


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """transformers' names for the Llama family, and those of Pre-RMSNorm's GPT."""
    return [
        Dialect("transformers", _transformers(resolved), ignores=(r"\.rotary_emb\.inv_freq$",)),
        Dialect("pre_rmsnorm", _pre_rmsnorm()),
    ]


BLOCK = "body.blocks.{i}"


def _transformers(resolved: Mapping[str, Any]) -> tuple[Rule, ...]:
    theirs, dim = "model.layers.{i}", resolved["stem"]["dim"]
    norms = ("input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm")
    added = resolved["body"]["blocks"][0]["scheme"]["kind"] == "reordered"
    rules = [
        Rule("stem.embed", "model.embed_tokens"),
        *(Rule(f"{BLOCK}.scheme.norms.{i}", f"{theirs}.{norm}") for i, norm in enumerate(norms[added : added + 2])),
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
