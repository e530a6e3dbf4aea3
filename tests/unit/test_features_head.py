"""Maps for dense tasks, each through a norm of its own where one is asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

import formery
from formery.model import Model

HEAD = {"kind": "features", "norm": {"kind": "layer", "eps": 1e-6}}


def backbone(**options: object) -> Model:
    torch.manual_seed(0)
    return formery.create_model("convnext_atto", override={"head": HEAD | options}).eval()


@torch.no_grad()
def test_each_map_has_its_norm(tmp_path: Path) -> None:
    model = backbone()
    images = torch.randn(1, 3, 64, 64)
    assert [len(norm.weight) for norm in model.head.norms.values()] == [40, 80, 160, 320]
    for parameter in model.head.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    raw = formery.create_model("convnext_atto", features_only=True).eval()
    raw.load_state_dict({n: t for n, t in model.state_dict().items() if not n.startswith("head")})
    for number, (normed, plain) in enumerate(zip(model(images), raw(images), strict=True)):
        norm = model.head.norms[str(number)]
        wanted = F.layer_norm(plain.movedim(1, -1), norm.shape, norm.weight, norm.bias, 1e-6).movedim(-1, 1)
        torch.testing.assert_close(normed, wanted)
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path).eval()
    assert all(torch.equal(one, other) for one, other in zip(again(images), model(images), strict=True))


@torch.no_grad()
def test_detection_files() -> None:
    """Their norms have the maps' numbers in their names; of chosen maps only those are there."""
    model = backbone()
    theirs = model.to_published("authors")
    assert {"norm0.weight", "norm3.bias"} <= theirs.keys()
    other = formery.create_model("convnext_atto", override={"head": HEAD}).eval()
    assert other.load_published({n: t.clone() for n, t in theirs.items()}) == []
    images = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(one, two) for one, two in zip(other(images), model(images), strict=True))
    assert list(backbone(indices=[1, -1]).head.norms) == ["1", "3"]
