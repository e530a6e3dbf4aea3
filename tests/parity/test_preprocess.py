"""How images are prepared, as the cards say it, by timm's figures where timm has the model."""

from __future__ import annotations

import pytest

import tests.tvshim  # noqa: F401 # isort: skip # before timm

import timm
from timm.models import get_pretrained_cfg

from formery import cards

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
