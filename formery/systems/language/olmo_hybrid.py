"""Olmo Hybrid (Allen Institute for AI, 2026): Gated DeltaNet with full attention every fourth layer.

The two kinds of layer meet the residual stream differently: recurrent ones pre-norm, attention ones with the norm on
what they add. Attention has no positions in the released checkpoints; `spec` makes everyone say what they want.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadSpec
from ...weights import Dialect, Rule
from .. import published_layers as layers

LAYOUT = "(gated_deltanet*3 attention)"


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant; none of them has positions."""
    if name == "olmo_hybrid_7b":
        layout, vocab = f"{LAYOUT}*8", 100352
        return spec(dim=3840, vocab=vocab, hidden=11008, heads=30, head_dim=96, layout=layout, position=None)
    return spec(dim=128, vocab=256, hidden=352, heads=4, head_dim=24, layout=LAYOUT, position=None)


def spec(
    *,
    dim: int,
    vocab: int,
    hidden: int,
    heads: int,
    head_dim: int,
    layout: str,
    position: Mapping[str, Any] | None,
    kv_heads: int | None = None,
    linear_heads: int | None = None,
    value_heads: int | None = None,
    value_dim: int | None = None,
    conv: int = 4,
    negative: bool = True,
    eps: float = 1e-6,
    tie: bool = False,
) -> dict[str, Any]:
    """An Olmo Hybrid of any size. `position` is that of attention and must be said: null for none, or a rope.

    `head_dim` is the width of the recurrence's keys; attention's heads share the model's width. The recurrence's norm
    keeps its own epsilon of 1e-5.
    """
    norm = {"kind": "rms", "eps": eps}
    channel = {"kind": "swiglu", "hidden": hidden}
    recurrent = {
        "kind": "gated_deltanet",
        "heads": linear_heads or heads,
        "head_dim": head_dim,
        "value_heads": value_heads,
        "value_dim": value_dim,
        "conv": conv,
        "negative": negative,
        "eps": 1e-5,
    }
    attention = {
        "kind": "attention",
        "heads": heads,
        "kv_heads": kv_heads,
        "position": position,
        "qk_norm": norm,
        "qk_norm_over": "width",
        "bias": False,
        "out_bias": False,
    }
    blocks = {
        "gated_deltanet": {"mixer": recurrent, "channel": channel, "scheme": {"kind": "pre", "norm": norm}},
        "attention": {"mixer": attention, "channel": channel, "scheme": {"kind": "reordered", "norm": norm}},
    }
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {"kind": "stack", "layout": layout, "blocks": blocks},
        "head": {"kind": "next_token", "norm": norm, "tie": tie},
    }


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that an `olmo_hybrid` config of transformers describes; BadSpec names what formery has no part for.

    Null or missing `rope_parameters`, or a null `rope_theta` in them, mean no positions, as in the released
    checkpoints. transformers 5.23.0 reads null and missing as a rope of base 10000; such a model is had by writing
    the base into the config.
    """
    layers.silu_only(config)
    if config.get("attention_bias", False):
        raise BadSpec("attention_bias: Olmo Hybrid's projections have no bias, got true")
    heads, dim, depth = (int(config[key]) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers"))
    linear_heads = int(config.get("linear_num_key_heads") or heads)
    head_dim = int(config.get("linear_key_head_dim") or 0.75 * dim / linear_heads)
    return spec(
        dim=dim,
        vocab=int(config["vocab_size"]),
        hidden=int(config["intermediate_size"]),
        heads=heads,
        head_dim=head_dim,
        layout=_layout(config.get("layer_types"), depth),
        position=layers.position(config, None),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        linear_heads=linear_heads,
        value_heads=int(config.get("linear_num_value_heads") or heads),
        value_dim=int(config.get("linear_value_head_dim") or 2 * head_dim),
        conv=int(config.get("linear_conv_kernel_dim", 4)),
        negative=bool(config.get("linear_allow_neg_eigval", True)),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        tie=bool(config.get("tie_word_embeddings", False)),
    )


def to_config(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """A config of transformers for this spec; whether it says everything is for the caller to check by reading it."""
    blocks, dim = resolved["body"]["blocks"], resolved["stem"]["dim"]
    mixers = [block.get("mixer") or {} for block in blocks]
    by_kind = {mixer.get("kind"): mixer for mixer in mixers}
    attention, recurrent = by_kind.get("attention", {}), by_kind.get("gated_deltanet", {})
    heads, linear_heads, head_dim = attention.get("heads"), recurrent.get("heads"), recurrent.get("head_dim") or 0
    return {
        "architectures": ["OlmoHybridForCausalLM"],
        "model_type": "olmo_hybrid",
        "vocab_size": resolved["stem"]["vocab"],
        "hidden_size": dim,
        "num_hidden_layers": len(blocks),
        "layer_types": layers.layer_types(mixers),
        "num_attention_heads": heads,
        "num_key_value_heads": attention.get("kv_heads") or heads,
        "intermediate_size": layers.swiglu_width(blocks[0]["channel"] or {}, dim),
        "hidden_act": "silu",
        "rms_norm_eps": (resolved["head"]["norm"] or {}).get("eps"),
        "rope_parameters": layers.rope_parameters(attention.get("position")),
        "tie_word_embeddings": resolved["head"]["tie"],
        "linear_num_key_heads": linear_heads,
        "linear_num_value_heads": recurrent.get("value_heads") or linear_heads,
        "linear_key_head_dim": head_dim,
        "linear_value_head_dim": recurrent.get("value_dim") or 2 * head_dim,
        "linear_conv_kernel_dim": recurrent.get("conv"),
        "linear_allow_neg_eigval": recurrent.get("negative"),
        "pad_token_id": None,
        "eos_token_id": None,
    }


def _layout(given: Sequence[str] | None, depth: int) -> str:
    """Of a config's `layer_types`; without them every fourth layer is attention, and the last where none would be."""
    if given is None:
        given = layers.usual_layer_types(depth, 4)
        if "full_attention" not in given:
            given[-1] = "full_attention"
    return " ".join(layers.mixer_kinds(given, depth))


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """Names of transformers 5's modules, of the released files, and of the files that transformers 5.23.0 writes.

    That version renames the first norm of attention layers on saving as if it were a recurrent layer's, and cuts the
    convolution into three equal parts; both are read as they are meant.
    """
    after = "post_attention_layernorm"
    return [
        Dialect("transformers", _rules(resolved, ("input_layernorm", after), after, num_convs=1)),
        Dialect("transformers_files", _rules(resolved, FILE_NORMS, after, num_convs=3)),
        Dialect("transformers_saved", _rules(resolved, FILE_NORMS, FILE_NORMS[1], num_convs=3)),
    ]


