"""Checkpoints as people have them: without a classifier or for none, formery's own, averaged, of training scripts."""

from __future__ import annotations

import argparse
import copy
import logging
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import formery
from formery.checkpoints import Left, read
from formery.errors import BadFile, BadSpec, BadWeights
from formery.model import Model
from formery.published import under_names

ATTO: dict[str, Any] = {"img_size": 32}


@pytest.fixture(scope="module")
def atto() -> Model:
    torch.manual_seed(0)
    return formery.create_model("convnext_atto", num_classes=6, **ATTO).eval()


@pytest.fixture(scope="module")
def theirs(atto: Model) -> dict[str, Tensor]:
    return atto.to_published("timm")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "formery")
    return caplog


def headless(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in theirs.items() if not name.startswith("head.fc.")}


def body_of(model: Model) -> list[Tensor]:
    return [tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")]


def same(one: Model, other: Model) -> bool:
    return all(torch.equal(a, b) for a, b in zip(body_of(one), body_of(other), strict=True))


@pytest.mark.parametrize("bare", [False, True], ids=["with a classifier", "without"])
def test_no_classes(atto: Model, theirs: dict[str, Tensor], bare: bool, tmp_path: Path, said: Any) -> None:
    """The classifier is left aside, nothing else is, and whether the checkpoint has one makes no difference."""
    path = tmp_path / "w.pth"
    torch.save(headless(theirs) if bare else theirs, path)
    model = formery.create_model("convnext_atto", pretrained=path, num_classes=0, **ATTO).eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), atto.forward_head(atto.forward_features(images), pre_logits=True))
    spec = model.resolved  # a spec that says no classes by itself is the same wish
    assert same(formery.create_model(spec, pretrained=path), atto)
    torch.save({**theirs, "head.more.weight": torch.zeros(3)}, path)
    with pytest.raises(BadWeights, match=r"no use for head\.more\.weight of these timm"):
        formery.create_model("convnext_atto", pretrained=path, num_classes=0, **ATTO)
    assert not said.messages


@pytest.mark.parametrize("name", ["poolformer_s12", "convformer_s18", "efficientformerv2_s0", "vit_tiny"])
def test_no_classes_of_other_heads(name: str, tmp_path: Path) -> None:
    model = formery.create_model(name, num_classes=3, img_size=64).eval()
    torch.save(under_names(model, "timm"), tmp_path / "w.pth")
    assert formery.create_model(name, pretrained=tmp_path / "w.pth", num_classes=0, img_size=64).num_classes == 0


def test_a_fresh_classifier_where_one_is_asked_for(
    atto: Model, theirs: dict[str, Tensor], tmp_path: Path, said: Any
) -> None:
    path = tmp_path / "w.pth"
    torch.save(headless(theirs), path)
    model = formery.create_model("convnext_atto", pretrained=path, num_classes=5, **ATTO)
    assert said.messages == ["the checkpoint has no classifier: that of convnext_atto for 5 classes starts fresh"]
    assert model.head.fc is not None
    assert model.head.fc.weight.shape == (5, 320)
    assert model.head.fc.weight.std() > 0.01
    assert same(model, atto)
    for wish in ({}, {"num_classes": 5, "fresh_classifier": False}):
        with pytest.raises(
            BadWeights, match=r"head\.fc\.weight is missing; .* \(there is no classifier: create_model with"
        ):
            formery.create_model("convnext_atto", pretrained=path, **wish, **ATTO)
    assert formery.create_model("convnext_atto", pretrained=path, fresh_classifier=True, **ATTO).num_classes == 1000
    broken = headless(theirs)
    del broken["stages.0.blocks.0.norm.bias"]
    torch.save(broken, path)
    with pytest.raises(BadWeights, match=r"fit convnext_atto: stages\.0\.blocks\.0\.norm\.bias is missing$"):
        formery.create_model("convnext_atto", pretrained=path, num_classes=5, **ATTO)
    half = {name: tensor for name, tensor in theirs.items() if name != "head.fc.bias"}
    torch.save(half, path)
    with pytest.raises(BadWeights, match=r"fit convnext_atto: head\.fc\.bias is missing$"):
        formery.create_model("convnext_atto", pretrained=path, num_classes=5, **ATTO)


def test_maps_need_nothing_of_the_head(atto: Model, theirs: dict[str, Tensor], tmp_path: Path, said: Any) -> None:
    path = tmp_path / "w.pth"
    torch.save({name: tensor for name, tensor in theirs.items() if not name.startswith("head.")}, path)
    backbone = formery.create_model("convnext_atto", pretrained=path, features_only=True, **ATTO).eval()
    assert same(backbone, atto)
    assert not said.messages
    torch.save(theirs, path)
    assert same(formery.create_model("convnext_atto", pretrained=path, features_only=True, **ATTO), atto)


