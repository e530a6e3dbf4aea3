"""Specs: written out once and for all, changed by globs, and refused with the place, the value and what is possible."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formery import spec
from formery.create import with_drop_path
from formery.errors import BadSpec
from formery.model import Model
from formery.saving import blank
from formery.spec import Place, from_pairs, override, resolve, resolve_part, walk

TEXT: dict[str, Any] = {
    "stem": {"kind": "tokens", "dim": 32, "vocab": 20},
    "body": {"kind": "stack", "layout": "(a attention)*2", "blocks": {"a": {"mixer": "identity"}}},
    "head": "next_token",
}
IMAGE: dict[str, Any] = {
    "stem": {"kind": "conv", "dim": 16},
    "body": {"kind": "pyramid", "dims": [16, 32], "depths": [1, 2], "mixer": "pooling"},
    "head": "classes",
}


def replaced(model: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one entry set."""
    changed = copy.deepcopy(model)
    node, *steps = changed, *path.split(".")
    for step in steps[:-1]:
        if isinstance(node.get(step), str):
            node[step] = {"kind": node[step]}
        node = node[step]
    node[steps[-1]] = value
    return changed


def refusal(model: Any) -> str:
    """What is said of a spec that cannot be."""
    with pytest.raises(BadSpec) as caught:
        resolve(model)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------ resolving


def test_every_option_is_written_out() -> None:
    assert resolve_part("channel", "mlp") == {
        "kind": "mlp", "ratio": 4.0, "hidden": None, "activation": "gelu", "bias": True,
    }  # fmt: skip
    resolved = resolve(TEXT)
    assert list(resolved) == ["version", "stem", "body", "head"]
    assert resolved["version"] == spec.VERSION
    assert resolved["head"]["vocab"] == 20  # as the stem says
    kinds = [(path, node["kind"]) for path, role, node in walk(resolved) if role == "mixer"]
    assert kinds == [
        ("body.blocks.0.mixer", "identity"), ("body.blocks.1.mixer", "attention"),
        ("body.blocks.2.mixer", "identity"), ("body.blocks.3.mixer", "attention"),
    ]  # fmt: skip
    assert resolve(resolved) == resolved


def test_given_and_resolved_specs_are_left_as_they_are() -> None:
    before = copy.deepcopy((TEXT, IMAGE))
    resolved = resolve(TEXT)
    kept = copy.deepcopy(resolved)
    override(resolved, {"body.mixer": "identity", "stem.scale": 2.0})
    Model(TEXT)
    assert before == (TEXT, IMAGE)
    assert resolved == kept


def test_shorthands_say_the_same_as_what_they_stand_for() -> None:
    one = {"kind": "stack", "depth": 2, "mixer": "attention", "channel": "swiglu", "scheme": {"kind": "post"}}
    two = {"kind": "stack", "layout": "attention*2", "channel": "swiglu", "scheme": "post"}
    three = {
        "kind": "stack",
        "layout": "b b",
        "blocks": {"b": {"mixer": "attention"}},
        "channel": "swiglu",
        "scheme": "post",
    }
    full = resolve_part("body", one)
    assert resolve_part("body", two) == resolve_part("body", three) == full
    assert resolve_part("body", full) == full


def test_blocks_of_a_layout_keep_what_they_say_themselves() -> None:
    blocks = {"a": {"mixer": "identity", "channel": None}, "b": {"kind": "sequence", "sublayers": ["identity", "mlp"]}}
    body = {
        "kind": "stack",
        "layout": "a b mlp",
        "blocks": blocks,
        "channel": "swiglu",
        "scheme": {"kind": "pre", "norm": "rms"},
    }
    first, second, third = resolve_part("body", body)["blocks"]
    assert first["channel"] is None
    assert (third["mixer"], third["channel"]["kind"]) == (None, "mlp")
    assert [block["scheme"]["norm"]["kind"] for block in (first, second, third)] == ["rms"] * 3


