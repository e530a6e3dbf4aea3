"""Options that would build another part than was asked for are refused, by name."""

from __future__ import annotations

from typing import Any

import pytest

from formery.data.baselines import markov
from formery.errors import BadSpec
from formery.model import Model

BODY: dict[str, Any] = {"kind": "stack", "depth": 1, "mixer": "pooling"}


def image(stem: dict[str, Any], **body: Any) -> dict[str, Any]:
    return {"stem": {"dim": 8, **stem}, "body": BODY | body, "head": "classes"}


def text(mixer: dict[str, Any], **body: Any) -> dict[str, Any]:
    stem = {"kind": "tokens", "dim": 16, "vocab": 8}
    return {"stem": stem, "body": {"kind": "stack", "depth": 1, "mixer": mixer, **body}, "head": "next_token"}


@pytest.mark.parametrize(
    ("stem", "least"),
    [
        ({"kind": "patches", "size": 16, "img_size": 15}, 16),
        ({"kind": "patches", "size": 16, "img_size": [16, 8]}, 16),
        ({"kind": "conv", "size": 7, "padding": 2, "img_size": 2}, 3),
        ({"kind": "conv", "size": 3, "padding": 2, "img_size": 0}, 1),
    ],
)
def test_an_image_smaller_than_one_token(stem: dict[str, Any], least: int) -> None:
    with pytest.raises(BadSpec, match=rf"stem: img_size is at least {least} here, for one token, got "):
        Model(image(stem))
    model = Model(image(stem | {"img_size": least}))
    assert model.stem.grid == ((least + 2 * stem.get("padding", 0) - stem["size"]) // model.stem.stride + 1,) * 2


@pytest.mark.parametrize("ratio", [-3.0, 0.0])
def test_a_hidden_width_is_positive(ratio: float) -> None:
    stem = {"kind": "patches", "size": 4, "img_size": 16}
    with pytest.raises(BadSpec, match=r"mixer\.ratio: input should be greater than 0"):
        Model(image(stem, mixer={"kind": "spatial_mlp", "ratio": ratio}))
    with pytest.raises(BadSpec, match="hidden is at least 1"):
        Model(image(stem, channel={"kind": "mlp", "ratio": ratio}))


@pytest.mark.parametrize(
    ("mixer", "says"),
    [
        ({"kind": "attention", "heads": 4, "head_dim": 0}, "heads and head_dim are at least 1, got 4 and 0"),
        ({"kind": "attention", "heads": 4, "head_dim": -4}, "heads and head_dim are at least 1, got 4 and -4"),
        ({"kind": "attention", "heads": 3}, "heads .3. does not divide 16; choose a divisor or give head_dim"),
        ({"kind": "segment_attention", "heads": 3}, "heads .3. does not divide 16; choose a divisor or give head_dim"),
        ({"kind": "segment_attention", "heads": 17}, "heads .17. does not divide 16"),
    ],
)
def test_heads_have_equal_shares_of_the_width(mixer: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec, match=rf"body\.blocks\.0\.mixer: {says}"):
        Model(text(mixer))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"theta": 1.0}, r"theta: input should be greater than 1, got 1\.0"),
        ({"theta": 0.5}, "theta: input should be greater than 1"),
        ({"slow": 33.0}, r"slow \(33\.0\) is at most fast \(32\.0\)"),
        ({"slow": 2.0, "fast": 1.0}, r"slow \(2\.0\) is at most fast \(1\.0\)"),
    ],
)
def test_a_rope_that_cannot_be_stretched(options: dict[str, float], says: str) -> None:
    position = {"kind": "yarn", "factor": 4.0, "trained": 64, **options}
    with pytest.raises(BadSpec, match=rf"mixer\.position.*{says}"):
        Model(text({"kind": "attention", "heads": 2, "position": position}))


ATTENTION = {"kind": "attention", "heads": 2}
SEGMENTS = {"kind": "segment_attention", "heads": 2}
MEMORY = {"kind": "test_time_memory", "heads": 2}


@pytest.mark.parametrize(
    ("mixer", "scheme", "says"),
    [
        (ATTENTION | {"qk_norm_over": "width"}, {}, "mixer: qk_norm_over has no effect without a qk_norm, got width"),
        (SEGMENTS | {"norm_memory": False}, {}, "mixer: norm_memory has no effect without a norm, got false"),
        (MEMORY | {"hidden": 8}, {}, "mixer: hidden has no effect on a memory of one layer, got 8"),
        (MEMORY | {"degree": 3}, {}, "mixer: degree has no effect on keys as they are, got 3"),
        (ATTENTION, {"gate": "input", "bias": 1.0}, r"scheme: bias has no effect on gate 'input', got 1\.0"),
        (ATTENTION, {"gate": "input", "learned": False}, "scheme: learned has no effect on gate 'input', got false"),
        (ATTENTION, {"gate": "sum", "bias": 1.0}, "scheme: bias has no effect on gate 'sum'"),
        (ATTENTION, {"gate": "sum", "learned": False}, "scheme: learned has no effect on gate 'sum'"),
        (ATTENTION, {"gate": "sum", "linear_bias": True}, "scheme: linear_bias has no effect on gate 'sum', got true"),
    ],
)
def test_options_without_effect(mixer: dict[str, Any], scheme: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec, match=rf"body\.blocks\.0\.{says}.*; leave it out"):
        Model(text(mixer, scheme={"kind": "gated", **scheme}))


@pytest.mark.parametrize(
    ("mixer", "scheme"),
    [
        (ATTENTION | {"qk_norm": "rms", "qk_norm_over": "width"}, {}),
        (SEGMENTS | {"norm": "layer", "norm_memory": False}, {"gate": "input", "linear_bias": True}),
        (MEMORY | {"layers": 2, "hidden": 8}, {"gate": "sum", "bias": 2.0}),
        (MEMORY | {"feature": "polynomial", "degree": 3}, {"gate": "highway", "bias": 1.0, "learned": False}),
    ],
)
def test_the_same_options_where_they_have_one(mixer: dict[str, Any], scheme: dict[str, Any]) -> None:
    model = Model(text(mixer, scheme={"kind": "gated", **scheme}))
    assert Model(model.resolved).resolved == model.resolved


@pytest.mark.parametrize("order", [-1, 8])
def test_orders_of_markov_models(order: int) -> None:
    with pytest.raises(BadSpec, match=f"order: a Markov model of 0 to 7 bytes of context is counted here, got {order}"):
        markov(b"abc", b"abc", order)
