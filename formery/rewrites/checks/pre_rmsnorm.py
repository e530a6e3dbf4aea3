"""Pre-RMSNorm (arXiv 2305.14858): recentring is exact, in inference and in training."""

from __future__ import annotations

import copy
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ...bodies.blocks.base import WATCH
from ...context import Context
from ...model import Model
from ...parts.norms.layer import Layer
from ...parts.norms.rms import RMS
from ..fold import Fold
from ..fold_steps import Recentre
from . import small


def pairs() -> dict[str, tuple[Model, Model, Tensor]]:
    """By name: a pre-norm model with layer norms (weights and biases in them), the same one recentred, and inputs."""
    found = {}
    for name, spec, inputs in (
        ("vit", small.vit(), small.images()),
        ("vit with layer scale", small.vit(scale=0.1), small.images()),
        ("gpt", small.decoder("layer", position="learned"), small.tokens()),
    ):
        model = small.drawn(spec)
        recentred = copy.deepcopy(model)
        Fold.perform(recentred, Fold.decide(recentred, recentre=True))
        found[name] = (model, recentred, inputs)
    return found


def exactness() -> dict[str, float]:
    """Largest difference of the outputs in float64, of the largest output, and the share of equal predictions."""
    worst, same = 0.0, 1.0
    for model, recentred, inputs in pairs().values():
        assert not any(isinstance(module, Layer) for module in recentred.modules())
        old, new = small.outputs(model, inputs), small.outputs(recentred, inputs)
        worst = max(worst, ((new - old).abs().max() / old.abs().max()).item())
        same = min(same, (new.argmax(-1) == old.argmax(-1)).double().mean().item())
    return {"difference": worst, "equal_predictions": same}


def mean_of_the_stream() -> dict[str, float]:
    """Largest mean over the channels of any token of the stream, before and after any sublayer: as built, recentred."""
    largest = {"as_built": 0.0, "recentred": 0.0}
    for model, recentred, inputs in pairs().values():
        for name, one in (("as_built", model), ("recentred", recentred)):

            def watch(block: nn.Module, sublayer: str, before: Tensor, after: Tensor, name: str = name) -> None:
                for stream in (before, after):
                    largest[name] = max(largest[name], stream.mean(-1).abs().max().item())

            with torch.no_grad():
                one(inputs, ctx=Context(record={WATCH: watch}))
    return largest


def training(steps: int = 20) -> dict[str, float]:
    """Largest difference of the losses of layer norms, and of RMS norms with weights recentred in every forward, over
    steps of SGD from the same weights; and how far the loss fell."""
    model = small.drawn(small.decoder("layer", depth=2, position="learned"))
    recentred = copy.deepcopy(model)
    plan = Fold.decide(recentred, recentre=True)
    Fold.perform(recentred, plan)
    step = next(s for s in Fold.steps_of(plan) if isinstance(s, Recentre))
    free = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    optimizers = [torch.optim.SGD(parameters, lr=0.1) for parameters in (model.parameters(), free.values())]
    ids, worst, losses = small.tokens(), 0.0, []
    for _ in range(steps):
        scores = model(ids), functional_call(recentred, on_the_fly(free, step), (ids,))
        both = [F.cross_entropy(s[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) for s in scores]
        for loss, optimizer in zip(both, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        worst = max(worst, (both[0] - both[1]).abs().item())
        losses.append(both[0].item())
    return {"difference": worst, "first_loss": losses[0], "last_loss": losses[-1]}


def on_the_fly(parameters: dict[str, Tensor], step: Recentre) -> dict[str, Tensor]:
    """Parameters of a model with layer norms, as its recentred twin needs them; gradients pass through."""
    found = dict(parameters)
    for path in step.dense:
        for name, axis in ((f"{path}.weight", 0), (f"{path}.bias", 0)):
            if name in found:
                found[name] = found[name] - found[name].mean(axis, keepdim=True)
    for path in step.tables:
        found[path] = found[path] - found[path].mean(-1, keepdim=True)
    return found


def cost_of_norms(rounds: int = 30) -> dict[str, float]:
    """Milliseconds of a layer norm and an RMS norm on (8, 197, 384) tokens here, medians of interleaved rounds."""
    x = torch.randn(8, 197, 384, generator=torch.Generator().manual_seed(0))
    norms = {"layer": Layer(384), "rms": RMS(384)}
    times: dict[str, list[float]] = {name: [] for name in norms}
    with torch.no_grad():
        for _ in range(rounds):
            for name, norm in norms.items():
                start = perf_counter()
                norm(x)
                times[name].append(1e3 * (perf_counter() - start))
    found = {name: median(values) for name, values in times.items()}
    return found | {"ratio": found["rms"] / found["layer"]}