@given(st.lists(st.sampled_from(["attention", "pooling", "identity"]), min_size=1, max_size=6), st.floats(0.01, 0.9))
def test_drop_path_rises_evenly(words: list[str], rate: float) -> None:
    stack = {"kind": "stack", "layout": " ".join(words), "drop_path": rate}
    rates = [block["scheme"]["drop_path"] for block in resolve_part("body", stack)["blocks"]]
    last = len(words) - 1
    assert rates == pytest.approx([rate * i / max(1, last) for i in range(len(words))])
    whole = resolve({**IMAGE, "body": {"kind": "pyramid", "dims": [16, 16], "layouts": ["pooling", stack["layout"]]}})
    ramp = [n["scheme"]["drop_path"] for _, role, n in walk(with_drop_path(whole, rate)) if role == "block"]
    assert ramp == pytest.approx([rate * i / len(words) for i in range(len(words) + 1)])


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "a model's spec is a mapping with stem, body and head, got 3"),
        ({}, "a model's spec needs stem, body and head; stem and body and head missing"),
        ({**TEXT, "heads": 1}, "heads: a model's spec has no such entry; did you mean head?"),
        ({**TEXT, "version": 2}, "version: this formery reads specs of version 1, got 2"),
        ({**TEXT, "name": 3}, "name: a model's name is a text, got 3"),
        (replaced(TEXT, "stem", 3), "stem: a stem is a name, or a mapping with a name as 'kind', got 3"),
        (
            replaced(TEXT, "stem", {"dim": 8}),
            "stem.kind: a stem needs the name of its kind, got None; there are: ",
        ),
        (replaced(TEXT, "stem.kind", "token"), "stem: no stem is called 'token'; did you mean tokens?"),
        (replaced(TEXT, "stem", {"kind": "tokens"}), "stem: stem 'tokens' needs dim, vocab"),
        (replaced(TEXT, "stem.dim", "32"), "stem.dim: input should be a valid integer, got '32'"),
        (replaced(TEXT, "stem.dim", 32.0), "stem.dim: input should be a valid integer, got 32.0"),
        (replaced(TEXT, "stem.dim", True), "stem.dim: input should be a valid integer, got True"),
        (replaced(TEXT, "stem.dim", 0), "stem.dim: input should be greater than 0, got 0"),
        (replaced(TEXT, "stem.scale", float("nan")), "stem.scale: input should be a finite number, got nan"),
        (replaced(TEXT, "stem.vocabs", 3), "stem.vocabs: stem 'tokens' has no such option; did you mean vocab?"),
        (
            replaced(TEXT, "head.pool", "avg"),
            "head.pool: head 'next_token' has no such option; there are: bias, norm, tie, vocab",
        ),
        (
            replaced(TEXT, "body.layout", "(a attention"),
            "body: layout '(a attention', at character 13: '(' without ')'",
        ),
        (
            replaced(TEXT, "body.layout", "a poolin"),
            "body: layout: no block, mixer or channel mixer is called 'poolin'; did you mean pooling?",
        ),
        (replaced(TEXT, "body.layout", 4), "body.layout: input should be a valid string, got 4"),
        (replaced(TEXT, "body.depth", 4), "body: a stack has a layout, or a depth (with a mixer): give one of them"),
        (
            replaced(TEXT, "body.mixer", "identity"),
            "body: mixer goes with depth; in a layout the words name the mixers",
        ),
        (replaced(TEXT, "body.blocks", "a"), "body.blocks: a mapping of names to block specs is needed here, got 'a'"),
        (
            replaced(TEXT, "body.blocks", {"a": 3}),
            "body: blocks.a: a block is a name, or a mapping with a name as 'kind', got 3",
        ),
        (
            replaced(TEXT, "body.blocks", {"a": {"mixr": "identity"}}),
            "body.blocks.0.mixr: block 'block' has no such option; did you mean mixer?",
        ),
        (
            replaced(TEXT, "body.blocks.a.mixer", {"kind": "attention", "heads": "8"}),
            "body.blocks.0.mixer.heads: input should be a valid integer, got '8'",
        ),
        (
            replaced(TEXT, "body.blocks.a.mixer", {"kind": "pooling", "grid": [4, 4]}),
            "body.blocks.0.mixer.grid: filled in by the body, never written in a spec; take it out",
        ),
        (
            replaced(TEXT, "body.blocks.a.channel", {"kind": "mlp", "activation": "gleu"}),
            (
                "body.blocks.0.channel.activation: input should be 'gelu', 'gelu_tanh', 'relu', 'relu2', "
                "'silu' or 'tanh', got 'gleu'"
            ),
        ),
        (replaced(TEXT, "body.scheme", None), "body.blocks.0.scheme: a scheme is needed here, got null"),
        (
            replaced(TEXT, "body.channel", {"kind": "layer", "x": 1}),
            "body.blocks.0.channel: no sublayer is called 'layer'",
        ),
        (
            replaced(TEXT, "body", {"kind": "stack", "depth": 10**9, "mixer": "identity"}),
            "body.depth: input should be less than or equal to 4096, got 1000000000",
        ),
        (
            replaced(TEXT, "body", {"kind": "stack", "depth": 1, "mixer": "identity", "blocks": {}}),
            "body: blocks go with a layout, whose words name them; with depth give a mixer",
        ),
        (replaced(IMAGE, "body.depths", [1]), "body: 2 dims need as many depths or layouts, got 1"),
        (replaced(IMAGE, "body.depths", [1, "2"]), "body.depths.1: input should be a valid integer, got [1, '2']"),
        (
            replaced(IMAGE, "body.mixer", ["pooling"] * 3),
            "body: mixer: one for all stages or one for each of the 2, got 3",
        ),
        (
            replaced(IMAGE, "body.layouts", ["pooling", "pooling"]),
            "body: a pyramid has depths (with a mixer) or layouts: give one of them",
        ),
        (replaced(IMAGE, "body.drop_path", 1.0), "body.drop_path: input should be less than 1, got 1.0"),
        (replaced(IMAGE, "stem.img_size", [224]), "stem.img_size: "),
        (replaced(IMAGE, "stem.img_size", "224"), "stem.img_size: "),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_refusals_name_the_place_the_value_and_what_is_possible(model: Any, message: str) -> None:
    said = refusal(model)
    assert said.startswith(message) if message.endswith((": ", "'layer'")) else said == message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "body.blocks.0.mixer",
            {"kind": "attention", "heads": 5},
            "body.blocks.0.mixer: heads (5) does not divide 32; choose a divisor or give head_dim",
        ),
        (
            "body.blocks.0.mixer",
            {"kind": "attention", "position": "learned"},
            "body.blocks.0.mixer: position inside attention turns queries and keys: rope; put others on the body",
        ),
        (
            "body.blocks.0.mixer",
            "pooling",
            "body.blocks.0: mixer 'pooling' works on 2-D grids, here the grid is 1-D; choose another mixer",
        ),
        (
            "body.blocks.0.mixer",
            "random",
            "body.blocks.0.mixer: 'random' lets tokens see later ones, so it cannot predict the next token",
        ),
        (
            "body.blocks.1.scheme.norm",
            "group1",
            (
                "body.blocks.1.scheme.norms.0: 'group1' takes statistics of later tokens, so it cannot "
                "predict the next token"
            ),
        ),
        (
            "body.position",
            "rope",
            "body: a body's position is added to tokens: learned or sincos; rope belongs inside attention",
        ),
        ("body.prefix", 1, "body.prefix: tokens in front of a text have no place in a stream of it; set it to 0"),
        ("body.dim_out", 64, "body: dim is 64, but tokens come in with 32; make them equal or give a merge"),
    ],
)
def test_parts_that_do_not_fit_are_refused_at_their_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        Model(override(resolve(TEXT), {path: value}))
    assert str(caught.value) == message


