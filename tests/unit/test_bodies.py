"""Bodies: order, prefix tokens, positions, taps, stages, and layouts over stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from formery import registry
from formery.bodies.blocks.base import BaseBlock
from formery.bodies.pyramid import Pyramid
from formery.bodies.stack import Stack
from formery.context import NOTHING, Context, State, Stream
from formery.errors import BadSpec
from formery.spec import Place, build, resolve_part

DIM = 16
ATTENTION = {"mixer": {"kind": "attention", "heads": 4}}


def make(spec: dict[str, Any], grid: tuple[int, ...], dim: int = DIM) -> Any:
    return build("body", spec, dim, place=Place("body", grid=grid)).double().eval()


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_no_blocks_change_nothing() -> None:
    x = tokens(2, 5, DIM)
    assert torch.equal(make({"kind": "stack", "depth": 0}, (5,))(x, NOTHING).x, x)


def test_positions_and_prefix_stand_before_the_blocks() -> None:
    body = make({"kind": "stack", "depth": 0, "prefix": 2, "position": {"kind": "learned", "prefix": 2}}, (3, 4))
    x = tokens(2, 3, 4, DIM)
    features = body(x, NOTHING)
    assert (features.grid, features.prefix) == ((3, 4), 2)
    front = (body.prefix + body.position.prefix).expand(2, -1, -1)
    assert torch.equal(features.x, torch.cat([front, (x + body.position.table).flatten(1, 2)], dim=1))


def test_taps_are_outputs_of_blocks() -> None:
    body = make({"kind": "stack", "depth": 3, **ATTENTION, "scheme": "ladder"}, (5,))
    x = tokens(2, 5, DIM)
    maps = body(x, Context(taps=(0, 2))).maps
    assert sorted(maps) == [0, 2]
    shorter = make({"kind": "stack", "depth": 1, **ATTENTION, "scheme": "ladder"}, (5,))
    shorter.blocks[0].load_state_dict(body.blocks[0].state_dict())
    assert torch.equal(maps[0], shorter(x, NOTHING).x)


def test_the_number_of_a_block_counts_through_the_stages() -> None:
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    class Spy(BaseBlock):
        def __init__(self, dim: int, *, place: Place) -> None:
            super().__init__()
            self.dim = dim
            seen.append((place.index, place.depth, place.grid))

    registry.register("block", "spy", Spy)
    try:
        stage = {"kind": "stack", "blocks": [{"kind": "spy"}] * 2}
        stages = [stage, {**stage, "merge": "conv", "dim_out": 32}]
        build("body", {"kind": "pyramid", "stages": stages}, DIM, place=Place("body", grid=(8, 8), depth=4))
    finally:
        registry.unregister("block", "spy")
    assert seen == [(0, 4, (8, 8)), (1, 4, (8, 8)), (2, 4, (4, 4)), (3, 4, (4, 4))]


def test_stages_halve_and_widen() -> None:
    body = make({"kind": "pyramid", "dims": [16, 24, 32], "depths": [1, 0, 2], "mixer": "pooling"}, (9, 8))
    x = tokens(2, 9, 8, DIM)
    features = body(x, Context(taps=(0, 1, 2)))
    assert [tuple(m.shape) for m in features.maps.values()] == [(2, 9, 8, 16), (2, 5, 4, 24), (2, 3, 2, 32)]
    assert (body.dim, body.grid, body.stride, body.num_blocks()) == (32, (3, 2), 4, 3)
    assert [info["reduction"] for info in body.feature_info()] == [1, 2, 4]


def test_a_class_token_in_the_last_stage() -> None:
    last = {"kind": "stack", "depth": 1, **ATTENTION, "merge": "conv", "dim": 32, "prefix": 1}
    body = make({"kind": "pyramid", "stages": [{"kind": "stack", "depth": 1, "mixer": "pooling"}, last]}, (8, 8))
    features = body(tokens(2, 8, 8, DIM), NOTHING)
    assert (features.x.shape, features.prefix, features.grid, body.num_prefix) == ((2, 17, 32), 1, (4, 4), 1)


def test_one_for_all_stages_or_one_for_each() -> None:
    schemes = [{"kind": "pre", "norm": "rms"}, "post"]
    spec = {"kind": "pyramid", "dims": [16, 16], "depths": [1, 1], "mixer": ["pooling", "identity"], "scheme": schemes}
    stages = resolve_part("body", spec)["stages"]
    assert [s["blocks"][0]["mixer"]["kind"] for s in stages] == ["pooling", "identity"]
    assert [s["blocks"][0]["scheme"]["kind"] for s in stages] == ["pre", "post"]
    assert [s["merge"] and s["merge"]["kind"] for s in stages] == [None, "conv"]
    for wrong in ({"scheme": schemes[:1]}, {"positions": [None] * 3}):
        with pytest.raises(BadSpec, match="one for all stages or one for each of the 2, got "):
            resolve_part("body", spec | wrong)


def test_layouts_are_spread_over_stages() -> None:
    node = resolve_part("body", {"kind": "pyramid", "dims": [16, 16], "depths": [1, 2], "mixer": "pooling"})
    assert Pyramid.spread(node, "mixer", "identity pooling identity") == {
        "stages.0.blocks.0.mixer": "identity",
        "stages.1.blocks.0.mixer": "pooling",
        "stages.1.blocks.1.mixer": "identity",
    }
    assert Pyramid.spread(node, "norm", "rms") == {
        f"stages.{i}.blocks.{j}.scheme.norm": "rms" for i, j in ((0, 0), (1, 0), (1, 1))
    }
    assert Pyramid.spread(node, "anything", 3) == {}
    assert Stack.spread(node["stages"][1], "channel", {"kind": "swiglu"}) == {
        "blocks.0.channel": {"kind": "swiglu"},
        "blocks.1.channel": {"kind": "swiglu"},
    }


def test_what_is_taken_away_leaves_its_place() -> None:
    """A block whose sublayer was taken away gives what it gave with that sublayer adding nothing."""
    for kind in ("block", "sequence"):
        spec = (
            {"kind": kind, "sublayers": [ATTENTION["mixer"], "mlp"]}
            if kind == "sequence"
            else {"kind": kind, **ATTENTION}
        )
        block = build("block", spec, DIM, place=Place("block", grid=(5,))).double().eval()
        x, names = tokens(2, 5, DIM), block.names
        block.hang(names[0], None)
        y = block.scheme.finish(block(block.scheme.start(x), NOTHING))
        assert [name for _, name, _ in block.steps()] == [names[1]]
        expected = x + block.get_submodule(names[1])(block.scheme.norms[1](x))
        torch.testing.assert_close(y, expected)


def test_pyramids_of_sequences_stream() -> None:
    """Stages without merges are one long stack."""
    stage = {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": 4, "window": 3}}
    body, x = make({"kind": "pyramid", "stages": [stage, stage]}, (12,)), tokens(2, 12, DIM)
    parts = State()
    for i in range(2):
        parts.put(f"stages.{i}.blocks.0.mixer", body.stages[i].blocks[0].mixer.new_state(2, 12))
    stream = Stream.start(parts, 2, 12)
    chunks = [body(c, stream.context(Context(memo={}), c.shape[1]), parts).x for c in x.split([5, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), body(x, Context(causal=True)).x)


def test_blocks_need_something_to_do() -> None:
    for spec, message in (
        (
            {"kind": "block", "mixer": None, "channel": None},
            "has a mixer, a channel mixer or both; this one has neither",
        ),
        ({"kind": "sequence", "sublayers": []}, "a block has at least one sublayer"),
    ):
        with pytest.raises(BadSpec, match=message):
            build("block", spec, DIM)


def test_a_sequence_spreads_mixers_but_bare_ones() -> None:
    sublayers = [{"kind": "depthwise_conv", "size": 3}, "separable_conv", "mlp"]
    block = {"kind": "sequence", "sublayers": sublayers, "scheme": {"kind": "pre", "bare": [0]}}
    node = resolve_part("body", {"kind": "pyramid", "dims": [8, 8], "layouts": ["a", "a*2"], "blocks": {"a": block}})
    assert Pyramid.spread(node, "mixer", "identity identity pooling") == {
        "stages.0.blocks.0.sublayers.1": "identity",
        "stages.1.blocks.0.sublayers.1": "identity",
        "stages.1.blocks.1.sublayers.1": "pooling",
    }
    assert Stack.spread(node["stages"][0], "channel", "swiglu") == {"blocks.0.sublayers.2": "swiglu"}
    assert Stack.spread(node["stages"][0], "norm", "rms") == {"blocks.0.scheme.norm": "rms"}


def test_bare_sublayers_have_no_norm_scale_or_drop_path() -> None:
    scheme = build("scheme", {"kind": "pre", "scale": 0.5, "drop_path": 0.5, "bare": [0]}, DIM, 2).train()
    x = tokens(64, 5, DIM)
    assert torch.equal(scheme.step(x, 0, lambda y: 2 * y, NOTHING), 3 * x)
    dropped = (scheme.double().step(x, 1, lambda y: 2 * y, NOTHING) == x).flatten(1).all(1)
    assert dropped.any()
    assert not dropped.all()
    with pytest.raises(BadSpec, match="this block has sublayers 0 to 1, got 2"):
        build("scheme", {"kind": "pre", "bare": [2]}, DIM, 2)
    with pytest.raises(BadSpec, match="aside: this block has sublayers 0 to 1, got 2"):
        build("scheme", {"kind": "detour", "aside": [2]}, DIM, 2)


def test_drop_shares_scale_the_chance_of_each_sublayer() -> None:
    """With shares 1 and 0 the first branch is left out for some items, the second for none."""
    scheme = {"kind": "pre", "norm": None, "drop_path": 0.5, "drop_shares": [1.0, 0.0]}
    for sublayer, outcomes in ((0, 2), (1, 1)):
        dropping = build("scheme", scheme, 4, 2).train()
        x = torch.ones(200, 1, 4)
        y = dropping.step(x, sublayer, lambda tokens: tokens, NOTHING)
        assert len({item[0, 0].item() for item in y}) == outcomes
    with pytest.raises(BadSpec, match="drop_shares: one for each of the 2 sublayers, got 1"):
        build("scheme", scheme | {"drop_shares": [1.0]}, 4, 2)


def test_blocks_that_widen_pass_their_width_on() -> None:
    wide = {"kind": "widening", "mixer": "identity", "local": "identity", "norm": None}
    stack = build(
        "body", {"kind": "stack", "blocks": [wide | {"dim_out": 6}, {"mixer": None}, wide | {"dim_out": 9}]}, 4
    )
    assert [info["num_chs"] for info in stack.feature_info()] == [6, 6, 9]
    assert stack.dim == stack(torch.randn(2, 5, 4)).x.shape[-1] == 9
    with pytest.raises(BadSpec, match="dim_out is more than the 4 channels that come in, got 4"):
        build("block", wide | {"dim_out": 4}, 4)
    with pytest.raises(BadSpec, match="needs a scheme whose sublayers are residual branches of their own"):
        build("block", wide | {"dim_out": 6, "scheme": "single"}, 4)
