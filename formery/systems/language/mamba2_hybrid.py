"""Mamba-2-Hybrid (arXiv 2406.07887): layers of one sublayer each, Mamba-2, attention without positions, or an MLP.

The order of the layers follows from shares: `allocate(56, attention=.08, mlp=.5)` (see `formery.layout`). Later models
of the family are saved by transformers as `nemotron_h`; their layers of experts have no part here yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadSpec
from ...layout import compress
from ...weights import Dialect, Rule
from .. import published_layers as layers

SHARES = "attention=.08, mlp=.5"


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant; the tiny one is over bytes."""
    if name == "mamba2_hybrid_tiny":
        return spec(
            dim=128,
            vocab=256,
            layout="allocate(8, attention=.125, mlp=.5)",
            mamba={"heads": 8, "head_dim": 32, "groups": 2, "state": 32},
            attention={"heads": 4, "kv_heads": 2, "head_dim": 32},
            mlp={"hidden": 512},
        )
    return spec(
        dim=4096,
        vocab=256000,
        layout="mamba2*56" if name == "mamba2_8b" else f"allocate(56, {SHARES})",
        mamba={"heads": 128, "head_dim": 64, "groups": 8, "state": 128},
        attention={"heads": 32, "kv_heads": 8, "head_dim": 128},
        mlp={"hidden": 16384},
    )


def spec(
    *,
    dim: int,
    vocab: int,
    layout: str,
    mamba: Mapping[str, Any],
    attention: Mapping[str, Any],
    mlp: Mapping[str, Any],
    eps: float = 1e-5,
) -> dict[str, Any]:
    """A hybrid of any size and order; its layout's words are mamba2, attention and mlp."""
    norm = {"kind": "rms", "eps": eps}
    scheme = {"kind": "pre", "norm": norm}
    bare = {"kind": "attention", "bias": False, "out_bias": False}
    blocks = {
        "mamba2": {"mixer": {"kind": "mamba2", "eps": eps, **mamba}, "channel": None, "scheme": scheme},
        "attention": {"mixer": bare | dict(attention), "channel": None, "scheme": scheme},
        "mlp": {
            "mixer": None,
            "channel": {"kind": "mlp", "activation": "relu2", "bias": False, **mlp},
            "scheme": scheme,
        },
    }
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {"kind": "stack", "layout": layout, "blocks": blocks},
        "head": {"kind": "next_token", "norm": norm},
    }


