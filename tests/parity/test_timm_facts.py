"""How images are prepared, and what weight decay leaves alone, as in timm where timm has the model."""

from __future__ import annotations

import pytest
import torch

import tests.tvshim  # noqa: F401 # isort: skip # before timm

import timm
from timm.models import get_pretrained_cfg

from formery import cards
from formery.model import Model
from formery.published import dialects_of
from formery.weights import match
from tests.families import families

IN_TIMM = sorted((alias, name) for alias, name in cards.aliases().items() if alias.startswith("timm/"))


@pytest.mark.parametrize(("alias", "name"), IN_TIMM)
def test_prepared_as_in_timm(alias: str, name: str) -> None:
    """By the default of timm's weights for the model, or the first of its weights that are of our size and classes."""
    told, theirs = cards.variants()[name].preprocess(name), alias.removeprefix("timm/")
    configs = [get_pretrained_cfg(n) for n in (theirs, *timm.list_models(f"{theirs}.*", include_tags=True))]
    size = (3, told["size"], told["size"])
    config = next(c for c in configs if c.input_size == size and c.num_classes == told["num_classes"])
    assert list(config.mean) == told["mean"]
    assert list(config.std) == told["std"]
    assert config.interpolation == told["interpolation"]
    assert config.crop_pct == told["crop_pct"]


@pytest.mark.parametrize("name", [n for n in families() if any(name == n for _, name in IN_TIMM)])
def test_weight_decay_as_in_timm(name: str) -> None:
    """Of vectors timm decays none, so matrices and larger tables are compared."""
    alias = next(alias for alias, canonical in IN_TIMM if canonical == name)
    with torch.device("meta"):
        ours, peer = Model(cards.spec_of(name)), timm.create_model(alias.removeprefix("timm/"))
    left_alone = peer.no_weight_decay() if hasattr(peer, "no_weight_decay") else set()
    rules = next(dialect.rules for dialect in dialects_of(ours) if dialect.name == "timm")
    found = {n: match(n, rules) for n, p in ours.named_parameters() if p.dim() > 1}
    assert all(found.values())
    expected = {n for n, one in found.items() if one and any(their in left_alone for their in one.theirs)}
    assert expected == ours.no_weight_decay() & found.keys()
