"""The exact rewrites on every image system: outputs stay equal, and the rewritten model saves and loads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from formery import cards, create_model, rewrites
from formery.errors import CannotRewrite
from formery.model import Model
from formery.rewrites.checks import small
from tests.unit.rewrites_families import error

SIZE = 64
EXACT = ("reparameterize", "tabulate", "fold")
"""In the order in which one clears the way for the next."""

FOUND: dict[str, dict[str, int]] = {
    "convnext_atto": {"scale_into_writer": 12, "affine_into_readers": 12},
    "convnextv2_atto": {"shift_into_reader": 12, "affine_into_readers": 12},
    "crossvit_tiny": {"affine_into_readers": 36, "recentre": 2},
    "efficientformerv2_s0": {"scale_into_norm": 18, "batch_norm_into_writer": 65},
    "nextvit_small": {"batch_norm_into_writer": 33, "batch_norm_into_readers": 27},
    "poolformer_s12": {"scale_into_writer": 12},
    "poolformerv2_s12": {},
    "swinmlp_tiny_c24": {"affine_into_readers": 12},
    "t2t_vit_7": {"affine_into_readers": 14, "recentre": 1},
    "tnt_tiny": {"affine_into_readers": 48},
    "uniformer_xxs": {"batch_norm_into_writer": 2, "batch_norm_into_readers": 14, "affine_into_readers": 20},
    "unireplknet_a": {
        "reparameterize": 10,
        "scale_into_norm": 12,
        "batch_norm_into_writer": 24,
        "shift_into_reader": 12,
    },
    "vit_tiny": {"affine_into_readers": 24, "recentre": 1},
    "crossformerpp_s": {"bias_into_table": 24},
    "cvt_2_4": {},
}
"""By system, how many steps of each kind are found in its smallest variant, those of `affine` and `recentre` too."""

UNKNOWN = {"crossformerpp_s": "chain", "cvt_2_4": "between"}
"""Systems with a scheme that does not say where its norms stand, which `fold` and `drop` tell."""


def smallest() -> list[str]:
    """The smallest image variant of every system."""
    of_images = [card for card in cards.cards().values() if "image" in card.modalities]
    return sorted(
        min((v for v in card.variants if "image" in card.modalities_of(v)), key=lambda v: card.variants[v]["params"])
        for card in of_images
    )


def drawn(name: str) -> Model:
    """The variant for small images, in float64, with drawn weights and statistics."""
    with torch.device("meta"):
        spec = create_model(name, num_classes=5, img_size=SIZE).resolved
    return small.drawn(spec)


def test_the_tables_are_of_these() -> None:
    assert sorted(FOUND) == smallest()


@pytest.mark.parametrize("name", smallest())
@torch.no_grad()
def test_exact_rewrites(name: str, tmp_path: Path) -> None:
    model = drawn(name)
    images = small.images(2, SIZE)
    expected, found = model(images), Counter[str]()
    can = rewrites.available(model)
    assert can.keys() == {"drop", "fold", "reparameterize", "tabulate"}
    assert all(why is None or ("\n" not in why and len(why) > 10) for why in can.values())
    for rewrite in EXACT:
        options: dict[str, Any] = {"affine": True, "recentre": True} if rewrite == "fold" else {}
        if rewrite == "fold" and name in UNKNOWN:
            with pytest.raises(CannotRewrite, match=f"scheme '{UNKNOWN[name]}' does not say where its norms stand"):
                rewrites.apply(model, rewrite, **options)
            continue
        _, plan, _ = rewrites.apply(model, rewrite, **options)
        found.update(step.get("do", rewrite) for step in plan["steps"])
        assert error(model(images), expected) < 1e-10
    assert dict(found) == FOUND[name]
    assert {plan["kind"] for plan in model.plans} == {name for name in EXACT if can[name] is None}
    model = model.float()
    expected = model(images.float())
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path).eval()
    assert loaded.plans == model.plans
    assert torch.equal(loaded(images.float()), expected)