KINDS = {"linear_attention": "mamba2", "full_attention": "attention", "mlp": "mlp"}
"""transformers' kinds of layers and our words."""
OLDER = {"mamba": "linear_attention", "attention": "full_attention"}
SYMBOLS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a `nemotron_h` config of transformers describes; BadSpec names what formery has no part for.

    transformers 5.23.0 bounds steps from below by `time_step_min`, whatever `time_step_limit` says, and its attention
    has no biases, whatever `attention_bias` says.
    """
    layers.silu_only({"hidden_act": config.get("mamba_hidden_act", "silu")})
    heads = int(config.get("num_attention_heads", 32))
    mamba = layers.mamba2_options(config, prefix="mamba_") | {
        "conv": int(config.get("conv_kernel", 4)),
        "bias": bool(config.get("use_bias", False)),
        "conv_bias": bool(config.get("use_conv_bias", True)),
        "min_step": float(config.get("time_step_min", 0.001)),
        "max_step": None,
    }
    return spec(
        dim=int(config["hidden_size"]),
        vocab=int(config["vocab_size"]),
        layout=compress(_words(config)),
        mamba=mamba,
        attention={
            "heads": heads,
            "kv_heads": int(config.get("num_key_value_heads") or heads),
            "head_dim": int(config.get("head_dim", 128)),
        },
        mlp={
            "hidden": int(config["intermediate_size"]),
            "activation": layers.activation({"hidden_act": config.get("mlp_hidden_act", "relu2")}),
            "bias": bool(config.get("mlp_bias", False)),
        },
        eps=float(config.get("layer_norm_epsilon", 1e-5)),
    )


def _words(config: Mapping[str, Any]) -> list[str]:
    """The layers of a config, by list or by symbols; BadSpec for those of experts."""
    kinds: Sequence[str] | None = config.get("layers_block_type") or config.get("layer_types")
    if kinds is None:
        kinds = [SYMBOLS.get(symbol, symbol) for symbol in config["hybrid_override_pattern"]]
    kinds = [OLDER.get(kind, kind) for kind in kinds]
    if "moe" in kinds:
        raise BadSpec(f"layers_block_type: layer {kinds.index('moe')} is a mixture of experts, which has no part here")
    if other := next((kind for kind in kinds if kind not in KINDS), None):
        raise BadSpec(f"layers_block_type: a layer is one of {', '.join(KINDS)}, got {other!r}")
    return [KINDS[kind] for kind in kinds]


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    blocks, dim = resolved["body"]["blocks"], resolved["stem"]["dim"]
    found = {word: next((b for b in blocks if _word(b) == word), None) for word in KINDS.values()}
    mamba, attention = ((found[word] or {}).get("mixer") or {} for word in ("mamba2", "attention"))
    mlp = (found["mlp"] or {}).get("channel") or {}
    theirs = {ours: kind for kind, ours in KINDS.items()}
    config = {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        "vocab_size": resolved["stem"]["vocab"],
        "hidden_size": dim,
        "layers_block_type": [theirs[_word(block)] for block in blocks],
        "layer_norm_epsilon": (resolved["head"]["norm"] or {}).get("eps"),
        "intermediate_size": mlp.get("hidden") or int(dim * mlp.get("ratio", 4.0)),
        "mlp_hidden_act": layers.hidden_act(mlp.get("activation", "relu2")),
        "mlp_bias": mlp.get("bias", False),
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if attention:
        config |= {
            "num_attention_heads": attention["heads"],
            "num_key_value_heads": attention["kv_heads"] or attention["heads"],
            "head_dim": attention["head_dim"] or dim // attention["heads"],
            "attention_bias": False,
        }
    if mamba:
        config |= {
            "mamba_num_heads": layers.mamba_width(mamba, dim) // mamba["head_dim"],
            "mamba_head_dim": mamba["head_dim"],
            "n_groups": mamba["groups"],
            "ssm_state_size": mamba["state"],
            "conv_kernel": mamba["conv"],
            "use_bias": mamba["bias"],
            "use_conv_bias": mamba["conv_bias"],
            "time_step_min": mamba["min_step"],
        }
    return config


def _word(block: Mapping[str, Any]) -> str:
    """Our word for a resolved block of one sublayer; BadSpec for others."""
    parts = [block.get("mixer"), block.get("channel")]
    given = [part["kind"] for part in parts if part]
    if len(given) != 1 or given[0] not in KINDS.values():
        raise BadSpec(f"a layer is one of {', '.join(KINDS.values())} alone, got {' and '.join(map(str, given))}")
    return str(given[0])


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """Names of transformers' modules and of the files that it and the releases have."""
    ignores = (r"^mtp\.",)
    return [
        Dialect("transformers", _rules(resolved, "model"), ignores=ignores),
        Dialect("transformers_files", _rules(resolved, "backbone"), ignores=ignores),
    ]


def _rules(resolved: Mapping[str, Any], root: str) -> tuple[Rule, ...]:
    rules = [
        Rule("stem.embed", f"{root}.embeddings"),
        Rule("body.blocks.{i}.scheme.norms.0", root + ".layers.{i}.norm"),
        Rule("body.blocks.{i}.channel.expand", root + ".layers.{i}.mixer.up_proj"),
        Rule("body.blocks.{i}.channel.reduce", root + ".layers.{i}.mixer.down_proj"),
        Rule("head.norm", f"{root}.norm_f"),
        Rule("head.scores", "lm_head"),
    ]
    for i, block in enumerate(resolved["body"]["blocks"]):
        ours, theirs, mixer = f"body.blocks.{i}.mixer", f"{root}.layers.{i}.mixer", block.get("mixer") or {}
        rules += layers.mamba(ours, theirs, mixer)
        if mixer.get("kind") == "attention":
            rules += layers.attention(ours, theirs, mixer, resolved["stem"]["dim"])
    return tuple(rules)
