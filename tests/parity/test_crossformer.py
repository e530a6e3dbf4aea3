"""CrossFormer computes what the authors' code computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import formery
from formery.parts.mixers.group_attention import GroupAttention
from formery.parts.positions.offset_mlp import OffsetMLP
from formery.published import recognise
from formery.spec import Place, build
from formery.systems.vision import crossformer
from formery.weights import Dialect, Rule, to_ours
from tests import goldens
from tests.parity.agreement import assert_same

GOLDEN = 1e-5
"""Of the output's scale."""


@torch.no_grad()
def test_crossformer_t() -> None:
    """At 96 pixels, where the maps of 24, 12, 6 and 3 tokens are filled up or smaller than a group."""
    facts = goldens.facts("crossformer_t__96")
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model("crossformer_t", img_size=96).eval()
    assert recognise(model, theirs).name == "authors"
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    images = goldens.normal((1, 3, 96, 96))
    assert goldens.worst_error("crossformer_t__96", {"logits": model(images)}) < GOLDEN
    assert_same(model.to_published("authors"), theirs)
    built = formery.create_model("crossformer_t").eval()  # for 224 pixels: nothing is bound to a size
    built.load_published(theirs)
    assert goldens.worst_error("crossformer_t__96", {"logits": built(images)}) < GOLDEN


NEAR = {"kind": "window_attention", "window": 5}
FAR = {"kind": "long_distance_attention", "size": 5, "interval": 3}


@pytest.mark.parametrize("graded", [False, True], ids=["inference", "with gradients"])
@pytest.mark.parametrize("kind", [NEAR, FAR], ids=["near", "far"])
def test_attention_in_groups_of_5(graded: bool, kind: dict[str, Any]) -> None:
    """Three groups side by side on a map; or among the tokens of a map that stand three apart."""
    spec = {**kind, "heads": 4, "head_dim": 16, "position": {"kind": "offset_mlp", "hidden": 4}}
    mixer = build("mixer", spec, 64, place=Place(grid=(15, 15))).eval()
    assert isinstance(mixer, GroupAttention)
    assert isinstance(mixer.position, OffsetMLP)
    rules = tuple(Rule(ours, theirs) for ours, theirs in crossformer.BLOCK.items() if ours.startswith("mixer."))
    tensors = goldens.facts("crossformer_attention_g5")["tensors"]
    given = {f"attn.{name}": tensor for name, tensor in goldens.state_from(tensors).items()}
    shapes = {f"mixer.{name}": tensor.shape for name, tensor in mixer.state_dict().items()}
    state, wrong = to_ours(given, shapes, Dialect("authors", rules))
    assert wrong == []
    mixer.load_state_dict({name.removeprefix("mixer."): tensor for name, tensor in state.items()})
    groups = goldens.normal((3, 25, 64), seed=2).view(3, 5, 5, 64)
    x = torch.randn(1, 15, 15, 64)
    steps = [slice(5 * i, 5 * i + 5) if kind is NEAR else slice(i, None, 3) for i in range(3)]
    for step, group in zip(steps, groups, strict=True):
        x[0, step, step] = group
    with torch.set_grad_enabled(graded):
        y = mixer(x)
        outputs = {
            "y": torch.stack([y[0, step, step] for step in steps]).flatten(1, 2),
            "bias_table": mixer.position.rows((5, 5)),
        }
    assert goldens.worst_error("crossformer_attention_g5", outputs) < GOLDEN
