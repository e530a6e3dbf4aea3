"""LLM-Drop (arXiv 2406.15786): what hardly turns the stream can go, and takes its memory along."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ...bodies.blocks.base import BaseBlock
from ...model import Model
from .. import similarity
from ..anatomy import of
from ..drop import Drop
from ..report import num_parameters
from . import small


def a_decoder() -> Model:
    """Six layers with drawn weights."""
    return small.drawn(small.decoder(depth=6))


@torch.no_grad()
def identity() -> dict[str, float]:
    """A mixer and a channel mixer that write zeros: their similarity, and the largest change when they are dropped."""
    model, ids = a_decoder(), small.tokens()
    model.body.blocks[2].mixer.out.weight.zero_()  # type: ignore[index, union-attr]
    model.body.blocks[2].mixer.out.bias.zero_()  # type: ignore[index, union-attr]
    model.body.blocks[4].channel.reduce.weight.zero_()  # type: ignore[index, union-attr]
    found = similarity.of_sublayers(model, of(model), [ids])
    similarities = [found["body.blocks.2.mixer"], found["body.blocks.4.channel"]]
    before = model(ids)
    plan = Drop.decide(model, ids, unit="joint", count=2)
    dropped = sorted(f"{step['block']}.{step['sublayers'][0]}" for step in plan["steps"])
    Drop.perform(model, plan)
    return {
        "similarity": min(similarities),
        "dropped_are_the_zeros": float(dropped == ["body.blocks.2.mixer", "body.blocks.4.channel"]),
        "change": (model(ids) - before).abs().max().item(),
    }


@torch.no_grad()
def planted(seed: int = 0) -> dict[str, list[str]]:
    """Sublayers whose writers are scaled by 0.01, and what a joint drop of as many chooses."""
    model = a_decoder()
    subs = [sub for _, _, sub in of(model).sublayers()]
    order = torch.randperm(len(subs), generator=torch.Generator().manual_seed(seed)).tolist()
    weak = [subs[i] for i in order[:4]]
    for sub in weak:
        for parameter in model.get_submodule(sub.writes[0]).parameters():
            parameter.mul_(0.01)
    plan = Drop.decide(model, small.tokens(), unit="joint", count=len(weak))
    chosen = [f"{step['block']}.{name}" for step in plan["steps"] for name in step["sublayers"]]
    return {"planted": sorted(sub.path for sub in weak), "dropped": sorted(chosen)}


def savings(count: int = 2) -> dict[str, int]:
    """Bytes of a stream's state, and parameters, before and after dropping `count` attention layers of six; and the
    parameters that those layers hold."""
    model, ids = a_decoder(), small.tokens()
    layers = len(model.body.blocks)  # type: ignore[arg-type]
    state, parameters = model.new_state(4, 24).nbytes(), num_parameters(model)
    block = model.body.blocks[0]  # type: ignore[index]
    assert isinstance(block, BaseBlock)
    one = sum(p.numel() for part in (block.get_submodule("mixer"), block.scheme.norms[0]) for p in part.parameters())
    Drop.perform(model, Drop.decide(model, ids, unit="mixer", count=count))
    return {
        "layers": layers,
        "dropped": count,
        "state_before": state,
        "state_after": model.new_state(4, 24).nbytes(),
        "parameters_before": parameters,
        "parameters_after": num_parameters(model),
        "parameters_of_the_dropped": count * one,
    }


@torch.no_grad()
def decoding() -> dict[str, float]:
    """Largest difference between a sequence at once and in chunks and single tokens, after each kind of drop."""
    ids, found = small.tokens(), {}
    for unit, count in (("mixer", 3), ("channel", 3), ("joint", 5), ("block", 2)):
        model = copy.deepcopy(a_decoder())
        Drop.perform(model, Drop.decide(model, ids, unit=unit, count=count))  # type: ignore[arg-type]
        found[unit] = (_in_pieces(model, ids) - model(ids)).abs().max().item()
    return found


def _in_pieces(model: Model, ids: Tensor) -> Tensor:
    state, pieces = model.new_state(*ids.shape), ids.split([7, 1, 1, ids.shape[1] - 9], dim=1)
    return torch.cat([model(piece, state=state) for piece in pieces], dim=1)