def test_own_names(atto: Model, tmp_path: Path) -> None:
    """A state dict, a saved model's file or folder, a run's folder: for the name, or as the model itself."""
    torch.save(atto.state_dict(), tmp_path / "w.pth")
    run = tmp_path / "run"
    atto.save_pretrained(run / "model")
    save_file({name: t.contiguous() for name, t in atto.state_dict().items()}, tmp_path / "elsewhere.safetensors")
    places = (tmp_path / "w.pth", run, run / "model", run / "model" / "model.safetensors")
    images = torch.randn(1, 3, 32, 32)
    for place in (*places, tmp_path / "elsewhere.safetensors"):
        assert torch.equal(formery.create_model("convnext_atto", pretrained=place, **ATTO).eval()(images), atto(images))
        changed = formery.create_model("convnext_atto", pretrained=place, num_classes=3, in_chans=1, img_size=64)
        assert changed(torch.zeros(1, 1, 64, 64)).shape == (1, 3)
        assert formery.create_model("convnext_atto", pretrained=place, num_classes=0, **ATTO).num_classes == 0
        assert same(formery.create_model("convnext_atto", pretrained=place, features_only=True, **ATTO), atto)
        again = Model(atto.resolved)
        assert again.load_published(place) == []
        assert same(again, atto)
    for opened in (formery.create_model(run), formery.create_model(str(run)), Model.from_pretrained(run)):
        assert torch.equal(opened.eval()(images), atto(images))
    assert same(formery.create_model(atto.resolved, pretrained=run), atto)
    assert set(atto.to_published("formery")) == set(atto.state_dict())


def test_own_tensors_of_another_function(tmp_path: Path) -> None:
    """Where the config beside the weights tells, it is heard."""
    small: dict[str, Any] = {"img_size": 32, "num_classes": 3}
    made = formery.create_model("poolformer_s12", override={"head.order": "pool_norm", "head.norm": "layer"}, **small)
    made.save_pretrained(tmp_path)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(BadWeights, match=r"head\.norm\.kind is group1 in .*, layer by the config beside"):
            formery.create_model("poolformer_s12", **small).load_published(place)
    assert formery.create_model("poolformer_s12", pretrained=tmp_path).resolved == made.resolved


@pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema")], ids=" and ".join)
def test_averaged_weights_come_first(keys: tuple[str, str], said: Any) -> None:
    raw, averaged = {"a.weight": torch.zeros(2)}, {"module.a.weight": torch.ones(2)}
    held = {keys[0]: raw, keys[1]: averaged}
    assert read(held)["a.weight"].tolist() == [1, 1]
    both = f"raw weights ({keys[0]}) and averaged ones ({keys[1]})"
    assert said.messages == [f"the checkpoint has {both}: the averaged are taken, as timm does"]
    said.clear()
    assert read(held | {keys[1]: None})["a.weight"].tolist() == [0, 0]
    assert read({keys[1]: averaged})["a.weight"].tolist() == [1, 1]
    assert not said.messages


def test_wrapped_names() -> None:
    assert list(read({"_orig_mod.module.a": torch.zeros(1)})) == ["a"]
    turning: dict[str, Any] = {"a": torch.zeros(1)}
    turning["model"] = turning
    assert list(read(turning)) == ["a"]


