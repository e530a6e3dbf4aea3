"""Next-ViT under published weights: recorded outputs of both dialects, a block alone, timm's own at odd sizes."""

from __future__ import annotations

import tests.tvshim  # noqa: F401 # before timm

import pytest
import timm
import torch

import formery
from formery.bodies.stack import Stack
from formery.context import NOTHING, Context
from formery.published import recognise
from formery.spec import Place, build
from formery.systems.vision import nextvit
from formery.weights import Dialect, to_ours
from tests import goldens
from tests.parity.agreement import assert_same, randomised


@pytest.mark.parametrize(
    ("golden", "dialect", "wanted"),
    [
        ("nextvit_small", "authors", 1e-5),
        # Weights that make the last map large: in float64 both libraries are 3.34e-5 from what was recorded in float32.
        ("nextvit_small_timm", "timm", 3.35e-5),
    ],
)
def test_equals_what_was_recorded(golden: str, dialect: str, wanted: float) -> None:
    facts = goldens.facts(golden)
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model("nextvit_small").eval()
    assert recognise(model, theirs).name == dialect
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    assert_same(model.to_published(dialect), theirs)
    model, images = model.double(), goldens.normal((1, 3, 128, 128)).double()
    with torch.no_grad():
        stem = model.stem(images, NOTHING)[0]
        first = model.body.stages[0](stem, Context(taps=(0,))).maps[0]
        maps = model.forward_intermediates(images, intermediates_only=True)
        outputs = {"logits": model(images), "stem": stem.movedim(-1, 1), "block0": first.movedim(-1, 1)}
    outputs |= {f"stage{i}": tokens for i, tokens in enumerate(maps)}
    assert goldens.worst_error(golden, outputs) < wanted


def test_a_transformer_block() -> None:
    """Behind a merge of its own, as the authors keep it inside the block."""
    blocks = [nextvit.transformer_block(96, 128, pool=2)]
    node = {"kind": "stack", "blocks": blocks, "dim_out": 96, "merge": "pooling"}
    stack = build("body", node, 64, place=Place(grid=(16, 16)))
    assert isinstance(stack, Stack)
    facts = goldens.facts("nextvit_ntb")
    assert sum(p.numel() for p in stack.parameters()) == facts["params"]
    assert (stack.dim, stack.grid, stack.feature_info()[0]["num_chs"]) == (128, (8, 8), 128)
    theirs = {f"block.{name}": tensor for name, tensor in goldens.state_from(facts["tensors"]).items()}
    resolved = formery.spec.resolve_part("body", node)["blocks"][0]
    rules = (*nextvit._merge("s", "block"), *nextvit._block("s.blocks.0", "block", resolved, ("conv1", "conv2")))
    shapes = {f"s.{name}": tensor.shape for name, tensor in stack.state_dict().items()}
    state, wrong = to_ours(theirs, shapes, Dialect("authors", rules))
    assert wrong == []
    stack.load_state_dict({name.removeprefix("s."): tensor for name, tensor in state.items()})
    with torch.no_grad():
        y = stack.eval()(goldens.normal((1, 64, 16, 16)).movedim(1, -1)).x.movedim(-1, 1)
    assert goldens.worst_error("nextvit_ntb", {"y": y}) < 1e-5


def test_equals_timm_at_odd_sizes() -> None:
    """Sides that pooling rounds up, as long as the tokens of stages divide into runs; both ways, in float64."""
    peer = randomised(timm.create_model("nextvit_small", num_classes=7), matrices=0.05).double()
    model = formery.create_model("nextvit_small").double().eval()
    assert model.load_published(peer.state_dict()) == []
    with torch.no_grad():
        for height, width in ((64, 64), (125, 61), (31, 250)):
            images = torch.randn(1, 3, height, width, dtype=torch.float64)
            wanted = peer(images)
            assert (model(images) - wanted).abs().max() < 1e-10 * wanted.abs().max()
            assert model.forward_features(images).shape == peer.forward_features(images).shape
    back = timm.create_model("nextvit_small", num_classes=7).double().eval()
    back.load_state_dict(model.to_published("timm"), strict=False)
    with torch.no_grad():
        assert torch.equal(back(images), wanted)


def test_a_rest_of_the_raster_is_not_dropped() -> None:
    """29 x 29 tokens make runs of 16 and one of 9, whose key is the mean of nine; timm drops them."""
    mixer = build("mixer", {"kind": "pooled_attention", "heads": 1, "stride": 4}, 32)
    x = torch.randn(1, 29, 29, 32, dtype=torch.float64)
    pooled = mixer._pooled(x)
    assert pooled.shape == (1, 53, 32)
    torch.testing.assert_close(pooled[0, -1], x.flatten(1, 2)[0, -9:].mean(0))
