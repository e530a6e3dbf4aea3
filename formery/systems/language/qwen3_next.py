"""Qwen3-Next (Qwen team, 2025): Gated DeltaNet with gated attention every fourth layer, and a mixture of experts.

Every layer is pre-norm, with norms whose weights are kept around one; attention's heads are normed alone and turned by
a quarter of their channels. Any folder of transformers whose config is a `qwen3_next` loads by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...weights import Dialect, Rule
from .. import published_layers as layers

INTERVAL = 4
FRACTION = 0.25
ROPE_BASE = 10000.0
"""Where a config does not give a base."""
ROPE = {"kind": "rope", "theta": ROPE_BASE, "fraction": FRACTION}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    if name == "qwen3_next_80b_a3b":
        return spec(
            dim=2048,
            vocab=151936,
            kinds=_kinds(None, 48),
            attention={"heads": 16, "kv_heads": 2, "head_dim": 256},
            recurrent={"heads": 16, "head_dim": 128, "value_heads": 32, "value_dim": 128},
            experts={"experts": 512, "top": 10, "hidden": 512, "shared": 512},
            position=ROPE | {"theta": 1e7},
        )
    return spec(
        dim=128,
        vocab=256,
        kinds=_kinds(None, 4),
        attention={"heads": 4, "kv_heads": 2, "head_dim": 32},
        recurrent={"heads": 2, "head_dim": 32, "value_heads": 4, "value_dim": 32},
        experts={"experts": 8, "top": 2, "hidden": 64, "shared": 64},
    )


def spec(
    *,
    dim: int,
    vocab: int,
    kinds: Sequence[str],
    attention: Mapping[str, Any],
    recurrent: Mapping[str, Any],
    experts: Mapping[str, Any],
    position: Mapping[str, Any] | None = ROPE,
    conv: int = 4,
    bias: bool = False,
    dense: Mapping[int, int] | None = None,
    eps: float = 1e-6,
    tie: bool = False,
) -> dict[str, Any]:
    """A Qwen3-Next of any size. `kinds` are gated_deltanet or attention, a layer each; `attention`, `recurrent` and
    `experts` the sizes of their parts. `dense` has the hidden channels of layers with a plain SwiGLU in the place of
    the experts, by their number.
    """
    norm = {"kind": "rms_around_one", "eps": eps}
    mixers = {
        "gated_deltanet": {"kind": "gated_deltanet", **recurrent, "conv": conv, "negative": False, "eps": eps},
        "attention": {
            "kind": "attention",
            **attention,
            "position": position,
            "qk_norm": norm,
            "gated": True,
            "bias": bias,
            "out_bias": bias,
        },
    }
    mixture = {"kind": "mixture_of_experts", "shared_gate": True, **experts}
    plain = {i: {"kind": "swiglu", "hidden": hidden} for i, hidden in (dense or {}).items()}
    scheme = {"kind": "pre", "norm": norm}
    blocks = [
        {"mixer": mixers[kind], "channel": plain.get(i, mixture), "scheme": scheme} for i, kind in enumerate(kinds)
    ]
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {"kind": "stack", "blocks": blocks},
        "head": {"kind": "next_token", "norm": norm, "tie": tie},
    }


def _kinds(given: Sequence[str] | None, depth: int, interval: int = INTERVAL) -> list[str]:
    """Ours of a config's `layer_types`; without them attention is every `interval`-th layer."""
    return layers.mixer_kinds(layers.usual_layer_types(depth, interval) if given is None else given, depth)


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a `qwen3_next` config of transformers describes; BadSpec names what formery has no part for."""
    layers.silu_only(config)
    depth, num_experts = int(config["num_hidden_layers"]), int(config.get("num_experts", 512))
    step, plain = int(config.get("decoder_sparse_step", 1)), config.get("mlp_only_layers") or []
    sparse = {i for i in range(depth) if i not in plain and num_experts > 0 and (i + 1) % step == 0}
    return spec(
        dim=int(config["hidden_size"]),
        vocab=int(config["vocab_size"]),
        kinds=_kinds(config.get("layer_types"), depth, int(config.get("full_attention_interval", INTERVAL))),
        attention={
            "heads": int(config["num_attention_heads"]),
            "kv_heads": int(config.get("num_key_value_heads") or config["num_attention_heads"]),
            "head_dim": int(config.get("head_dim") or 256),
        },
        recurrent={
            "heads": int(config.get("linear_num_key_heads", 16)),
            "head_dim": int(config.get("linear_key_head_dim", 128)),
            "value_heads": int(config.get("linear_num_value_heads", 32)),
            "value_dim": int(config.get("linear_value_head_dim", 128)),
        },
        experts={
            "experts": num_experts,
            "top": int(config.get("num_experts_per_tok", 10)),
            "hidden": int(config.get("moe_intermediate_size", 512)),
            "shared": int(config.get("shared_expert_intermediate_size", 512)),
            "renormalise": bool(config.get("norm_topk_prob", True)),
        },
        position=layers.position(config, ROPE_BASE, fraction=FRACTION),
        conv=int(config.get("linear_conv_kernel_dim", 4)),
        bias=bool(config.get("attention_bias", False)),
        dense={i: int(config["intermediate_size"]) for i in range(depth) if i not in sparse},
        eps=float(config.get("rms_norm_eps", 1e-6)),
        tie=bool(config.get("tie_word_embeddings", False)),
    )


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    blocks, dim = resolved["body"]["blocks"], resolved["stem"]["dim"]
    mixers, channels = ([block.get(role) or {} for block in blocks] for role in ("mixer", "channel"))
    by_kind = {part.get("kind"): part for part in (*mixers, *channels)}
    attention, recurrent = by_kind.get("attention", {}), by_kind.get("gated_deltanet", {})
    experts, dense = by_kind.get("mixture_of_experts", {}), by_kind.get("swiglu", {})
    head_dim = recurrent.get("head_dim") or 0
    return {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "vocab_size": resolved["stem"]["vocab"],
        "hidden_size": dim,
        "num_hidden_layers": len(blocks),
        "layer_types": layers.layer_types(mixers),
        "num_attention_heads": attention.get("heads") or 1,
        "num_key_value_heads": attention.get("kv_heads") or attention.get("heads") or 1,
        "head_dim": attention.get("head_dim") or dim // (attention.get("heads") or 1),
        "attention_bias": bool(attention.get("bias")),
        "hidden_act": "silu",
        "rms_norm_eps": (resolved["head"]["norm"] or {}).get("eps"),
        "rope_parameters": layers.rope_parameters(attention.get("position"), always_fraction=True),
        "tie_word_embeddings": resolved["head"]["tie"],
        "linear_num_key_heads": recurrent.get("heads") or 1,
        "linear_num_value_heads": recurrent.get("value_heads") or recurrent.get("heads") or 1,
        "linear_key_head_dim": head_dim,
        "linear_value_head_dim": recurrent.get("value_dim") or 2 * head_dim,
        "linear_conv_kernel_dim": recurrent.get("conv") or 4,
        "intermediate_size": layers.swiglu_width(dense, dim),
        "num_experts": experts.get("experts", 0),
        "num_experts_per_tok": experts.get("top", 0),
        "moe_intermediate_size": experts.get("hidden", 0),
        "shared_expert_intermediate_size": experts.get("shared") or 0,
        "norm_topk_prob": experts.get("renormalise", True),
        "mlp_only_layers": [i for i, part in enumerate(channels) if part.get("kind") != "mixture_of_experts"],
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """Names of transformers 5's modules, and of the files: one tensor an expert. Files may hold a layer that predicts
    several tokens ahead (mtp), which has no place here."""
    ignores = (r"^mtp\.", r"\.rotary_emb\.inv_freq$")
    return [
        Dialect("transformers", _rules(resolved, files=False), ignores=ignores),
        Dialect("transformers_files", _rules(resolved, files=True), ignores=ignores),
    ]


def _rules(resolved: Mapping[str, Any], *, files: bool) -> tuple[Rule, ...]:
    rules = [
        Rule("stem.embed", "model.embed_tokens"),
        Rule("head.norm", "model.norm"),
        Rule("head.scores", "lm_head"),
    ]
    for i, block in enumerate(resolved["body"]["blocks"]):
        ours, theirs = f"body.blocks.{i}", f"model.layers.{i}"
        mixer, channel = block.get("mixer") or {}, block.get("channel") or {}
        norms = ("input_layernorm", "post_attention_layernorm")
        rules += [Rule(f"{ours}.scheme.norms.{n}", f"{theirs}.{norm}") for n, norm in enumerate(norms)]
        if mixer.get("kind") == "gated_deltanet":
            rules += _recurrent(f"{ours}.mixer", f"{theirs}.linear_attn", mixer)
        elif mixer.get("kind") == "attention":
            rules += _attention(f"{ours}.mixer", f"{theirs}.self_attn", mixer, resolved["stem"]["dim"])
        if channel.get("kind") == "mixture_of_experts":
            rules += _experts(f"{ours}.channel", f"{theirs}.mlp", channel["experts"], files=files)
        elif channel.get("kind") == "swiglu":
            rules += layers.swiglu(f"{ours}.channel", f"{theirs}.mlp")
    return tuple(rules)


def _recurrent(ours: str, theirs: str, mixer: Mapping[str, Any]) -> list[Rule]:
    """Their two projections have a group of rows a key head: q, k, v and z; b and a."""
    heads, keys = mixer["heads"], mixer["head_dim"]
    repeats = (mixer["value_heads"] or heads) // heads
    values = repeats * (mixer["value_dim"] or 2 * keys)
    return [
        Rule(
            f"{ours}.project",
            (f"{theirs}.in_proj_qkvz", f"{theirs}.in_proj_ba"),
            pieces=((heads, (keys, keys, values, values)), (heads, (repeats, repeats))),
            order=(0, 1, 2, 3, 5, 4),
        ),
        Rule(f"{ours}.conv", f"{theirs}.conv1d.weight", ones=(1,)),
        Rule(f"{ours}.log_rate", f"{theirs}.A_log"),
        Rule(f"{ours}.step_bias", f"{theirs}.dt_bias"),
        Rule(f"{ours}.norm", f"{theirs}.norm.weight"),
        Rule(f"{ours}.out", f"{theirs}.out_proj"),
    ]


def _attention(ours: str, theirs: str, mixer: Mapping[str, Any], dim: int) -> list[Rule]:
    """Their q has a head's query and its gate one after the other."""
    heads = mixer["heads"]
    width = mixer["head_dim"] or dim // heads
    keys = (mixer["kv_heads"] or heads) * width
    return [
        Rule(
            f"{ours}.qkv",
            tuple(f"{theirs}.{n}_proj" for n in "qkv"),
            pieces=((heads, (width, width)), (1, (keys,)), (1, (keys,))),
            order=(0, 2, 3, 1),
        ),
        *(Rule(f"{ours}.{n}", f"{theirs}.{n}") for n in ("q_norm", "k_norm")),
        Rule(f"{ours}.out", f"{theirs}.o_proj"),
    ]


def _experts(ours: str, theirs: str, count: int, *, files: bool) -> list[Rule]:
    rules = [
        Rule(f"{ours}.router", f"{theirs}.gate"),
        *layers.swiglu(f"{ours}.shared", f"{theirs}.shared_expert"),
        Rule(f"{ours}.shared_gate", f"{theirs}.shared_expert_gate"),
    ]
    if not files:
        names = {"expand": "gate_up_proj", "reduce": "down_proj"}
        return rules + [Rule(f"{ours}.{n}", f"{theirs}.experts.{their}") for n, their in names.items()]
    each = [f"{theirs}.experts.{e}" for e in range(count)]
    return [
        *rules,
        Rule(f"{ours}.expand", tuple(f"{e}.{n}_proj.weight" for e in each for n in ("gate", "up")), rows=True),
        Rule(f"{ours}.reduce", tuple(f"{e}.down_proj.weight" for e in each), rows=True),
    ]
