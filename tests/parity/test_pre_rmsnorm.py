"""Recentring against Pre-RMSNorm's own models (arXiv 2305.14858), and the paper's claims."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from formery.model import Model
from formery.parts.norms.layer import Layer
from formery.parts.norms.rms import RMS
from formery.rewrites import find
from formery.rewrites.checks import pre_rmsnorm, small
from tests import goldens
from tests.parity.agreement import error

WANTED = 1e-5
"""Of the output's scale, float32."""
EXACT = 1e-10
"""Of the output's scale, float64."""

NORM = {"kind": "layer", "eps": 1e-5, "affine": False}
BLOCKS = {
    "kind": "stack",
    "depth": 2,
    "mixer": {"kind": "attention", "heads": 4, "head_dim": 8},
    "channel": {"kind": "mlp", "hidden": 64},
    "scheme": {"kind": "pre", "norm": NORM},
}
VIT = {
    "name": "vit_tiny",  # whose published names are known
    "stem": {"kind": "patches", "dim": 32, "size": 4, "img_size": 16},
    "body": {**BLOCKS, "prefix": 1, "position": {"kind": "learned", "prefix": 0}},
    "head": {"kind": "classes", "num_classes": 10, "pool": "token", "norm": NORM},
}
GPT = {
    "name": "decoder_tiny",
    "stem": {"kind": "tokens", "dim": 32, "vocab": 50, "length": 16},
    "body": {**BLOCKS, "position": "learned"},
    "head": {"kind": "next_token", "norm": NORM, "bias": True},
}
fold = find("fold")


def published(spec: dict[str, Any], golden: str) -> Model:
    """The model with the golden's weights."""
    model = Model(spec)
    assert model.load_published(goldens.state_from(goldens.facts(golden)["tensors"])) == []
    return model.eval()


def recentred(model: Model) -> Model:
    """A copy without layer norms."""
    copied = copy.deepcopy(model)
    fold.perform(copied, fold.decide(copied, recentre=True))
    kinds = {type(module) for module in copied.modules()}
    assert RMS in kinds
    assert Layer not in kinds
    return copied


@torch.no_grad()
def test_vit_recentred_is_the_authors() -> None:
    """One set of published weights, three models: theirs with layer norms, theirs recentred in every forward, ours."""
    model = published(VIT, "pre_rmsnorm_vit_pre_ln")
    images = goldens.normal((1, 3, 16, 16))
    assert goldens.worst_error("pre_rmsnorm_vit_pre_ln", {"logits": model(images)}) < WANTED
    ours = recentred(model)
    for golden in ("pre_rmsnorm_vit_pre_ln", "pre_rmsnorm_vit_pre_rms_recentred"):
        assert goldens.worst_error(golden, {"logits": ours(images)}) < WANTED
    wide = model.double()
    assert error(recentred(wide)(images.double()), wide(images.double())) < EXACT


@torch.no_grad()
def test_recentring_is_not_norms_exchanged() -> None:
    """RMS norms over weights that were not recentred are another model."""
    model = published(VIT, "pre_rmsnorm_vit_pre_ln")
    exchanged = copy.deepcopy(recentred(model))
    exchanged.load_state_dict(model.state_dict())
    images = goldens.normal((1, 3, 16, 16))
    assert goldens.worst_error("pre_rmsnorm_vit_pre_rms_recentred", {"logits": exchanged(images)}) > 1e-3


@torch.no_grad()
def test_gpt_recentred() -> None:
    model = published(GPT, "pre_rmsnorm_gpt_pre_ln")
    ids = goldens.tokens((2, 12), 50)
    ours = recentred(model)
    assert goldens.worst_error("pre_rmsnorm_gpt_pre_ln", {"logits": ours(ids)}) < WANTED
    wide = model.double()
    assert error(recentred(wide)(ids), wide(ids)) < EXACT


@torch.no_grad()
@pytest.mark.parametrize("affine", [False, True])
def test_tied_heads(affine: bool) -> None:
    """A head that shares the recentred table reads tokens without mean: equal, unless weights stand in between."""
    norm = {"kind": "layer", "affine": affine}
    spec = small.decoder("layer", depth=2, position="learned")
    spec["head"] = {"kind": "next_token", "norm": norm, "tie": True}
    model, ids = small.drawn(spec), small.tokens()
    plan = fold.decide(model, recentre=True)
    if affine:
        assert plan["steps"] == []
        assert plan["refused"][0]["where"] == "stem.embed.weight"
        assert "untie=True" in plan["refused"][0]["why"]
        plan = fold.decide(model, recentre=True, untie=True)
    wanted, parameters = model(ids), sum(p.numel() for p in model.parameters())
    fold.perform(model, plan)
    assert error(model(ids), wanted) < EXACT
    assert (model.head.scores.weight is model.stem.embed.weight) is not affine
    grown = model.stem.embed.weight.numel() if affine else 0
    assert sum(p.numel() for p in model.parameters()) == parameters + grown


@torch.no_grad()
@pytest.mark.parametrize("host", ["timm", "transformers"])
def test_hosts(host: str) -> None:
    """ViTs of timm and of transformers, with weights and biases in their norms."""
    model, images = _timm() if host == "timm" else _transformers()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    model = model.double().eval()
    wanted = _logits(model, images)
    fold.perform(model, fold.decide(model, recentre=True))
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in model.modules())
    assert error(_logits(model, images), wanted) < EXACT
    assert torch.equal(_logits(model, images).argmax(-1), wanted.argmax(-1))


def _logits(model: torch.nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    return getattr(output, "logits", output)


def _timm() -> tuple[torch.nn.Module, Tensor]:
    timm = importlib.import_module("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 7}
    return timm.create_model("vit_tiny_patch16_224", init_values=0.1, **sizes), small.images(2, 32)


def _transformers() -> tuple[torch.nn.Module, Tensor]:
    transformers = importlib.import_module("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        num_labels=7,
    )
    return transformers.ViTForImageClassification(config), small.images(2, 32)


def test_claims() -> None:
    found = pre_rmsnorm.exactness()
    assert found["difference"] < EXACT
    assert found["equal_predictions"] == 1
    means = pre_rmsnorm.mean_of_the_stream()
    assert means["recentred"] < 1e-6 < 1e-2 < means["as_built"]
    trained = pre_rmsnorm.training()
    assert trained["difference"] < 1e-5
    assert trained["last_loss"] < trained["first_loss"] - 0.5
    cost = pre_rmsnorm.cost_of_norms(rounds=3)
    assert cost["ratio"] == pytest.approx(cost["rms"] / cost["layer"])
