"""TNT beside its authors' recorded outputs and timm's live models."""

from __future__ import annotations

import tests.tvshim  # noqa: F401 # before timm

import pytest
import timm
import torch
from torch.nn import functional as F

import formery
from formery.bodies.nested import Nested, Pair
from formery.context import Context
from formery.published import recognise
from formery.spec import Place, build
from formery.systems.vision import tnt
from formery.weights import Dialect, to_ours
from tests import goldens
from tests.parity.agreement import WANTED, error, randomised

CASES = [
    ("tnt_s", "tnt_s", "authors"),
    ("tnt_s_timm", "tnt_s", "timm"),
    ("tnt_s_legacy_timm", "tnt_s_legacy", "timm"),
]


@pytest.mark.parametrize(("golden", "variant", "dialect"), CASES, ids=[case[0] for case in CASES])
def test_equals_what_was_recorded(golden: str, variant: str, dialect: str) -> None:
    facts = goldens.facts(golden)
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model(variant).eval()
    assert recognise(model, theirs).name == dialect
    assert model.load_published(theirs) == []
    frozen = theirs.pop("outer_tokens").numel() if dialect == "authors" else 0
    assert sum(p.numel() for p in model.parameters()) == facts["params"] - frozen
    with torch.no_grad():
        assert goldens.worst_error(golden, {"logits": model(goldens.normal((1, 3, 224, 224)))}) < 1e-5
    back = model.to_published(dialect)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_a_block() -> None:
    golden = "tnt_block"
    node = {"kind": "nested", "depth": 1, "width": 32, "side": 2, "prefix": 1, "norm": tnt.NORM}
    body = build("body", {**node, "inner": tnt.block(2), "outer": tnt.block(4)}, 32, place=Place(grid=(3, 3)))
    assert isinstance(body, Nested)
    rules = tnt.block_rules("", "", tnt.AUTHORS, 32, 8, ".0")
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    own = {n: t for n, t in body.state_dict().items() if n.split(".")[0] in ("inner", "joins", "outer")}
    state, wrong = to_ours(theirs, {n: t.shape for n, t in own.items()}, Dialect("authors", rules))
    assert wrong == []
    assert sum(t.numel() for t in state.values()) == goldens.facts(golden)["params"]
    body.load_state_dict(state, strict=False)
    given = Pair(goldens.normal((9, 4, 8)), goldens.normal((1, 10, 32), 1))
    before = given.tokens.clone()
    with torch.no_grad():
        pair = body.step(0, given, Context(grid=(3, 3), prefix=1))
    assert torch.equal(given.tokens, before)  # which the published block writes into
    assert goldens.worst_error(golden, {"inner": pair.words, "outer": pair.tokens}) < 1e-5


@pytest.mark.parametrize("name", ["tnt_s", "tnt_s_legacy"])
def test_timm_both_ways(name: str) -> None:
    peer_name = f"{name}_patch16_224"
    peer = randomised(timm.create_model(peer_name, num_classes=7, img_size=64), matrices=0.05)
    model = formery.create_model(name).eval()
    assert model.load_published(peer.state_dict()) == []
    assert model.resolved["stem"]["img_size"] == 64
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert error(model(images), peer(images)) < WANTED
        assert error(model.forward_features(images), peer.forward_features(images)) < WANTED
        last, maps = model.forward_intermediates(images, indices=[1, 11])
        wanted, their_maps = peer.forward_intermediates(images, indices=[1, 11])
        assert error(last, wanted) < WANTED
        assert all(a.shape == b.shape and error(a, b) < WANTED for a, b in zip(maps, their_maps, strict=True))
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
        back = timm.create_model(peer_name, num_classes=7, img_size=64).eval()
        back.load_state_dict(model.to_published("timm"), strict=True)
        assert error(model(images), back(images)) < WANTED
    assert list(model.feature_info.channels()) == [f["num_chs"] for f in peer.feature_info]
    assert list(model.feature_info.reduction()) == [f["reduction"] for f in peer.feature_info]


def test_another_resolution() -> None:
    model = formery.create_model("tnt_s", num_classes=3).eval()
    peer = randomised(timm.create_model("tnt_s_patch16_224", num_classes=3))
    model.load_published(peer.state_dict(), img_size=96)
    words = model.get_parameter("body.inner_position.table")
    assert words.shape == (4, 4, 24)  # bound to no image
    assert model(torch.randn(1, 3, 96, 96)).shape == (1, 3)


def test_squeeze_and_excitation_under_the_authors_names() -> None:
    """On the outer feed-forward network's branch: t + t tanh(W2 relu(W1 LN(mean t))), as the authors' code has it."""
    model = formery.create_model("tnt_tiny", img_size=32, num_classes=3, override={"body.outer.*": tnt.excited(3)})
    randomised(model)
    theirs = model.to_published("authors")
    assert theirs["blocks.0.se_layer.fc.1.weight"].shape == (48, 192)
    again = formery.create_model("tnt_tiny", img_size=32, num_classes=3, override={"body.outer.*": tnt.excited(3)})
    assert again.eval().load_published(theirs) == []
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
        excited, x = model.get_submodule("body.outer.5.sublayers.1"), torch.randn(2, 5, 192)
        own = {n.removeprefix("blocks.5."): t for n, t in theirs.items() if n.startswith("blocks.5.")}
        t = F.linear(x, own["outer_mlp.fc1.weight"], own["outer_mlp.fc1.bias"])
        t = F.linear(F.gelu(t), own["outer_mlp.fc2.weight"], own["outer_mlp.fc2.bias"])
        mean = F.layer_norm(t.mean(1, keepdim=True), (192,), own["se_layer.fc.0.weight"], own["se_layer.fc.0.bias"])
        hidden = F.linear(mean, own["se_layer.fc.1.weight"], own["se_layer.fc.1.bias"]).relu()
        gate = F.linear(hidden, own["se_layer.fc.3.weight"], own["se_layer.fc.3.bias"]).tanh()
        assert error(excited(x), t + t * gate) < WANTED
