"""What it means that a model of another library and ours are the same: scores, weights and configs, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from formery.context import Context
from formery.model import Model

WANTED = 1e-5
"""Of the output's scale."""


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Equal names, shapes and values, to the last bit."""
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def randomised(model: nn.Module, matrices: float = 0.05) -> nn.Module:
    """Every number moved off its initial value, so that nothing rests on ones and zeros."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (matrices if parameter.dim() > 1 else 0.2))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return model.eval()


def saved(peer: nn.Module, folder: Path, **options: Any) -> Path:
    """The folder, with transformers' model in it."""
    peer.save_pretrained(folder, **options)  # type: ignore[operator]
    return folder


@torch.no_grad()
def scores_agree(model: Model, peer: nn.Module, *, padded: bool = True, positions: bool = False) -> Tensor:
    """Scores of the whole, of pieces, and with padding on the left, where `positions` tells the peer what positions
    the other tokens have. The ids (2, 19) that were read."""
    ids = torch.randint(3, 64, (2, 19))
    wanted = peer(ids).logits
    assert error(model(ids), wanted) < WANTED
    state = model.new_state(2, 19)
    parts = [model(chunk, state=state) for chunk in ids.split([6, 1, 1, 11], dim=1)]
    assert error(torch.cat(parts, dim=1), wanted) < WANTED
    if padded:
        padding = torch.tensor([[False] * 19, [True] * 4 + [False] * 15])
        mask = (~padding).long()
        told = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if positions else {}
        theirs = peer(ids, attention_mask=mask, **told).logits
        assert error(model(ids, ctx=Context(padding=padding))[1, 4:], theirs[1, 4:]) < WANTED
    return ids


@torch.no_grad()
def weights_go_back(model: Model, peer: nn.Module, inputs: Tensor) -> None:
    """Under the peer's names our weights load strictly, over zeros, and it gives what ours gives."""
    peer.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in peer.state_dict().items()})
    peer.load_state_dict(model.to_published("transformers"), strict=True)
    assert error(model(inputs), peer(inputs).logits) < WANTED


def config_comes_back(peer: nn.Module, folder: Path) -> None:
    """The config that was read is written so that it is read alike, here and there."""
    from formery.interop.transformers import load, save

    model = load(saved(peer, folder / "theirs"))
    save(model, folder / "ours")
    assert load(folder / "ours").resolved == model.resolved
    assert_same(type(peer).from_pretrained(folder / "ours").state_dict(), peer.state_dict())  # type: ignore[attr-defined]


def computes_there(model: Model, auto: Any, folder: Path, inputs: Tensor) -> nn.Module:
    """Saved for transformers, a model computes there what it computes here, and comes back; what it is there."""
    from formery.interop.transformers import load, save

    randomised(model)
    save(model, folder)
    peer: nn.Module = auto.from_pretrained(folder).eval()
    with torch.no_grad():
        assert error(model(inputs), peer(inputs).logits) < WANTED
        assert torch.equal(load(folder).eval()(inputs), model(inputs))
    return peer
