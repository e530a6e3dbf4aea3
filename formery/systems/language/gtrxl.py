"""GTrXL (arXiv 1910.06764): a Transformer-XL that reinforcement learning can train, by gates in the residual's place.

Nobody published the authors' code. Two others' names of tensors are known here: RLlib's, whose network is the paper's
(norm over memory and input, ReLU behind each sublayer), and those of Transformers-RL, whose network differs (memory as
it is, no ReLU, linears with biases, gates' bias fixed at 0.1, the scores' two vectors shared by all layers); loading
its weights adopts that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

GATES = {
    "gtrxl_gru": "gru", "gtrxl_rllib": "gru", "gtrxl_input": "input", "gtrxl_output": "output",
    "gtrxl_highway": "highway", "gtrxl_sigtanh": "sigtanh", "trxl_i": "sum",
}  # fmt: skip


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant: twelve layers for DMLab, or one as RLlib begins with."""
    if name == "gtrxl_rllib":
        sizes: dict[str, Any] = {
            "dim": 64,
            "depth": 1,
            "heads": 2,
            "head_dim": 32,
            "hidden": 32,
            "memory": 50,
            "segment": 20,
        }
    else:
        sizes = {"dim": 256, "depth": 12, "heads": 8, "head_dim": 64, "hidden": 1024, "memory": 512, "segment": 96}
    return spec(**sizes, in_chans=sizes["dim"], num_classes=15, gate=GATES.get(name))