def test_other_models_that_cannot_be() -> None:
    for changes, message in (
        ({"head.pool": "token"}, "head.pool: 'token' needs a class token; set body.prefix to 1, or pool otherwise"),
        (
            {"body.stages.0.prefix": 1},
            "body.stages.1: prefix tokens stand in the last stage: a merge takes a grid and nothing else",
        ),
        (
            {"head": {"kind": "next_token", "vocab": 5, "tie": True}},
            "head.tie: the stem has no table of tokens to share; set it to false",
        ),
        ({"head": "next_token"}, "head: next_token needs a vocab: the stem has none to share"),
        (
            {"body.mixer": "spatial_fc", "body.stages.1.prefix": 1},
            "body.stages.1: a mixer that is bound to the grid's tokens has no room for prefix tokens; set prefix to 0",
        ),
    ):
        with pytest.raises(BadSpec) as caught:
            Model(override(resolve(IMAGE), changes))
        assert str(caught.value) == message


# ------------------------------------------------------------------------------------------------ overriding


def mixers(resolved: dict[str, Any]) -> list[str]:
    return [node["kind"] for _, role, node in walk(resolved) if role == "mixer"]


@pytest.mark.parametrize(
    ("glob", "value", "expected"),
    [
        ("body.mixer", "identity", ["identity"] * 3),
        ("body.mixer", "identity attention*2", ["identity", "attention", "attention"]),
        ("body.stages.1.mixer", "identity", ["pooling", "identity", "identity"]),
        ("body.stages.1.mixer", "identity attention", ["pooling", "identity", "attention"]),
        ("body.stages.1.blocks.0.mixer", "identity", ["pooling", "identity", "pooling"]),
        ("body.stages.*.blocks.0.mixer", "identity", ["identity", "identity", "pooling"]),
        ("body.**.mixer", "identity", ["identity"] * 3),
        ("**.blocks.1.mixer", {"kind": "attention", "heads": 4}, ["pooling", "pooling", "attention"]),
    ],
)
def test_globs_reach_nodes(glob: str, value: Any, expected: list[str]) -> None:
    changed = override(resolve(IMAGE), {glob: value})
    assert mixers(changed) == expected
    assert resolve(changed) == changed