def test_checkpoints_of_training_scripts(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    """Plain things beside the tensors are passed over, not made."""
    beside = {
        "args": argparse.Namespace(lr=1e-3, out=Path("runs")),
        "metric": np.float64(81.5),
        "epoch": np.int64(3),
        "arch": "convnext_atto",
    }
    for zipped in (True, False):
        path = tmp_path / "last.pth.tar"
        torch.save({"state_dict": theirs, **beside}, path, _use_new_zipfile_serialization=zipped)
        assert formery.create_model("convnext_atto", pretrained=path, **ATTO).num_classes == 6
        assert formery.create_model("convnext_atto", pretrained=tmp_path, **ATTO).num_classes == 6
    assert not vars(Left("anything"))
    for code in (os.system, copy.copy, argparse.ArgumentParser):
        torch.save({"state_dict": theirs, "more": code}, path)
        with pytest.raises(BadFile, match=r"holds objects of|truncated or damaged, or holds code"):
            read(path)


def test_files_are_what_is_in_them(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    save_file(tensors, tmp_path / "w.bin")
    torch.save(tensors, tmp_path / "w.safetensors")
    for name in ("w.bin", "w.safetensors"):
        assert read(tmp_path / name)["a"].tolist() == [1, 1]
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    (tmp_path / "arrays.npz").rename(tmp_path / "npz.pth")
    (tmp_path / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "text.bin").write_text("hello, I am no weights\n")
    (tmp_path / "none.pth").write_bytes(b"")
    (tmp_path / "noise.pth").write_bytes(bytes(range(7, 200)))
    torch.save(tensors, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-200])
    for name, said in {
        "npz.pth": "an archive of numpy's arrays; convert it",
        "lfs.pth": "git lfs pull",
        "page.pth": "a web page; get the file itself",
        "text.bin": r"a text \('hello, I am no weights'\)",
        "none.pth": "empty",
        "noise.pth": "neither of safetensors nor of torch.save",
        "cut.pth": "truncated or damaged",
    }.items():
        with pytest.raises(BadFile, match=said) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_names_of_another_function_are_refused(tmp_path: Path, said: Any) -> None:
    small: dict[str, Any] = {"img_size": 32, "num_classes": 3}
    model = formery.create_model("poolformer_s12", **small)
    assert model.to_published("authors")
    with pytest.raises(
        BadWeights, match=r"head\.norm\.kind is group1 in this model, layer in that of the dialect 'timm'"
    ):
        model.to_published("timm")
    torch.save(under_names(model, "timm"), tmp_path / "w.pth")
    timms = formery.create_model("poolformer_s12", pretrained=tmp_path / "w.pth", **small)
    assert timms.to_published("timm")
    for name in ("authors", "transformers"):
        with pytest.raises(BadWeights, match=r"head\.norm\.kind is layer in this model, group1 in that of the dialect"):
            timms.to_published(name)
    assert not said.messages
    model = formery.create_model("caformer_s18", img_size=64, num_classes=3)
    assert model.to_published("authors")
    assert not said.messages
    model.to_published("timm")
    assert said.messages == ["head.hidden_norm.eps is 1e-05 in this model, 1e-06 in that of the dialect 'timm'"]


def test_deit_has_its_authors_names(said: Any) -> None:
    model = formery.create_model("deit_tiny", img_size=32, num_classes=3)
    assert set(model.to_published("authors")) == set(model.to_published("timm"))
    more = model.to_published() | {"dist_token": torch.zeros(1, 1, 192), "pos_embed": torch.zeros(1, 6, 192)}
    with pytest.raises(
        BadWeights, match=r"^dist_token: these weights are of a distilled DeiT.* take the checkpoint of"
    ):
        model.load_published(more)
    del more["dist_token"]
    with pytest.raises(BadWeights, match=r"fit deit_tiny: pos_embed has 6 rows, 5 are needed$"):
        model.load_published(more)
    with pytest.raises(BadWeights, match="no dialect 'authors'; there are: timm"):
        formery.create_model("vit_tiny", img_size=32).to_published("authors")


def test_numbers_that_are_none_are_named(atto: Model, theirs: dict[str, Tensor], tmp_path: Path, said: Any) -> None:
    bad = {name: tensor.clone() for name, tensor in theirs.items()}
    bad["stem.0.weight"][0, 0, 0, 0] = float("nan")
    bad["head.fc.bias"][1] = float("-inf")
    torch.save(bad, tmp_path / "w.pth")
    model = formery.create_model("convnext_atto", pretrained=tmp_path / "w.pth", **ATTO)
    assert len(said.messages) == 1
    assert "convnext_atto has weights that are infinite or no numbers: " in said.messages[0]
    assert {"stem.conv.weight", "head.fc.bias"} == set(said.messages[0].partition("numbers: ")[2].split(", "))
    said.clear()
    model.save_pretrained(tmp_path / "saved")
    Model.from_pretrained(tmp_path / "saved")
    assert len(said.messages) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_weights_are_readable_where_configs_are(atto: Model, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        atto.save_pretrained(tmp_path)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("config.json", "model.safetensors")}
    assert modes == {0o644}


def test_a_rewritten_model_keeps_its_size(atto: Model, tmp_path: Path) -> None:
    from formery import rewrites

    folded, _, _ = rewrites.apply(copy.deepcopy(atto), "fold", [torch.randn(2, 3, 32, 32)])
    folded.save_pretrained(tmp_path)
    assert formery.create_model(tmp_path, num_classes=2).num_classes == 2
    with pytest.raises(BadSpec, match="a rewritten model, which stays as it is; only num_classes and global_pool"):
        formery.create_model(tmp_path, img_size=64)
