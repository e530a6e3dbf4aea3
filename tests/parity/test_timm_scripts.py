"""What timm's scripts ask of a model: their arguments, one tensor of scores to learn from, weights from files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # isort: skip # before timm

import pytest
import timm
import torch
from timm.loss import LabelSmoothingCrossEntropy
from timm.models import load_checkpoint
from timm.models._features import FeatureGetterNet
from timm.models._manipulate import group_with_matcher
from torch import nn
from torch.nn import functional as F

import formery
import formery.interop.timm  # names formery_*
from formery.errors import BadFile, BadSpec, BadWeights
from formery.parts.heads.distilled import DistilledScores
from formery.parts.heads.map_and_token import Scores
from formery.saving import blank
from tests.families import families
from tests.parity.agreement import WANTED, error, randomised

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def peer(name: str = "convnext_atto", **options: Any) -> nn.Module:
    return randomised(timm.create_model(name, **options), matrices=0.02)


def scores(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = model.eval()(IMAGES)
    return given


# ------------------------------------------------------------------------------------------------ arguments


def test_the_training_scripts_arguments() -> None:
    """All that `train.py` hands over, with its own defaults."""
    unset = dict.fromkeys(("drop_path_rate", "drop_block_rate", "global_pool", "bn_momentum", "bn_eps"))
    options: dict[str, Any] = {"pretrained": False, "in_chans": 3, "num_classes": 5, "drop_rate": 0.0, **unset}
    model = timm.create_model("formery_caformer_s18", **options, scriptable=False, checkpoint_path="")
    assert (model.num_classes, model.head.dropout) == (5, 0.0)


@pytest.mark.parametrize("name", ["convnext_atto", "deit_tiny", "crossvit_9", "caformer_s18", "uniformer_xxs"])
def test_drop_rate_is_the_heads_dropout(name: str) -> None:
    model = timm.create_model(f"formery_{name}", drop_rate=0.5)
    assert model.head.dropout == model.resolved["head"]["dropout"] == 0.5
    assert formery.create_model(name, drop_rate=0.25).head.dropout == 0.25


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"output_stride": 16}, "output_stride: formery's models keep the strides .* got 16; leave it out"),
        ({"bn_momentum": 0.1}, "take no bn_momentum; leave it out, or give one of num_classes"),
        ({"features_only": True, "feature_cls": "dict"}, "feature_cls: formery's models give a list of maps"),
        ({"drop_rate": 1.5}, "head.dropout: input should be less than 1"),
    ],
)
def test_what_there_is_not(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec, match=says):
        timm.create_model("formery_convnext_atto", **options)


def test_arguments_that_change_nothing() -> None:
    model = timm.create_model("formery_convnext_atto", features_only=True, feature_cls="getter", output_stride=32)
    assert [m.shape[1] for m in model(IMAGES)] == [40, 80, 160, 320]
    assert timm.create_model("formery_convnext_atto", dtype=torch.bfloat16).head.fc.weight.dtype == torch.bfloat16


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("name", ["efficientformer_l1", "efficientformerv2_s0", "uniformer_xxs"])
def test_one_tensor_to_learn_from(name: str) -> None:
    model = timm.create_model(f"formery_{name}", img_size=64, num_classes=4).train()
    LabelSmoothingCrossEntropy()(model(IMAGES), torch.tensor([0, 1])).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.reset_classifier(3)
    assert model(IMAGES).shape == (2, 3)
    model.set_distilled_training()
    both = model(IMAGES)
    assert isinstance(both, DistilledScores | Scores)
    sum(F.cross_entropy(one, torch.tensor([0, 1])) for one in both).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["efficientformer_l1", "uniformer_xxs"])
def test_training_gives_what_evaluation_does(name: str) -> None:
    """Once dropped paths and statistics of batches are put aside."""
    model = timm.create_model(f"formery_{name}", img_size=64, num_classes=4)
    wanted = scores(model)
    model.head.training = True  # and not its batch norm
    with torch.no_grad():
        assert torch.equal(model(IMAGES), wanted)
        model.set_distilled_training(True)
        assert not isinstance(model(IMAGES), torch.Tensor)
    assert isinstance(formery.create_model(name, img_size=64).train()(IMAGES), tuple)


# ------------------------------------------------------------------------------------------------ weights


def test_weights_from_a_file(tmp_path: Path) -> None:
    """By each of timm's ways; the file is one of timm's training, with the script's options beside the weights."""
    theirs = peer(num_classes=7).eval()
    path = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": theirs.state_dict(), "args": Namespace(lr=0.1), "epoch": 3}, path)
    overlay = {"file": str(path)}
    entry = "formery_convnext_atto"
    for model in (
        timm.create_model(entry, pretrained=True, pretrained_cfg_overlay=overlay),
        timm.create_model(entry, pretrained=True, pretrained_cfg_overlay={"state_dict": theirs.state_dict()}),
        timm.create_model(entry, pretrained=path),
        timm.create_model(entry, num_classes=7, checkpoint_path=str(path)),
    ):
        assert error(scores(model), scores(theirs)) < WANTED
    other = timm.create_model(entry, pretrained=True, num_classes=3, pretrained_cfg_overlay=overlay).eval()
    with torch.no_grad():
        assert other(IMAGES).shape == (2, 3)
        assert error(other.forward_features(IMAGES), theirs.forward_features(IMAGES)) < WANTED
    fresh = timm.create_model(
        entry, pretrained=True, num_classes=7, pretrained_cfg_overlay=overlay | {"num_classes": -1}
    )
    assert error(scores(fresh), scores(theirs)) > 0.1
    maps = timm.create_model(entry, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay)
    assert len(maps(IMAGES)) == 4