def test_options_of_schemes_are_set_from_the_body() -> None:
    changed = override(resolve(IMAGE), {"body.norm": "rms", "body.stages.0.scale": 0.5, "body.drop_path": 0.1})
    schemes = [node for _, role, node in walk(changed) if role == "scheme"]
    assert [s["norm"]["kind"] for s in schemes] == ["rms"] * 3
    assert [s["scale"] for s in schemes] == [0.5, None, None]
    assert [s["drop_path"] for s in schemes] == [0.1] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"body.mixer": "identity", "body.stages.1.mixer": "identity"},
            "overrides 'body.mixer' and 'body.stages.1.mixer' both hit body.stages.1.blocks.0.mixer; keep one",
        ),
        (
            {"body.stages.1.blocks.0.mixer": "identity", "body.**.size": 5},
            (
                "overrides 'body.stages.1.blocks.0.mixer' and 'body.**.size' both hit "
                "body.stages.1.blocks.0.mixer; keep one"
            ),
        ),
        ({"head": "classes", "head.num_classes": 3}, "overrides 'head' and 'head.num_classes' both hit head; keep one"),
        (
            {"body.stages.2.mixer": "identity"},
            "override 'body.stages.2.mixer' hits nothing; body.stages has entries 0 to 1",
        ),
        (
            {"body.stage.1.mixer": "identity"},
            "override 'body.stage.1.mixer' hits nothing; at body: did you mean stages?",
        ),
        (
            {"body.stages.1.mixr": "identity"},
            "override 'body.stages.1.mixr' hits nothing; at body.stages.1: did you mean mixer?",
        ),
        ({"body.chanel": "mlp"}, "override 'body.chanel' hits nothing; at body: did you mean channel?"),
        ({"body.blocks": 1}, "override 'body.blocks' hits nothing; "),
        ({"heads.num_classes": 1}, "override 'heads.num_classes' hits nothing; did you mean head?"),
        (
            {"head.num_classes.x": 1},
            "override 'head.num_classes.x' hits nothing; head.num_classes has nothing inside it",
        ),
        ({"body.mixer": "identity*2"}, "layout 'identity*2' has 2 words for 3 blocks; give one, or one a block"),
        (
            {"body.stages.0.mixer": "identity*2"},
            "layout 'identity*2' has 2 words for 1 blocks; give one, or one a block",
        ),
        ({"body.kind": "stack"}, "override 'body.kind' hits nothing; "),
        ({"head.num_classes": "3"}, "head.num_classes: input should be a valid integer, got '3'"),
        ({"body.mixer": "poolin"}, "body.stages.0.blocks.0.mixer: no mixer is called 'poolin'; did you mean pooling?"),
    ],
)
def test_overrides_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        override(resolve(IMAGE), changes)
    said = str(caught.value)
    assert said.startswith(message) if message.endswith("; ") else said == message


