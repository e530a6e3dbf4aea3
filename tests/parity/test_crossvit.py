"""CrossViT beside its authors' recorded outputs and timm's live models: several tensors of tokens all the way."""

from __future__ import annotations

import tests.tvshim  # noqa: F401 # before timm

import pytest
import timm
import torch

import formery
from formery.bodies.branches import Branches
from formery.context import NOTHING
from formery.spec import Place, build
from formery.systems.vision import crossvit
from formery.weights import Dialect, to_ours
from tests import goldens
from tests.parity.agreement import WANTED, error, randomised


def test_a_multi_scale_block() -> None:
    golden, norm = "crossvit_multiscale_block", {"kind": "layer", "eps": 1e-5}
    node = crossvit.multi_scale((1, 2), (2, 3), 2.0, norm)
    body = build("body", node, (16, 24), place=Place(grid=((4, 4), (3, 3)), prefix=1))
    assert isinstance(body, Branches)
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    shapes = {name: tensor.shape for name, tensor in body.state_dict().items()}
    state, wrong = to_ours(theirs, shapes, Dialect("authors", crossvit.stage_rules("", "")))
    assert wrong == []
    assert sum(t.numel() for t in state.values()) == goldens.facts(golden)["params"]
    body.load_state_dict(state)
    tokens = (goldens.normal((1, 17, 16)), goldens.normal((1, 10, 24), 1))
    with torch.no_grad():
        features = body(tokens, NOTHING.but(grid=((4, 4), (3, 3)), prefix=1))
    outputs = {f"y{b}": x for b, x in enumerate(features.x)}
    assert goldens.worst_error(golden, outputs) < 1e-5


@pytest.mark.parametrize(
    ("name", "peer_name", "side"),
    [("crossvit_tiny", "crossvit_tiny_240", 224), ("crossvit_9_dagger", "crossvit_9_dagger_240", 240)],
)
def test_timm_both_ways(name: str, peer_name: str, side: int) -> None:
    peer = randomised(timm.create_model(peer_name, num_classes=7), matrices=0.05)
    model = formery.create_model(name).eval()
    assert model.load_published(peer.state_dict()) == []
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert error(model(images), peer(images)) < WANTED
        mine, theirs = model.forward_features(images), peer.forward_features(images)
        assert len(mine) == len(theirs) == 2
        assert all(error(a, b) < WANTED for a, b in zip(mine, theirs, strict=True))
        pooled = model.forward_head(mine, pre_logits=True)
        assert error(pooled, peer.forward_head(theirs, pre_logits=True)) < WANTED
        for normed in (False, True):
            last, maps = model.forward_intermediates(images, indices=[1, 3, 5], norm=normed)
            wanted, their_maps = peer.forward_intermediates(images, indices=[1, 3, 5], norm=normed)
            pairs = [*zip(last, wanted, strict=True), *zip(maps, their_maps, strict=True)]
            assert all(a.shape == b.shape and error(a, b) < WANTED for a, b in pairs)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
        back = timm.create_model(peer_name, num_classes=7).eval()
        back.load_state_dict(model.to_published("timm"), strict=True)
        assert error(model(images), back(images)) < WANTED
    assert list(model.feature_info.channels()) == [f["num_chs"] for f in peer.feature_info]
    assert list(model.feature_info.reduction()) == [f["reduction"] for f in peer.feature_info]
    assert (model.num_features, model.head_hidden_size) == (peer.num_features, peer.head_hidden_size)


def test_drop_path_rises_as_in_timm() -> None:
    """Over the deeper branch's blocks; a shallower one begins with it, and a fusion has the rate of its stage's end."""
    model = formery.create_model("crossvit_9", drop_path_rate=0.3)
    peer = timm.create_model("crossvit_9_240", drop_path_rate=0.3)

    def rates(blocks: list[torch.nn.Module]) -> list[float]:
        return [round(getattr(block.drop_path, "drop_prob", 0.0) or 0.0, 6) for block in blocks]

    for stage, theirs in zip(model.body.stages, peer.blocks, strict=True):
        for b in range(2):
            ours = [round(block.scheme.drop_path, 6) for block in stage.branches[b].blocks]
            assert ours == [round(getattr(block.drop_path1, "drop_prob", 0.0) or 0.0, 6) for block in theirs.blocks[b]]
            assert [round(stage.fusions[b].scheme.drop_path, 6)] == rates([theirs.fusion[b]])


def test_another_resolution() -> None:
    """Asked for 408 pixels, both tables of positions are resized, and the second branch sees 384; a checkpoint of that
    size is recognised."""
    peer = randomised(timm.create_model("crossvit_9_dagger_240", num_classes=5), matrices=0.05)
    model = formery.create_model("crossvit_9_dagger").eval()
    model.load_published(peer.state_dict(), img_size=408)
    assert [s["img_size"] for s in model.resolved["stem"]["stems"]] == [408, 384]
    assert [tuple(x.shape[1:]) for x in model.forward_features(torch.randn(1, 3, 300, 200))] == [
        (1157, 128),
        (577, 256),
    ]
    again = formery.create_model("crossvit_9_dagger").eval()
    again.load_published(model.to_published("timm"))
    assert again.resolved["stem"]["img_size"] == 408


def test_other_channels() -> None:
    from formery.published import change_channels

    model = formery.create_model("crossvit_tiny", num_classes=3).eval()
    images = torch.randn(1, 1, 240, 240)
    with torch.no_grad():
        expected = model(images.expand(-1, 3, -1, -1))
        change_channels(model, 1)
        assert error(model(images), expected) < WANTED
