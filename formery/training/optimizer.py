"""AdamW (arXiv 1711.05101) with weight decay where it belongs, and its state by the names of the parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .layers import layers_of

AVERAGES = ("exp_avg", "exp_avg_sq")


def decay_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> list[dict[str, Any]]:
    """Groups of trainable parameters: those that decay, and vectors, scalars and `model.no_weight_decay()`.

    With `layer_decay` there are two such groups for each layer. Each has `names` and `scale` (of the learning rate)
    beside `params`. Shared parameters come once, under their first name; a parameter that any of its names exempts does
    not decay.
    """
    depths, top = ({}, 0) if layer_decay is None else layers_of(model)
    named: dict[str, nn.Parameter] = {}
    exempt_of = getattr(model, "no_weight_decay", None)
    exempt = {
        p for name, p in model.named_parameters(remove_duplicate=False) if name in (exempt_of() if exempt_of else ())
    }
    decayed: list[str] = []
    spared: list[str] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        named[name] = parameter
        (spared if parameter.dim() <= 1 or parameter in exempt else decayed).append(name)
    groups = []
    for depth in range(top + 1):
        scale = 1.0 if layer_decay is None else layer_decay ** (top - depth)
        for chosen, decay in ((decayed, weight_decay), (spared, 0.0)):
            names = [name for name in chosen if depths.get(name, 0) == depth]
            options = {"params": [named[n] for n in names], "names": names, "weight_decay": decay, "scale": scale}
            groups += [options] if names else []
    return groups


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimizer of a config; its rates are set step by step."""
    groups = decay_groups(model, config.weight_decay, config.layer_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def averages(optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Its averages as `name of the average:name of the parameter`; empty before the first step."""
    return {
        f"{average}:{name}": optimizer.state[parameter][average]
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if optimizer.state[parameter]
        for average in AVERAGES
    }


def put_averages(optimizer: torch.optim.AdamW, tensors: dict[str, Tensor], counts: dict[str, int]) -> None:
    """Take averages over, and the number of updates of each parameter (those without any have no state)."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if not counts.get(name):
                optimizer.state.pop(parameter, None)
                continue
            state: dict[str, Tensor] = {"step": torch.tensor(float(counts[name]), device=parameter.device)}
            for average in AVERAGES:
                state[average] = torch.empty_like(parameter, memory_format=torch.preserve_format)
                state[average].copy_(tensors[f"{average}:{name}"])
            optimizer.state[parameter] = state


def update_counts(optimizer: torch.optim.AdamW) -> dict[str, int]:
    """How often each parameter was updated."""
    return {
        name: int(optimizer.state[parameter]["step"])
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if optimizer.state[parameter]
    }
