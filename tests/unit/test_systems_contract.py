"""What every system owes: its smallest variants run both ways, tell the truth about their maps, and are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import formery
from formery import cards
from formery.errors import CannotRun
from formery.model import Model
from formery.published import dialects_of
from formery.weights import match

SMALL: dict[str, dict[str, Any]] = {  # the smallest variants of each card, and every kind of MetaFormer
    "poolformer_s12": {"img_size": 64},
    "metaformer_id_s12": {"img_size": 64},
    "metaformer_rand_s12": {"img_size": 64},
    "metaformer_pppa_s12": {"img_size": 64},
    "metaformer_ppaa_s12": {"img_size": 64},
    "metaformer_pppf_s12": {"img_size": 64},
    "metaformer_ppff_s12": {"img_size": 64},
    "convnext_atto": {"img_size": 64},
    "vit_tiny": {"img_size": 64},
    "decoder_tiny": {},
    "olmo_hybrid_tiny": {},
}


def test_every_system_is_here() -> None:
    assert {cards.variants()[name].name for name in SMALL} == set(cards.cards())


def inputs_of(model: Model, batch: int = 2) -> Tensor:
    if model.modality == "text":
        return torch.randint(0, model.num_classes, (batch, 11))
    return torch.randn(batch, 3, 64, 64)


@pytest.fixture(scope="module", params=SMALL)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    model = formery.create_model(request.param, **SMALL[request.param])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.02 if parameter.dim() > 1 else 0.2))
    return model


def test_forward_and_backward(model: Model) -> None:
    model.zero_grad()
    output = model.train()(inputs_of(model))
    assert output.isfinite().all()
    output.square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_maps_have_their_strides_and_widths(model: Model) -> None:
    if model.modality != "image":
        assert [f["reduction"] for f in model.feature_info] == [1] * len(model.body.blocks)
        return
    images = inputs_of(model.eval(), 1)
    maps = model.forward_intermediates(images, intermediates_only=True)
    assert [(m.shape[1], 64 // m.shape[2]) for m in maps] == [
        (f["num_chs"], f["reduction"]) for f in model.feature_info
    ]


@torch.no_grad()
def test_saved_and_loaded(model: Model, tmp_path: Path) -> None:
    model.eval().save_pretrained(tmp_path)
    again = formery.create_model(str(tmp_path)).eval()
    assert (again.name, again.spec, again.resolved) == (model.name, model.spec, model.resolved)
    inputs = inputs_of(model, 1)
    assert torch.equal(again(inputs), model(inputs))


def test_every_dialect_carries_it(model: Model) -> None:
    """Our weights under each set of published names come back to the bit, where the names reach all of them."""
    names = list(model.state_dict())
    whole = [d.name for d in dialects_of(model) if all(match(n, d.rules) for n in names)]
    assert whole
    for dialect in whole:
        theirs = model.to_published(dialect)
        again = Model(model.resolved)
        assert again.load_published(theirs) == []
        ours = again.state_dict()
        assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_any_split_of_a_stream(model: Model) -> None:
    model.eval()
    if not cards.variants()[model.name].variants[model.name]["streams"]:
        with pytest.raises(CannotRun, match="does not stream"):
            model.new_state(2, 11)
        return
    ids = inputs_of(model)
    state = model.new_state(2, 11)
    parts = [model(chunk, state=state) for chunk in ids.split([1, 6, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), rtol=1e-4, atol=1e-4)


def test_names_of_the_metaformer_studies() -> None:
    """The authors count a position table as an element of their flat network, so all that follows shifts."""
    wanted = {
        "metaformer_pppa_s12": ("network.6.pos_embed", (1, 512, 2, 2), "network.7.1.token_mixer.qkv.weight"),
        "metaformer_ppaa_s12": ("network.4.pos_embed", (1, 320, 4, 4), "network.7.1.token_mixer.proj.bias"),
        "metaformer_pppf_s12": ("network.6.0.token_mixer.fc.weight", (4, 4), "network.5.proj.bias"),
        "metaformer_ppff_s12": ("network.4.5.token_mixer.fc.weight", (16, 16), "network.6.1.token_mixer.fc.weight"),
    }
    for variant, (name, shape, another) in wanted.items():
        theirs = formery.create_model(variant, img_size=64).to_published("authors")
        assert theirs[name].shape == shape
        assert another in theirs
