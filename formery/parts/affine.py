"""Affine maps moved into the layers beside them. Products are worked out in float64 and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .norms.batch import affine_map

Dense = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@torch.no_grad()
def scaled(layer: Dense, s: Tensor, t: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, in float64, of the layer that gives s y + t where `layer` gives y; s, t (outputs,)."""
    weight = layer.weight.double() * s.view(-1, *(1,) * (layer.weight.dim() - 1))
    return weight, t if layer.bias is None else layer.bias.double() * s + (0 if t is None else t)


@torch.no_grad()
def normed(layer: Dense, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Weight and bias, in float64, of `layer` and the batch norm behind it in evaluation, or of `layer` alone."""
    ones = layer.weight.new_ones(layer.weight.shape[0], dtype=torch.float64)
    weight, bias = scaled(layer, *((ones, torch.zeros_like(ones)) if norm is None else affine_map(norm)))
    assert bias is not None
    return weight, bias


@torch.no_grad()
def after(layer: Dense, s: Tensor, t: Tensor | None = None) -> None:
    """Make `layer` give s y + t where it gave y; s, t (outputs,)."""
    weight, bias = scaled(layer, s, t)
    layer.weight.copy_(weight)
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)
    elif bias is not None:
        set_bias(layer, bias)


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
