"""Affine maps moved into the layers beside them. Products are worked out in float64 and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Dense = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@torch.no_grad()
def after(layer: Dense, s: Tensor, t: Tensor | None = None) -> None:
    """Make `layer` give s y + t where it gave y; s, t (outputs,)."""
    weight = layer.weight
    weight.copy_(weight.double() * s.view(-1, *(1,) * (weight.dim() - 1)))
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() * s + (0 if t is None else t))
    elif t is not None:
        set_bias(layer, t)


@torch.no_grad()
def before(layer: Dense, s: Tensor, t: Tensor | None = None) -> None:
    """Make `layer` read x as it read s x + t; s, t (inputs,). With t, nothing may be padded by zeros."""
    weight = layer.weight
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    kernel = (1,) * (weight.dim() - 2)
    wide = weight.double().unflatten(0, (groups, -1))  # (groups, outputs a group, inputs a group, *kernel)
    if t is not None:
        read = (wide * t.view(groups, 1, -1, *kernel)).flatten(2).sum(-1).flatten()
        if layer.bias is None:
            set_bias(layer, read)
        else:
            layer.bias.copy_(layer.bias.double() + read)
    weight.copy_((wide * s.view(groups, 1, -1, *kernel)).flatten(0, 1))


@torch.no_grad()
def recentre(layer: Dense) -> None:
    """Make the mean over `layer`'s outputs zero, whatever it reads (arXiv 2305.14858, section 3.2)."""
    wide = layer.weight.double()
    layer.weight.copy_(wide - wide.mean(0))
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() - layer.bias.double().mean())


@torch.no_grad()
def recentre_table(table: Tensor) -> None:
    """Make the mean over the last axis of `table` zero."""
    wide = table.double()
    table.copy_(wide - wide.mean(-1, keepdim=True))


@torch.no_grad()
def rescale_norm(norm: nn.Module, s: Tensor) -> None:
    """Make a norm with a weight (and bias) give s y where it gave y; s (C,)."""
    for tensor in (norm.weight, norm.bias if hasattr(norm, "bias") else None):
        if isinstance(tensor, nn.Parameter):
            tensor.copy_(tensor.double() * s.double())


def set_bias(layer: Dense, value: Tensor) -> None:
    """Give a layer without bias one."""
    weight = layer.weight
    layer.bias = nn.Parameter(value.to(device=weight.device, dtype=weight.dtype), requires_grad=weight.requires_grad)
