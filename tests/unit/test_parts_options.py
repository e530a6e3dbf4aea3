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


@pytest.mark.parametrize("order", [-1, 8])
def test_orders_of_markov_models(order: int) -> None:
    with pytest.raises(BadSpec, match=f"order: a Markov model of 0 to 7 bytes of context is counted here, got {order}"):
        markov(b"abc", b"abc", order)
