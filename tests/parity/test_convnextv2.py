"""ConvNeXt V2 beside transformers' model, and under the authors' names; `test_timm` has timm's."""

from __future__ import annotations

import tests.tvshim  # noqa: F401 # before transformers

import torch
import transformers

import formery
from formery.model import Model
from formery.published import recognise
from formery.systems.vision import convnextv2
from tests.parity.agreement import WANTED, error, randomised, weights_go_back


def small() -> Model:
    spec = convnextv2.variant("convnextv2_atto")
    spec["body"] |= {"dims": [8, 16, 24, 32], "depths": [1, 2, 1, 1]}
    spec["stem"]["dim"] = 8
    spec["head"]["num_classes"] = 5
    return Model(spec | {"name": "convnextv2_atto"}).eval()


def test_transformers_both_ways() -> None:
    config = transformers.ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1, 2, 1, 1], num_labels=5)
    peer = randomised(transformers.ConvNextV2ForImageClassification(config))
    model = small()
    assert recognise(model, dict(peer.state_dict())).name == "transformers"
    assert model.load_published({name: tensor.clone() for name, tensor in peer.state_dict().items()}) == []
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert error(model(images), peer(images).logits) < WANTED
    weights_go_back(model, peer, images)


def test_authors_names() -> None:
    """Norms hold their vectors in four axes there."""
    model = small()
    randomised(model)
    theirs = model.to_published("authors")
    assert theirs["stages.1.1.grn.gamma"].shape == (1, 1, 1, 64)
    assert {name.partition(".")[0] for name in theirs} == {"downsample_layers", "stages", "norm", "head"}
    other = small()
    assert recognise(other, theirs).name == "authors"
    assert other.load_published(theirs) == []
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other(images), model(images))
    assert formery.create_model("facebook/convnextv2-tiny-22k-384").name == "convnextv2_tiny"
