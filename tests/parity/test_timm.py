"""timm's own models beside ours: weights carried over both ways, equal scores, other classes and resolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before timm

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import formery
from formery.errors import BadWeights
from tests.parity.agreement import WANTED, error, randomised

CASES = [
    ("vit_tiny", "vit_tiny_patch16_224", 224),
    ("convnext_atto", "convnext_atto", 64),
    ("poolformer_s12",) * 2 + (64,),
    ("convnextv2_atto",) * 2 + (64,),
    ("convnextv2_tiny",) * 2 + (64,),
    ("efficientformer_l1",) * 2 + (224,),
    ("efficientformerv2_s0",) * 2 + (224,),
]
DERIVED = "attention_bias_idxs"
"""Numbers that timm's EfficientFormer saves beside its weights."""


def random_timm(name: str, **options: Any) -> nn.Module:
    """A timm model whose every number is random: nothing rests on initial ones and zeros."""
    return randomised(timm.create_model(name, **options), matrices=0.02)


@pytest.mark.parametrize(("ours", "theirs", "side"), CASES, ids=[case[0] for case in CASES])
def test_both_ways(ours: str, theirs: str, side: int) -> None:
    peer = random_timm(theirs, num_classes=7)
    model = formery.create_model(ours).eval()
    assert model.load_published(peer.state_dict()) == []
    assert model.num_classes == 7
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert error(model(images), peer(images)) < WANTED
        features, wanted = model.forward_features(images), peer.forward_features(images)
        assert error(features if features.dim() == wanted.dim() else features.flatten(2).mT, wanted) < WANTED
        pooled = model.forward_head(model.forward_features(images), pre_logits=True)
        assert error(pooled, peer.forward_head(peer.forward_features(images), pre_logits=True)) < WANTED
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
        back = timm.create_model(theirs, num_classes=7).eval()
        missing, unexpected = back.load_state_dict(model.to_published("timm"), strict=False)
        assert unexpected == [name for name in missing if not name.endswith(DERIVED)] == []
        assert error(model(images), back(images)) < WANTED


@pytest.mark.parametrize(
    ("ours", "theirs", "side"), [*CASES[:2], CASES[-1]], ids=["vit", "convnext", "efficientformer"]
)
def test_maps(ours: str, theirs: str, side: int) -> None:
    """The intermediate maps, and the facts about them, are those of timm's surface."""
    peer = random_timm(theirs)
    model = formery.create_model(ours).eval()
    model.load_published(peer.state_dict())
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        mine, maps = model.forward_intermediates(images, indices=[0, 1])
        last, wanted = peer.forward_intermediates(images, indices=[0, 1])
    assert error(mine if mine.dim() == last.dim() else mine[:, 1:], last) < WANTED
    for one, other in zip(maps, wanted, strict=True):
        assert one.shape == other.shape
        assert error(one, other) < WANTED
    count = len(peer.feature_info)
    assert [f["num_chs"] for f in model.feature_info][:count] == [f["num_chs"] for f in peer.feature_info]
    assert [f["reduction"] for f in model.feature_info][:count] == [f["reduction"] for f in peer.feature_info]


def test_vit_at_another_resolution() -> None:
    """Asked for 160 pixels, the table of positions is resized as timm resizes it."""
    peer = random_timm("vit_tiny_patch16_224", num_classes=5)
    small = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=160).eval()
    from timm.layers import resample_abs_pos_embed

    state = dict(peer.state_dict())
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], new_size=[10, 10], old_size=[14, 14])
    small.load_state_dict(state)
    model = formery.create_model("vit_tiny").eval()
    model.load_published(peer.state_dict(), img_size=160)
    assert model.resolved["stem"]["img_size"] == 160
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert error(model(images), small(images)) < WANTED


def test_vit_adopts_the_checkpoints_resolution() -> None:
    peer = random_timm("vit_tiny_patch16_224", num_classes=5, img_size=96)
    model = formery.create_model("vit_tiny").eval()
    model.load_published(peer.state_dict())
    assert model.resolved["stem"]["img_size"] == 96
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert error(model(images), peer(images)) < WANTED


def test_create_from_timms_file(tmp_path: Path) -> None:
    """By timm's name, from a file, with other classes, channels and as features: as timm's users write it."""
    peer = random_timm("convnext_atto", num_classes=9)
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 64, 64)
    path = tmp_path / "model.safetensors"
    with torch.no_grad():
        whole = formery.create_model("convnext_atto.d2_in1k", pretrained=path).eval()
        assert error(whole(images), peer(images)) < WANTED
        other = formery.create_model("timm/convnext_atto", pretrained=tmp_path, num_classes=3).eval()
        assert other(images).shape == (1, 3)
        assert error(other.forward_features(images), peer.forward_features(images)) < WANTED
        maps = formery.create_model("convnext_atto", pretrained=path, features_only=True).eval()(images)
        wanted = timm.create_model("convnext_atto", features_only=True).eval()
        wanted.load_state_dict(
            {
                n.replace("stages.", "stages_").replace("stem.", "stem_"): t
                for n, t in peer.state_dict().items()
                if not n.startswith("head")
            },
            strict=True,
        )
        for one, other_map in zip(maps, wanted(images), strict=True):
            assert error(one, other_map) < WANTED
        gray = formery.create_model("convnext_atto", pretrained=path, in_chans=1).eval()
        assert error(gray(images[:, :1]), peer(images[:, :1].expand(-1, 3, -1, -1))) < WANTED
        six = formery.create_model("convnext_atto", pretrained=path, in_chans=6).eval()
        assert error(six(images.repeat(1, 2, 1, 1)), peer(images)) < WANTED


def test_a_checkpoint_of_another_model() -> None:
    peer = random_timm("convnext_atto")
    with pytest.raises(BadWeights, match=r"not those of vit_tiny \(timm, .*\): stem.0.weight"):
        formery.create_model("vit_tiny").load_published(peer.state_dict())


def test_registered_in_timm(tmp_path: Path) -> None:
    from formery.interop.timm import register

    names = register()
    assert register() == names
    assert set(names) <= set(timm.list_models("formery_*"))
    assert "formery_poolformer_s12" in names
    assert not any("decoder" in name for name in names)
    facts = timm.get_pretrained_cfg("formery_vit_tiny")
    assert facts.input_size == (3, 224, 224)
    assert timm.data.resolve_data_config(model=timm.create_model("formery_vit_tiny"))["mean"] == facts.mean
    model = timm.create_model("formery_convnext_atto", num_classes=4, in_chans=1, drop_path_rate=0.1)
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 4)
    maps = timm.create_model("formery_convnext_atto", features_only=True, out_indices=[1, 3])(torch.randn(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [80, 320]
    peer = random_timm("convnext_atto")
    save_file(peer.state_dict(), tmp_path / "w.safetensors")
    loaded = timm.create_model("formery_convnext_atto", pretrained=tmp_path / "w.safetensors").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert error(loaded(images), peer(images)) < WANTED