def test_weights_of_formerys_names(tmp_path: Path) -> None:
    """What timm's training wrote of a formery model, as a checkpoint and as the beginning of another training."""
    ours = timm.create_model("formery_convnext_atto", num_classes=7)
    path = tmp_path / "last.pth.tar"
    torch.save({"state_dict": ours.state_dict(), "args": Namespace(lr=0.1)}, path)
    again = timm.create_model("formery_convnext_atto", num_classes=7, checkpoint_path=str(path))
    assert torch.equal(scores(again), scores(ours))
    overlay = {"file": str(path)}
    for classes in (7, 3):
        options: dict[str, Any] = {"num_classes": classes, "pretrained_cfg_overlay": overlay}
        model = timm.create_model("formery_convnext_atto", pretrained=True, **options).eval()
        assert torch.equal(scores(model), scores(ours)) is (classes == 7)
        with torch.no_grad():
            assert torch.equal(model.forward_features(IMAGES), ours.forward_features(IMAGES))


def test_a_saved_model_goes_on_in_timm(tmp_path: Path) -> None:
    """With the arguments that the script always gives, and another dropout; its weights stay."""
    ours = formery.create_model("convnext_atto", num_classes=7).eval()
    ours.save_pretrained(tmp_path)
    options: dict[str, Any] = {"in_chans": 3, "num_classes": 7, "pretrained_cfg_overlay": {"file": str(tmp_path)}}
    for rate in (0.0, 0.3):
        model = timm.create_model("formery_convnext_atto", pretrained=True, drop_rate=rate, **options).eval()
        assert model.head.dropout == model.resolved["head"]["dropout"] == rate
        assert torch.equal(scores(model), scores(ours))


def test_a_checkpoint_keeps_the_parameters(tmp_path: Path) -> None:
    """An optimizer that holds them goes on doing so; the dialect's order of norm and pooling is adopted."""
    theirs = peer("poolformer_s12", num_classes=7).eval()
    model = timm.create_model("formery_poolformer_s12", num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    load_checkpoint(model, str(tmp_path / "w.pth"))
    assert error(scores(model), scores(theirs)) < WANTED
    held = [id(p) for p in model.parameters()]
    load_checkpoint(model, str(tmp_path / "w.pth"))
    assert [id(p) for p in model.parameters()] == held


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(peer(num_classes=7).state_dict(), tmp_path / "w.pth")
    path = str(tmp_path / "w.pth")
    with pytest.raises(BadWeights, match=r"has 7 classes, the model 5; pretrained=True with .*file=PATH"):
        timm.create_model("formery_convnext_atto", num_classes=5, checkpoint_path=path)
    with pytest.raises(BadWeights, match="not those of vit_tiny"):
        timm.create_model("formery_vit_tiny", checkpoint_path=path)
    with pytest.raises(BadFile, match=r"ships no weights; give pretrained_cfg_overlay=dict\(file=PATH\)"):
        timm.create_model("formery_vit_tiny", pretrained=True)


# ------------------------------------------------------------------------------------------------ groups, sizes, maps


@pytest.mark.parametrize("name", families())
def test_groups_by_timms_function(name: str) -> None:
    """Every parameter in one group, in order of depth; coarse ones are stages, and the stem comes first."""
    with blank():
        model = formery.Model(formery.cards.spec_of(name))
    parameters = [n for n, _ in model.named_parameters()]
    fine, coarse = (
        group_with_matcher(model.named_parameters(), model.group_matcher(coarse=one), reverse=True)
        for one in (False, True)
    )
    assert fine.keys() == coarse.keys() == set(parameters)
    assert {coarse[n] for n in parameters if n.startswith("stem.")} <= {0}
    assert 1 < max(coarse.values()) <= max(fine.values())
    body = [n for n in parameters if n.startswith("body.")]
    assert all(coarse[a] <= coarse[b] for a in body for b in body if fine[a] < fine[b])
    head = [coarse[n] for n in parameters if n.startswith("head.") and ".norm" not in n and "norm." not in n]
    assert {max(coarse.values())} == set(head)


def test_another_size_as_timm_sets_it() -> None:
    """Tables of biases are resized, other weights kept."""
    model = formery.create_model("swin_tiny", img_size=64, num_classes=3)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    model.set_input_size(img_size=(128, 128))
    assert model.resolved["stem"]["img_size"] == [128, 128]
    after = model.state_dict()
    assert [n for n in after if after[n].shape != before[n].shape]
    assert all(torch.equal(t, before[n]) for n, t in after.items() if t.shape == before[n].shape and "table" not in n)
    assert model(torch.randn(1, 3, 128, 128)).shape == (1, 3)
    held = model.stem.conv.weight
    model.set_input_size([128, 128])
    assert model.stem.conv.weight is held


def test_timms_getter_takes_ours() -> None:
    model = formery.create_model("deit_tiny", img_size=64).eval()
    maps = FeatureGetterNet(model, out_indices=3)(IMAGES)
    assert [m.shape for m in maps] == [(2, 192, 4, 4)] * 3


@pytest.mark.parametrize("name", ["swin_tiny", "crossformer_t"])
def test_traced_by_jit(name: str) -> None:
    model = formery.create_model(name, img_size=64, num_classes=3).eval()
    with torch.no_grad():
        assert error(torch.jit.trace(model, IMAGES)(IMAGES), model(IMAGES)) < WANTED