def test_paths_are_module_paths() -> None:
    model = Model(override(resolve(IMAGE), {"body.stages.1.blocks.0.mixer": "identity"}))
    assert type(model.get_submodule("body.stages.1.blocks.0.mixer")).__name__ == "Identity"


def test_pairs_of_the_command_line() -> None:
    pairs = [
        "head.num_classes=7",
        "body.mixer=attention",
        "a.b = {kind: rms, eps: 1e-5}",
        "x=null",
        "y=",
        "z=a=b",
        "n=no",
    ]
    assert from_pairs(pairs) == {
        "head.num_classes": 7, "body.mixer": "attention", "a.b": {"kind": "rms", "eps": 1e-5},
        "x": None, "y": None, "z": "a=b", "n": "no",
    }  # fmt: skip
    for wrong, message in (
        (["head"], "an override is written PATH=VALUE, got 'head'"),
        (["=3"], "an override is written PATH=VALUE, got '=3'"),
        (["a=1", "a=2"], "override 'a' is given twice; keep one"),
        (["a=1", "a =2"], "override 'a' is given twice; keep one"),
        (["a=[1"], "a: not YAML, line 1: "),
    ):
        with pytest.raises(BadSpec) as caught:
            from_pairs(wrong)
        assert str(caught.value).startswith(message)


# ------------------------------------------------------------------------------------------------ building


def test_places_are_handed_down() -> None:
    place = Place("body", grid=(4, 4), index=3, depth=9).at("blocks.1", index=4)
    assert place == Place("body.blocks.1", (4, 4), 4, 9)


def test_unknown_kinds_are_bad_specs_when_built() -> None:
    with pytest.raises(BadSpec, match="spec: no norm is called 'layers'; did you mean layer"):
        spec.build("norm", "layers", 8)
    with pytest.raises(BadSpec, match="spec: no role is called 'nrom'; did you mean norm"):
        spec.build("nrom", "layer", 8)


def test_large_models_are_described_and_built_at_once() -> None:
    """Without memory, a hundred layers and an extra-large pyramid take a moment."""
    deep = replaced(
        TEXT,
        "body",
        {"kind": "stack", "layout": "(attention*3 gated_deltanet)*25", "scheme": {"kind": "pre", "norm": "rms"}},
    )
    wide = {"kind": "pyramid", "dims": [256, 512, 1024, 2048], "depths": [3, 3, 27, 3], "mixer": "depthwise_conv"}
    for model in (deep, {**IMAGE, "body": wide, "stem": {"kind": "conv", "dim": 256}}):
        with blank():
            Model(TEXT)
            start = time.process_time()
            Model(model)
            assert time.process_time() - start < 1.5
        start = time.process_time()
        with_drop_path(resolve(model), 0.3)
        assert time.process_time() - start < 1.0
