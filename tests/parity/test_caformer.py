"""CAFormer, ConvFormer and PoolFormerV2 under published weights: a recorded output, and timm's own models both ways."""

from __future__ import annotations

import tests.tvshim  # noqa: F401 # before timm

import pytest
import timm
import torch

import formery
from formery import cards
from formery.published import recognise
from tests import goldens
from tests.parity.agreement import assert_same, randomised

VARIANTS = [name for name in cards.card("caformer").variants if not name.startswith("identityformer")]


def test_equals_what_was_recorded() -> None:
    facts = goldens.facts("caformer_s18_timm")
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model("caformer_s18").eval()
    assert recognise(model, theirs).name == "timm"
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    images = goldens.normal((1, 3, 64, 64))
    with torch.no_grad():
        outputs = {"logits": model(images)}
        maps = model.forward_intermediates(images, intermediates_only=True)
    outputs |= {f"stage{i}": tokens for i, tokens in enumerate(maps)}
    assert goldens.worst_error("caformer_s18_timm", outputs) < 1e-5
    assert_same(model.to_published("timm"), theirs)


@pytest.mark.parametrize("name", ["caformer_s18", "convformer_s18", "poolformerv2_s12"])
def test_equals_timm_both_ways(name: str) -> None:
    peer = randomised(timm.create_model(name, num_classes=7), matrices=0.05).double()
    model = formery.create_model(name).double().eval()
    assert model.load_published(peer.state_dict()) == []
    for height, width in ((64, 64), (71, 50)):
        images = torch.randn(1, 3, height, width, dtype=torch.float64)
        with torch.no_grad():
            wanted = peer(images)
            assert (model(images) - wanted).abs().max() < 1e-10 * wanted.abs().max()
    back = timm.create_model(name, num_classes=7).double().eval()
    back.load_state_dict(model.to_published("timm"), strict=True)
    with torch.no_grad():
        assert torch.equal(back(images), wanted)


@pytest.mark.parametrize("name", VARIANTS)
def test_tensors_are_timms(name: str) -> None:
    """Names and shapes of every size, without values."""
    with torch.device("meta"):
        peer, model = timm.create_model(name), formery.create_model(name)
    ours = model.to_published("timm")
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in peer.state_dict().items()}


@pytest.mark.parametrize("name", ["caformer_s18", "poolformerv2_s12", "identityformer_s12"])
def test_the_authors_names(name: str) -> None:
    """Ours to theirs and back; the head's hidden norm keeps its eps, which is not timm's."""
    model = formery.create_model(name).eval()
    theirs = model.to_published("authors")
    assert "downsample_layers.0.post_norm.weight" in theirs
    assert "stages.2.0.res_scale1.scale" in theirs
    again = formery.create_model(name).eval()
    assert again.load_published(theirs) == []
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    hidden = again.resolved["head"].get("hidden_norm")
    assert hidden is None or hidden["eps"] == 1e-5
