"""Every set of published names carries a model's weights there and back; MetaFormer's studies learn, whatever mixes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import formery
from formery import cards
from formery.model import Model
from formery.published import dialects_of, under_names
from formery.weights import match

STUDIES = sorted(name for name in cards.variants() if name.startswith("metaformer_"))
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"img_size": 64} for name in ("poolformer_s12", "convnext_atto", "vit_tiny", *STUDIES)},
    **{
        name: {"img_size": 64}
        for name in (
            "crossvit_tiny",
            "tnt_tiny",
            "uniformer_small",
            "efficientformer_l1",
            "efficientformerv2_s0",
            "swinv2_tiny_w8",
            "crossformerpp_s",
            "convnextv2_atto",
            "unireplknet_a",
            "caformer_s18",
            "poolformerv2_s12",
            "nextvit_small",
            "deit_tiny",
            "t2t_vit_7",
        )
    },
    "cct_2_3x2": {},
    "decoder_tiny": {},
    "mamba_tiny": {},
    "mamba2_hybrid_tiny": {},
    "mamba2_tiny": {},
    "olmo_hybrid_tiny": {},
    "qwen3_next_tiny": {},
    **{name: {} for name in ("atlas_tiny", "gtrxl_gru", "hla_tiny_gla_3_1", "lmuformer_256", "tcnca_tiny")},
}


@cache
def moved(name: str) -> Model:
    """A variant none of whose numbers is an initial one."""
    torch.manual_seed(0)
    model = formery.create_model(name, **SMALL[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.02 if parameter.dim() > 1 else 0.2))
    return model


def test_every_system_is_here() -> None:
    assert {cards.variants()[name].name for name in SMALL} == set(cards.cards())


@pytest.mark.parametrize("name", SMALL)
def test_every_dialect_carries_it(name: str) -> None:
    """To the bit, for the dialects whose names reach all of the model; there is one at least.

    What batch norms count in published files is nobody's.
    """
    model = moved(name)
    names = list(model.state_dict())
    whole = [d.name for d in dialects_of(model) if all(match(n, d.rules) for n in names)]
    assert whole
    for dialect in whole:
        with torch.device("meta"):
            again = Model(model.resolved)
        theirs = under_names(model, dialect) | {"norm.num_batches_tracked": torch.tensor(3)}
        assert again.load_published(theirs) == []
        ours = again.state_dict()
        assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", STUDIES)
def test_studies_learn(name: str) -> None:
    model = moved(name).train()
    output = model(torch.randn(2, 3, 64, 64))
    assert output.isfinite().all()
    output.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_names_of_the_metaformer_studies() -> None:
    """The authors count a position table as an element of their flat network, so all that follows shifts."""
    wanted = {
        "metaformer_pppa_s12": ("network.6.pos_embed", (1, 512, 2, 2), "network.7.1.token_mixer.qkv.weight"),
        "metaformer_ppaa_s12": ("network.4.pos_embed", (1, 320, 4, 4), "network.7.1.token_mixer.proj.bias"),
        "metaformer_pppf_s12": ("network.6.0.token_mixer.fc.weight", (4, 4), "network.5.proj.bias"),
        "metaformer_ppff_s12": ("network.4.5.token_mixer.fc.weight", (16, 16), "network.6.1.token_mixer.fc.weight"),
    }
    for variant, (name, shape, another) in wanted.items():
        theirs = moved(variant).to_published("authors")
        assert theirs[name].shape == shape
        assert another in theirs
