"""Published names of layers that several systems have (Llama's attention and MLP, Gated DeltaNet, Mamba), and their
configs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BadSpec
from ..parts.activations import ACTIVATIONS
from ..registry import nearest
from ..weights import Rule


def attention(ours: str, theirs: str, mixer: Mapping[str, Any], dim: int) -> list[Rule]:
    """A resolved attention of a model of width `dim` and Llama's projections q, k, v and o, under two prefixes."""
    width = mixer["head_dim"] or dim // mixer["heads"]
    keys = (mixer["kv_heads"] or mixer["heads"]) * width
    return [
        Rule(f"{ours}.qkv", tuple(f"{theirs}.{n}_proj" for n in "qkv"), sizes=(mixer["heads"] * width, keys, keys)),
        *(Rule(f"{ours}.{n}", f"{theirs}.{n}") for n in ("q_norm", "k_norm")),
        Rule(f"{ours}.out", f"{theirs}.o_proj"),
    ]


def swiglu(ours: str, theirs: str) -> list[Rule]:
    """A swiglu and Llama's gate, up and down projections, under two prefixes."""
    return [
        Rule(f"{ours}.expand", (f"{theirs}.gate_proj", f"{theirs}.up_proj")),
        Rule(f"{ours}.reduce", f"{theirs}.down_proj"),
    ]