def spec(
    *,
    dim: int,
    depth: int,
    heads: int,
    head_dim: int,
    hidden: int,
    memory: int,
    segment: int,
    in_chans: int,
    num_classes: int,
    gate: str | None = "gru",
    gate_bias: float = 2.0,
    through: bool = False,
) -> dict[str, Any]:
    """A GTrXL of any size: observations of `in_chans` numbers in, `num_classes` scores of actions out.

    `gate` null is a plain post-norm Transformer-XL. `segment` is how many steps are unrolled, with gradients, behind a
    memory of `memory` steps; `through` lets gradients into the memory.
    """
    mixer = {
        "kind": "segment_attention", "heads": heads, "head_dim": head_dim, "segment": segment, "memory": memory,
        "through": through,
    }  # fmt: skip
    channel = {"kind": "mlp", "hidden": hidden, "activation": "relu", "bias": False}
    scheme: dict[str, Any] = {"kind": "post"}
    if gate is not None:
        mixer |= {"norm": "layer"}
        scheme = {"kind": "gated", "gate": gate, "bias": gate_bias, "bare": [0]}
    return {
        "stem": {"kind": "frames", "dim": dim, "in_chans": in_chans, "length": segment},
        "body": {"kind": "stack", "depth": depth, "mixer": mixer, "channel": channel, "scheme": scheme},
        "head": {"kind": "steps", "num_classes": num_classes},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """RLlib's names (of an `AttentionWrapper`), and those of Transformers-RL."""
    return [
        Dialect("rllib", _rllib(resolved), ignores=(r"_rel_pos_embedding\.inverse_freq$",)),
        _transformers_rl(resolved),
    ]


BLOCK = "body.blocks.{i}"


def _rllib(resolved: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Attention and feed-forward network stand in one row there; names of gates that RLlib lacks follow its own."""
    attention, network = "gtrxl.attention_layers.{2i}", "gtrxl.attention_layers.{2i+1}"
    post = any(block["scheme"]["kind"] == "post" for block in resolved["body"]["blocks"])
    mha = f"{attention}._layer"
    rules = [
        Rule("stem.project", "gtrxl.linear_layer._model.0"),
        Rule((f"{BLOCK}.mixer.q", f"{BLOCK}.mixer.kv"), f"{mha}._qkv_layer._model.0"),
        Rule(f"{BLOCK}.mixer.out", f"{mha}._linear_layer._model.0"),
        Rule(f"{BLOCK}.mixer.distance", f"{mha}._pos_proj._model.0"),
        Rule(f"{BLOCK}.mixer.content", f"{mha}._uvar"),
        Rule(f"{BLOCK}.mixer.place", f"{mha}._vvar"),
        Rule(f"{BLOCK}.mixer.norm", f"{mha}._input_layernorm"),
        Rule(f"{BLOCK}.scheme.norms.0", f"{attention}._output_layernorm"),
        Rule(f"{BLOCK}.scheme.norms.1", f"{network}._output_layernorm" if post else f"{network}._layer.0"),
        Rule(f"{BLOCK}.channel.expand", f"{network}._layer.{0 if post else 1}._model.0"),
        Rule(f"{BLOCK}.channel.reduce", f"{network}._layer.{1 if post else 2}._model.0"),
        Rule("head.scores", "_logits_branch._model.0"),
    ]
    for number, place in enumerate((attention, network)):
        ours, theirs = f"{BLOCK}.scheme.gates.{number}", f"{place}._fan_in_layer"
        rules += [
            Rule(f"{ours}.{name}.weight", tuple(f"{theirs}.{n}" for n in names), transpose=True)
            for name, names in _matrices(resolved).items()
        ]
        rules.append(Rule(f"{ours}.bias", f"{theirs}._bias_z"))
    return tuple(rules)


def _matrices(resolved: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """RLlib's names of the matrices in each of a gate's linears."""
    gates = {block["scheme"].get("gate") for block in resolved["body"]["blocks"]}
    if gates == {"sigtanh"}:
        return {"of_output": ("_w_z", "_w_h")}
    if gates == {"gru"}:
        return {"of_output": ("_w_r", "_w_z", "_w_h"), "of_stream": ("_u_r", "_u_z"), "of_reset": ("_u_h",)}
    return {"of_stream": ("_u_z",)}


def _transformers_rl(resolved: Mapping[str, Any]) -> Dialect:
    theirs = "layers.{i}"
    rules = [
        Rule(f"{BLOCK}.mixer.q", f"{theirs}.mha.linear_q"),
        Rule(f"{BLOCK}.mixer.kv", f"{theirs}.mha.linear_kv"),
        Rule(f"{BLOCK}.mixer.distance", f"{theirs}.mha.linear_p"),
        Rule(f"{BLOCK}.mixer.out", f"{theirs}.mha.lout"),
        Rule(f"{BLOCK}.mixer.content", "u"),
        Rule(f"{BLOCK}.mixer.place", "v"),
        Rule(f"{BLOCK}.mixer.norm", f"{theirs}.norm1"),
        Rule(f"{BLOCK}.scheme.norms.1", f"{theirs}.norm2"),
        Rule(f"{BLOCK}.channel.expand", f"{theirs}.ff.ff.0"),
        Rule(f"{BLOCK}.channel.reduce", f"{theirs}.ff.ff.3"),
    ]
    for number in range(2):
        ours, gate = f"{BLOCK}.scheme.gates.{number}", f"{theirs}.gate{number + 1}"
        rules += [
            Rule(f"{ours}.of_output", tuple(f"{gate}.W{n}" for n in "rzg")),
            Rule(f"{ours}.of_stream", tuple(f"{gate}.U{n}" for n in "rz")),
            Rule(f"{ours}.of_reset", f"{gate}.Ug"),
        ]
    changes: dict[str, Any] = {"stem.project": False, "head.num_classes": 0}
    for i, block in enumerate(resolved["body"]["blocks"]):
        if block["scheme"]["kind"] == "gated":
            changed: dict[str, Any] = {"mixer.shared": True, "mixer.norm_memory": False, "channel.bias": True}
            changed["scheme.activation"] = None
            if block["scheme"]["gate"] == "gru":  # there is no other
                changed |= {f"scheme.{n}": v for n, v in _THEIR_GATES.items()}
            changes |= {f"body.blocks.{i}.{path}": value for path, value in changed.items()}
    return Dialect("transformers_rl", tuple(rules), changes, ignores=(r"^pos_embs\.inv_freq$",))


_THEIR_GATES: dict[str, Any] = {"learned": False, "linear_bias": True, "bias": 0.1}
