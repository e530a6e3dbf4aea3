"""Linear mixers: what their options refuse, what plain linear attention computes, how bounds reach the gates."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from formery.context import NOTHING
from formery.errors import BadSpec
from formery.spec import build, resolve


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "gla", "heads": 3}, "heads .3. does not divide 16"),
        ({"kind": "gla", "heads": 0}, "heads and head_dim are at least 1"),
        ({"kind": "gla", "smoothing": 0.0}, "smoothing positive"),
        ({"kind": "gla", "conv": 0}, "conv is at least 1"),
        ({"kind": "hgrn2", "head_dim": 5}, "head_dim .5. does not divide the width 32"),
        ({"kind": "linear_attention", "feature": "unit"}, "normalise divides by sums of features"),
        ({"kind": "retention", "position": "learned"}, "position inside retention turns queries and keys"),
    ],
)
def test_options_that_do_not_go_together_are_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        build("mixer", spec, 32)


def test_bounds_need_gates() -> None:
    text = {"stem": {"kind": "tokens", "dim": 32, "vocab": 7}, "head": "next_token"}
    for mixer, depth in (("gla", 3), ("hgrn", 1)):
        body = {"kind": "stack", "depth": depth, "mixer": mixer, "lower_bounds": True}
        resolved = resolve(text | {"body": body})
        with pytest.raises(BadSpec, match="set lower_bounds to false"):
            build("body", resolved["body"], 32)


@pytest.mark.parametrize("feature", ["elu", "relu"])
def test_normalised_linear_attention_is_attention_by_products_of_features(feature: str) -> None:
    """Equation 8 of arXiv 2006.16236, all pairs of tokens written out."""
    mixer = build("mixer", {"kind": "linear_attention", "heads": 2, "feature": feature}, 8).double()
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in mixer.project(x).chunk(3, dim=-1))
    q, k = (F.elu(part) + 1 if feature == "elu" else F.relu(part) for part in (q, k))
    weights = (q @ k.mT).tril()
    y = (weights / (weights.sum(-1, keepdim=True) + 1e-6)) @ v
    torch.testing.assert_close(mixer(x), mixer.out(y.transpose(1, 2).flatten(2)))


def test_a_bound_keeps_the_memory() -> None:
    """Under a bound of 0.9 a memory keeps at least 0.9 of itself at a token, whatever the gate says."""
    mixer = build("mixer", {"kind": "hgrn"}, 4).double()
    state = mixer.new_state(1, 8)
    state.slot("memory").put(torch.full((1, 4), 5.0, dtype=torch.float64))
    with torch.no_grad():
        mixer.project.weight[4:8] = -50.0  # gates that forget everything
        mixer.project.weight[:4] = 0.0  # and take nothing up
        mixer(torch.ones(1, 3, 4, dtype=torch.float64), NOTHING.but(lower_bound=torch.full((4,), math.log(0.9))), state)
    torch.testing.assert_close(state.slot("memory").value, torch.full((1, 4), 5 * 0.9**3, dtype=torch.float64))