FILE_NORMS = ("attention_layer_norm", "feedforward_layer_norm")


def _rules(
    resolved: Mapping[str, Any], recurrent: tuple[str, str], after_attention: str, num_convs: int
) -> tuple[Rule, ...]:
    """`recurrent` are the norms' names in recurrent layers, `after_attention` the first norm's in attention layers."""
    rules = [
        Rule("stem.embed", "model.embed_tokens"),
        *layers.swiglu("body.blocks.{i}.channel", "model.layers.{i}.mlp"),
        Rule("head.norm", "model.norm"),
        Rule("head.scores", "lm_head"),
    ]
    for i, block in enumerate(resolved["body"]["blocks"]):
        ours, theirs, mixer = f"body.blocks.{i}", f"model.layers.{i}", block.get("mixer") or {}
        added = block["scheme"]["kind"] == "reordered"
        norms = (after_attention, "post_feedforward_layernorm") if added else recurrent
        rules += [Rule(f"{ours}.scheme.norms.{n}", f"{theirs}.{norm}") for n, norm in enumerate(norms)]
        if mixer.get("kind") == "gated_deltanet":
            rules += layers.gated_deltanet(f"{ours}.mixer", f"{theirs}.linear_attn", mixer, num_convs)
        elif mixer.get("kind") == "attention":
            rules += layers.attention(f"{ours}.mixer", f"{theirs}.self_attn", mixer, resolved["stem"]["dim"])
    return tuple(rules)
