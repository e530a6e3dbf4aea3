"""What a model accepts it does: early stops, class tokens, the rule of its first weights, its short spec."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from formery.errors import BadSpec, CannotRun
from formery.model import Model
from formery.parts.heads.classes import Classes
from formery.parts.heads.head import Features

VIT: dict[str, Any] = {
    "stem": {"kind": "patches", "dim": 64, "size": 4, "img_size": 8},
    "body": {"kind": "stack", "depth": 3, "mixer": {"kind": "attention", "heads": 2}, "prefix": 1},
    "head": {"kind": "classes", "num_classes": 5, "pool": "token"},
}
PYRAMID: dict[str, Any] = {
    "stem": {"kind": "conv", "dim": 8, "img_size": 32},
    "body": {"kind": "pyramid", "dims": [8, 16, 24], "depths": [1, 1, 1], "mixer": "pooling"},
    "head": "classes",
}


@pytest.mark.parametrize("spec", [VIT, PYRAMID], ids=["stack", "pyramid"])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_stop_early_stops(spec: dict[str, Any], last: int) -> None:
    model, images = Model(spec).eval(), torch.randn(1, 3, spec["stem"]["img_size"], spec["stem"]["img_size"])
    ran: list[str] = []
    for path in model.feature_info.module_name(range(3)):
        model.get_submodule(path).register_forward_hook(lambda *_, path=path: ran.append(path))
    whole = model.forward_intermediates(images, indices=[last], intermediates_only=True)
    assert len(ran) == 3
    ran.clear()
    features, maps = model.forward_intermediates(images, indices=[last], stop_early=True)
    assert len(ran) == last + 1
    assert torch.equal(maps[0], whole[0])
    if last == 2:
        assert torch.equal(features, model.forward_features(images))
    assert len(model.forward_intermediates(images, stop_early=True)[1]) == 3


def test_a_class_token_is_there_or_missed() -> None:
    with pytest.raises(BadSpec, match=r"head\.pool: 'token' needs a class token"):
        Model({**PYRAMID, "head": {"kind": "classes", "pool": "token"}})
    model = Model(PYRAMID)
    with pytest.raises(BadSpec, match=r"head\.pool: 'token' needs a class token"):
        model.reset_classifier(3, global_pool="token")
    assert (model.num_classes, model.head.pool, model.spec) == (1000, "avg", PYRAMID)
    with pytest.raises(CannotRun, match="pool 'token' takes the class token, and these features have none"):
        Classes(8, num_classes=2, pool="token")(Features(torch.zeros(1, 4, 8)), None)  # type: ignore[arg-type]


def test_a_new_classifier_keeps_the_short_spec_and_the_rule_of_first_weights() -> None:
    torch.manual_seed(0)
    model = Model(VIT)
    model.reset_classifier(200, global_pool="avg")
    assert model.spec == {**VIT, "head": {"kind": "classes", "num_classes": 200, "pool": "avg"}}
    assert Model(model.spec).resolved == model.resolved
    assert model.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)  # type: ignore[union-attr]
    model.init_weights(None)
    model.reset_classifier(200)
    assert model.head.fc.weight.std().item() == pytest.approx(1 / 8, rel=0.1)  # type: ignore[union-attr]
    model.rebuild(model.resolved)
    assert model.head.fc.weight.std().item() == pytest.approx(1 / 8, rel=0.1)  # type: ignore[union-attr]


@pytest.mark.parametrize("place", ["body.blocks.1.scheme.norm", "head.norm"])
def test_what_looks_at_a_batch_cannot_predict_the_next_token(place: str) -> None:
    scheme = {"kind": "pre", "norm": "batch" if place.startswith("body") else "rms"}
    spec = {
        "stem": {"kind": "tokens", "dim": 16, "vocab": 11},
        "body": {"kind": "stack", "depth": 2, "mixer": {"kind": "attention", "heads": 2}, "scheme": scheme},
        "head": {"kind": "next_token", "norm": "batch" if place == "head.norm" else "rms"},
    }
    with pytest.raises(BadSpec, match=r"^(body\.blocks\.0\.|head\.norm).*: in training .*; use norm 'rms' or 'layer'"):
        Model(spec)
