"""`create_model` and `list_models`: names, wishes, and what is said of those that cannot be met."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import formery
from formery import cards, create_model, list_models
from formery.create import model_spec
from formery.errors import BadFile, BadSpec, UnknownName
from formery.spec import resolve

SMALL: dict[str, Any] = {
    "stem": {"kind": "conv", "dim": 8, "img_size": 32},
    "body": {"kind": "pyramid", "dims": [8, 16], "depths": [1, 2], "mixer": "pooling"},
    "head": {"kind": "classes", "num_classes": 3},
}


def test_listing_by_glob_and_capability() -> None:
    assert list_models() == sorted(cards.variants())
    assert list_models("poolformer_*") == sorted(name for name in cards.variants() if name.startswith("poolformer_"))
    assert list_models("no_such_*") == []
    for name in list_models(modality="text", causal=True, streams=True):
        facts = cards.variants()[name].variants[name]
        assert (facts["causal"], facts["streams"]) == (True, True)
    kinds = ("image", "video", "text", "series")
    assert {name for kind in kinds for name in list_models(modality=kind)} == set(list_models())
    assert set(list_models(streams=True)) | set(list_models(streams=False)) == set(list_models())
    assert set(cards.aliases()) <= set(list_models(aliases=True))


def test_unknown_names_are_explained() -> None:
    with pytest.raises(UnknownName, match="no model is called 'poolformer_s13'; did you mean poolformer_s"):
        create_model("poolformer_s13")


def test_wishes_are_options_of_the_spec() -> None:
    model = create_model(SMALL, num_classes=7, in_chans=1, img_size=(64, 32), global_pool="max", drop_path_rate=0.2)
    assert (model.resolved["head"]["num_classes"], model.resolved["head"]["pool"]) == (7, "max")
    assert (model.resolved["stem"]["in_chans"], model.resolved["stem"]["img_size"]) == (1, [64, 32])
    assert [block.scheme.drop_path for stage in model.body.stages for block in stage.blocks] == [0.0, 0.1, 0.2]  # type: ignore[union-attr, operator]
    assert model(torch.randn(2, 1, 64, 32)).shape == (2, 7)
    assert create_model(SMALL, num_classes=0)(torch.randn(1, 3, 32, 32)).shape == (1, 16)


def test_nodes_are_replaced() -> None:
    model = create_model(SMALL, override={"body.stages.1.mixer": {"kind": "attention", "heads": 4}})
    assert [type(mixer).__name__ for _, mixer in model.mixers()] == ["Pooling", "Attention", "Attention"]


@pytest.mark.parametrize(
    ("name", "wishes", "message"),
    [
        (SMALL, {"drop_path_rate": 1.0}, "drop_path_rate is at least 0 and below 1, got 1.0"),
        (SMALL, {"out_indices": [0]}, "out_indices goes with features_only=True"),
        (SMALL, {"features_only": True, "out_indices": [2]}, "out_indices: this body has maps 0 to 1, got 2"),
        (SMALL, {"num_classes": -1}, "head.num_classes: input should be greater than or equal to 0, got -1"),
        (
            SMALL,
            {"num_classes": 3, "override": {"head": "classes"}},
            "overrides 'head.num_classes' and 'head' both hit",
        ),
        ("decoder_tiny", {"num_classes": 3}, "num_classes: head 'next_token' of this model has no such option; leave"),
        ("decoder_tiny", {"img_size": 3}, "img_size: stem 'tokens' of this model has no such option; leave it out"),
        ("decoder_tiny", {"global_pool": "avg"}, "global_pool: head 'next_token' of this model has no such option"),
    ],
)
def test_wishes_that_cannot_be_met(name: Any, wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        create_model(name, **wishes)(torch.zeros(1, 3, 32, 32))
    assert str(caught.value).startswith(message)


def test_formery_ships_no_weights() -> None:
    with pytest.raises(BadFile, match="formery ships no weights; give pretrained="):
        create_model("poolformer_s12", pretrained=True)


def test_maps_alone() -> None:
    model = create_model(SMALL, features_only=True, out_indices=(-1,))
    assert [tuple(m.shape) for m in model(torch.randn(2, 3, 32, 32))] == [(2, 16, 4, 4)]
    assert model.feature_info.channels() == [16]
    assert model.feature_info.out_indices == (1,)
    assert not any(name.startswith("head") for name in model.state_dict())


def test_the_spec_without_the_model() -> None:
    assert model_spec(SMALL) == resolve(SMALL)
    assert model_spec("poolformer_s12", num_classes=7)["head"]["num_classes"] == 7
    assert formery.Model(model_spec(SMALL)).resolved == resolve(SMALL)
