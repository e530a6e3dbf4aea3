"""Hybrid linear attention (arXiv 2507.06457): six linear mixers, pure and with full attention in every few layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule
from .. import published_layers as layers

SIZES: dict[str, tuple[int, int, int, int]] = {  # width, depth, heads of attention, vocabulary
    "tiny": (64, 4, 4, 256),
    "340m": (1024, 24, 16, 32000),
    "1b": (2048, 24, 32, 32000),
}
RATIOS: dict[str, int | None] = {"pure": None, "24_1": 24, "12_1": 12, "6_1": 6, "3_1": 3}
"""Linear layers for one of full attention."""
MIXERS = ("hgrn", "retention", "gla", "hgrn2", "deltanet", "gated_deltanet")


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant, named hla_SIZE_MIXER_RATIO."""
    _, size, rest = name.split("_", 2)
    mixer = next(kind for kind in MIXERS if rest.startswith(f"{kind}_") and rest[len(kind) + 1 :] in RATIOS)
    dim, depth, heads, vocab = SIZES[size]
    ratio = RATIOS[rest[len(mixer) + 1 :]]
    return spec(mixer, dim=dim, depth=depth, ratio=ratio, heads=heads, vocab=vocab)


def spec(
    mixer: str, *, dim: int, depth: int, ratio: int | None, heads: int, vocab: int, eps: float = 1e-6
) -> dict[str, Any]:
    """A model of `depth` layers, with full attention of `heads` heads behind every `ratio` linear layers (None: none).

    Where `ratio` linear layers and one of attention are more than `depth`, the last layer attends.
    """
    norm = {"kind": "rms", "eps": eps}
    attention = {"kind": "attention", "heads": heads, "position": "rope", "bias": False, "out_bias": False}
    words = [_word(mixer, i, depth, ratio) for i in range(depth)]
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {
            "kind": "stack",
            "layout": " ".join(words),
            "blocks": {"linear": {"mixer": linear(mixer, dim) | {"eps": eps}}, "full": {"mixer": attention}},
            "channel": {"kind": "swiglu", "hidden": hidden(mixer, dim)},
            "scheme": {"kind": "pre", "norm": norm},
            "lower_bounds": mixer in ("hgrn", "hgrn2"),
        },
        "head": {"kind": "next_token", "norm": norm},
    }


def _word(mixer: str, index: int, depth: int, ratio: int | None) -> str:
    if ratio is None:
        return "linear"
    period = min(ratio + 1, depth)
    return "full" if index % period == period - 1 else "linear"


def linear(mixer: str, dim: int) -> dict[str, Any]:
    """A linear mixer of a model of width `dim`, with the heads that flame's configs of these sizes have.

    Of Gated DeltaNet with 6 heads whose keys are together 3/4 of the width: flame's config has twice as many.
    """
    heads = {"retention": 4, "gla": 4, "deltanet": max(4, dim // 128), "gated_deltanet": 6}
    if mixer == "gated_deltanet":
        return {"kind": mixer, "heads": heads[mixer], "head_dim": dim // 8}
    if mixer == "hgrn2":
        return {"kind": mixer, "head_dim": min(128, dim // 4)}
    return {"kind": mixer} if mixer == "hgrn" else {"kind": mixer, "heads": heads[mixer]}


def hidden(mixer: str, dim: int) -> int:
    """Hidden channels of the MLPs: 8/3 of the width, 4/3 beside retention (whose mixer is larger), in steps of 256."""
    ratio = 2 if mixer == "retention" else 4
    return 256 * -(-2 * ratio * dim // 768)


# ------------------------------------------------------------------------------------------------ published names


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """Names of flash-linear-attention's models."""
    block, theirs, dim = "body.blocks.{i}", "model.layers.{i}", resolved["stem"]["dim"]
    rules = [
        Rule("stem.embed", "model.embeddings"),
        Rule(f"{block}.scheme.norms.0", f"{theirs}.attn_norm"),
        Rule(f"{block}.scheme.norms.1", f"{theirs}.mlp_norm"),
        *layers.swiglu(f"{block}.channel", f"{theirs}.mlp"),
        Rule("body.lower_bounds", "model.lower_bounds"),
        Rule("head.norm", "model.norm"),
        Rule("head.scores", "lm_head"),
    ]
    for i, entry in enumerate(resolved["body"]["blocks"]):
        rules += of_mixer(f"body.blocks.{i}.mixer", f"model.layers.{i}.attn", entry.get("mixer") or {}, dim)
    return [Dialect("fla", tuple(rules), ignores=(r"\.rotary\.inv_freq$",))]


def of_mixer(ours: str, theirs: str, mixer: Mapping[str, Any], dim: int) -> list[Rule]:
    """A resolved mixer of a model of width `dim` and fla's layer, under two prefixes; empty ones are a bare layer's."""
    kind = mixer.get("kind")
    if kind == "attention":
        return layers.attention(ours, theirs, mixer, dim)
    if kind == "gated_deltanet":
        return layers.gated_deltanet(ours, theirs, mixer, num_convs=3)
    if kind not in NORMS:
        return []
    ours, theirs = (f"{prefix}." if prefix else "" for prefix in (ours, theirs))
    sizes = projections(mixer, dim)
    convolved = list(sizes)[: 2 if kind == "hgrn" else 3]
    projected = tuple(f"{theirs}gk_proj.0" if name == "low" else f"{theirs}{name}_proj" for name in sizes)
    convs = tuple(f"{theirs}{name}_conv1d.weight" for name in convolved)
    rules = [
        Rule(f"{ours}project", projected, sizes=tuple(sizes.values())),
        Rule(f"{ours}conv", convs, sizes=tuple(sizes[name] for name in convolved), ones=(1,)),
        Rule(f"{ours}norm", f"{theirs}{NORMS[kind]}.weight"),
        Rule(f"{ours}out", f"{theirs}o_proj"),
    ]
    return [*rules, Rule(f"{ours}decay", f"{theirs}gk_proj.1")] if kind == "gla" else rules


NORMS = {
    "hgrn": "g_norm", "hgrn2": "g_norm", "gla": "g_norm_swish_gate", "retention": "g_norm_swish_gate",
    "deltanet": "o_norm",
}  # fmt: skip


def projections(mixer: Mapping[str, Any], dim: int) -> dict[str, int]:
    """Width of each part of a mixer's one projection, in our order, by the letter that names it at fla's."""
    kind = mixer["kind"]
    if kind in ("hgrn", "hgrn2"):
        return dict.fromkeys("ifg" if kind == "hgrn" else "qfi", dim)
    shared = {"gla": (dim // 2, dim), "retention": (dim, 2 * dim), "deltanet": (dim, dim)}[kind]
    keys, values = (
        given * mixer["heads"] if given else width
        for given, width in zip((mixer["head_dim"], mixer["value_dim"]), shared, strict=True)
    )
    sizes = {"q": keys, "k": keys, "v": values, "g": values}
    if kind == "gla":
        return sizes | {"low": mixer["rank"]}
    if kind == "deltanet":
        return {name: size for name, size in sizes.items() if name != "g" or mixer["gate"]} | {"b": mixer["heads"]}
    return sizes