def swiglu_width(channel: Mapping[str, Any], dim: int) -> int:
    """Hidden channels of a resolved swiglu in a model of width `dim`."""
    hidden = channel.get("hidden")
    return -(-8 * dim // 24) * 8 if hidden is None else int(hidden)


def gated_deltanet(ours: str, theirs: str, mixer: Mapping[str, Any], num_convs: int) -> list[Rule]:
    """A resolved gated_deltanet and its six projections, under two prefixes.

    transformers keeps one convolution of q, k and v, fla three. An empty prefix is a bare layer's.
    """
    ours, theirs = (f"{prefix}." if prefix else "" for prefix in (ours, theirs))
    keys = mixer["heads"] * mixer["head_dim"]
    value_heads = mixer["value_heads"] or mixer["heads"]
    values = value_heads * (mixer["value_dim"] or 2 * mixer["head_dim"])
    sizes = (keys, keys, values, values, value_heads, value_heads)
    convs = [f"{theirs}{n}_conv1d.weight" for n in "qkv"] if num_convs == 3 else [f"{theirs}conv1d.weight"]
    return [
        Rule(f"{ours}project", tuple(f"{theirs}{n}_proj" for n in "qkvgab"), sizes=sizes),
        Rule(f"{ours}conv", tuple(convs), sizes=sizes[:3] if num_convs == 3 else None, ones=(1,)),
        Rule(f"{ours}log_rate", f"{theirs}A_log"),
        Rule(f"{ours}step_bias", f"{theirs}dt_bias"),
        Rule(f"{ours}norm", f"{theirs}o_norm.weight"),
        Rule(f"{ours}out", f"{theirs}o_proj"),
    ]


def mamba(ours: str, theirs: str, mixer: Mapping[str, Any]) -> list[Rule]:
    """A resolved mamba or mamba2 (no rules for another mixer) and the names that everybody gives it, under prefixes."""
    if mixer.get("kind") not in ("mamba", "mamba2"):
        return []
    rules = [
        Rule(f"{ours}.project", f"{theirs}.in_proj"),
        Rule(f"{ours}.conv", f"{theirs}.conv1d.weight", ones=(1,)),
        Rule(f"{ours}.conv_bias", f"{theirs}.conv1d.bias"),
        Rule(f"{ours}.skip", f"{theirs}.D"),
        Rule(f"{ours}.out", f"{theirs}.out_proj"),
    ]
    if mixer["kind"] == "mamba2":
        return [
            *rules,
            Rule(f"{ours}.log_rate", f"{theirs}.A_log"),
            Rule(f"{ours}.step_bias", f"{theirs}.dt_bias"),
            Rule(f"{ours}.norm", f"{theirs}.norm.weight"),
        ]
    return [
        *rules,
        Rule(f"{ours}.log_rate", f"{theirs}.A_log", transpose=True),
        Rule(f"{ours}.select", f"{theirs}.x_proj"),
        Rule(f"{ours}.step_weight", f"{theirs}.dt_proj.weight"),
        Rule(f"{ours}.step_bias", f"{theirs}.dt_proj.bias"),
    ]


def mamba_width(mixer: Mapping[str, Any], dim: int) -> int:
    """Inner channels of a resolved mamba or mamba2 in a model of width `dim`."""
    if mixer["kind"] == "mamba":
        return int(mixer["inner"] or 2 * dim)
    return int((mixer["heads"] or 2 * dim // mixer["head_dim"]) * mixer["head_dim"])


def mamba2_options(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What the configs of Mamba-2 and of its hybrids say of heads, groups, state and the bounds of steps."""
    low, high = (_number(bound) for bound in config.get("time_step_limit") or (0.0, math.inf))
    return {
        "kind": "mamba2",
        "heads": int(config.get(f"{prefix}num_heads", 128)),
        "head_dim": int(config.get(f"{prefix}head_dim", 64)),
        "groups": int(config.get("n_groups", 8)),
        "state": int(config.get("ssm_state_size" if prefix else "state_size", 128)),
        "min_step": low,
        "max_step": None if high == math.inf else high,
    }


def _number(given: Any) -> float:
    """A number of a config, of which transformers writes an infinite one as {"__float__": "Infinity"}."""
    return float(given["__float__"] if isinstance(given, Mapping) else given)


def step_limits(mixer: Mapping[str, Any]) -> list[Any]:
    """What `mamba2_options` reads as the bounds of a resolved mamba2's steps."""
    high = mixer["max_step"]
    return [mixer["min_step"], {"__float__": "Infinity"} if high is None else high]


def position(config: Mapping[str, Any], base: float | None, *, fraction: float = 1.0) -> dict[str, Any] | None:
    """The rope of a config, stretched or not; None where neither it nor the family has a base.

    transformers 5 writes `rope_parameters`, 4 wrote `rope_theta`, `partial_rotary_factor` and `rope_scaling`. `base`,
    and `fraction` of the turned channels, are what the family means where none is given. BadSpec for a base that is
    null where the family has one, and for stretching that has no part here.
    """
    old = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if key in config}
    given = {**old, **(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind, theta = given.get("rope_type", given.get("type", "default")), given.get("rope_theta", base)
    if theta is None:
        if base is None and kind == "default":
            return None
        raise BadSpec("rope_theta: these layers turn by some base, got null; write the base into the config")
    rope = {"kind": "rope", "theta": float(theta), "fraction": float(given.get("partial_rotary_factor", fraction))}
    if kind == "default":
        return rope
    if kind not in STRETCHED:
        known = ", ".join(sorted(STRETCHED))
        raise BadSpec(
            f"rope_type: formery has no rope that is stretched as {kind!r}; only default, {known} can be loaded"
        )
    if given.get("factor") is None or given.get("original_max_position_embeddings") is None:
        raise BadSpec(
            f"rope_type: {kind!r} needs factor and original_max_position_embeddings; write both into the config"
        )
    ours, names = STRETCHED[kind]
    rope |= {"kind": ours, "factor": float(given["factor"]), "trained": int(given["original_max_position_embeddings"])}
    rope |= {name: float(given[their]) for name, their in names.items() if given.get(their) is not None}
    if kind != "yarn":
        return rope
    return rope | {"truncate": bool(given.get("truncate", True)), "gain": _gain(given, float(given["factor"]))}


STRETCHED: dict[str, tuple[str, dict[str, str]]] = {
    "llama3": ("rope_llama3", {"low": "low_freq_factor", "high": "high_freq_factor"}),
    "yarn": ("yarn", {"fast": "beta_fast", "slow": "beta_slow"}),
}
"""transformers' ways of stretching a rope: our part, and its options that have other names there."""


def _gain(given: Mapping[str, Any], factor: float) -> float:
    """By how much YaRN raises queries and keys: by arXiv 2309.00071, equation 22, unless the config says it."""
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    above, below = given.get("mscale"), given.get("mscale_all_dim")
    raised = 0.1 * math.log(factor)
    return (above * raised + 1) / (below * raised + 1) if above and below else raised + 1


def rope_parameters(position: Mapping[str, Any] | None, *, always_fraction: bool = False) -> dict[str, Any]:
    """What `position` reads as this resolved one: a rope, stretched or not, or none, as a base that is null.

    The fraction of turned channels is left out where it is 1, unless `always_fraction`: families have other defaults.
    """
    if position is None:
        return {"rope_type": "default", "rope_theta": None}
    for kind, (ours, names) in STRETCHED.items():
        if position.get("kind") == ours:
            stretched = {"factor": position["factor"], "original_max_position_embeddings": position["trained"]}
            stretched |= {their: position[name] for name, their in names.items()}
            if kind == "yarn":
                stretched |= {"truncate": position["truncate"], "attention_factor": position["gain"]}
            return {"rope_type": kind, **stretched, **_turning(position, always_fraction)}
    return {"rope_type": "default", **_turning(position, always_fraction)}


def _turning(position: Mapping[str, Any], always_fraction: bool) -> dict[str, Any]:
    written = {"rope_theta": position.get("theta")}
    fraction = position.get("fraction", 1.0)
    return written | ({"partial_rotary_factor": fraction} if always_fraction or fraction != 1.0 else {})


def silu_only(config: Mapping[str, Any]) -> None:
    """BadSpec unless a config's gates are silu's."""
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise BadSpec(f"hidden_act: the gates of these layers are silu's, got {config['hidden_act']!r}")


THEIR_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}
"""Activations that transformers calls otherwise."""


def activation(config: Mapping[str, Any]) -> str:
    """Our name of a config's `hidden_act`; BadSpec where formery has none."""
    given = config.get("hidden_act", "gelu")
    name = THEIR_ACTIVATIONS.get(given, given)
    if name not in ACTIVATIONS:
        raise BadSpec(f"hidden_act: no activation is called {given!r}; {nearest(str(given), ACTIVATIONS)}")
    return str(name)


def hidden_act(name: str) -> str:
    """transformers' name of one of our activations."""
    return {"gelu_tanh": "gelu_pytorch_tanh"}.get(name, name)


HYBRID = {"gated_deltanet": "linear_attention", "attention": "full_attention"}
"""The mixers of hybrids, and what the `layer_types` of configs call them."""


def mixer_kinds(given: Sequence[str], depth: int) -> list[str]:
    """Our mixers of a config's `layer_types`; BadSpec unless it names a known one for each of `depth` layers."""
    ours = {theirs: kind for kind, theirs in HYBRID.items()}
    if len(given) != depth or any(kind not in ours for kind in given):
        raise BadSpec(f"layer_types: {depth} times linear_attention or full_attention are needed, got {list(given)}")
    return [ours[kind] for kind in given]


def usual_layer_types(depth: int, interval: int) -> list[str]:
    """`layer_types` of a config that leaves them out: attention is every `interval`-th layer."""
    return ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(depth)]


def layer_types(mixers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `mixer_kinds` reads as these resolved mixers; "unknown" for one that no config names."""
    return [HYBRID.get(str(mixer.get("kind")), "unknown") for mixer in mixers]


def num_labels(config: Mapping[str, Any]) -> int:
    """Classes of a config: its labels, or transformers' default of two."""
    return len(config["id2label"]) if "id2label" in config else int(config.get("num_labels", 2))
