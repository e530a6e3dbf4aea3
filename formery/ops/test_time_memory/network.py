"""The networks that serve as memories: their output, and the gradient of each pair's loss as two factors.

A network of one matrix W is k W; a deeper one has GELU between its layers, may norm what they give, n (1 + gain) with n
of mean 0 and variance 1, and may add its input. A pair's gradient for a matrix is the outer product of what went into
that layer and of the loss's gradient at what came out, so that sums of gradients never have to be written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .rule import Rule, Weights

EPS = 1e-5
"""Of the norm."""


class Factors(NamedTuple):
    """Gradients of E pairs: sum_e left_e right_e^T for each matrix; those of the gain as they are."""

    left: list[Tensor]  # (B, H, E, in)
    right: list[Tensor]  # (B, H, E, out)
    gain: Tensor | None  # (B, H, E, V)


def matrices(weights: Weights, rule: Rule) -> Weights:
    """The weights without the gain."""
    return weights[:-1] if rule.norm else weights


def through(
    x: Tensor, num: int, layer: Callable[[int, Tensor], Tensor], gain: Callable[[], Tensor], rule: Rule
) -> Tensor:
    """The network of x (B, H, E, K) where `layer(i, x)` is what its i-th matrix makes of x."""
    y = x
    for i in range(num):
        y = layer(i, F.gelu(y) if i else y)
    if rule.norm:
        y = F.layer_norm(y, y.shape[-1:], eps=EPS) * (1 + gain())
    return x + y if rule.residual else y


def output(weights: Weights, x: Tensor, rule: Rule) -> Tensor:
    """The network of x (B, H, E, K) -> (B, H, E, V)."""
    layers = matrices(weights, rule)
    return through(x, len(layers), lambda i, y: y @ layers[i], lambda: weights[-1], rule)


def loss(weights: Weights, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
    """(B, H, E) loss of each pair."""
    y = output(weights, k, rule)
    return (y - v).square().sum(-1) if rule.objective == "regression" else -(y * v).sum(-1)


def factors(weights: Weights, k: Tensor, v: Tensor, rule: Rule) -> Factors:
    """The gradient of each pair's loss for the weights: k (B, H, E, K), v (B, H, E, V)."""
    layers = matrices(weights, rule)
    left, slopes, y = [k], [], k @ layers[0]
    for layer in layers[1:]:
        slopes.append(slope(y))
        left.append(F.gelu(y))
        y = left[-1] @ layer
    normed, scale = y, y
    if rule.norm:
        centred = y - y.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
        normed = centred * scale
        y = normed * (1 + weights[-1])
    y = k + y if rule.residual else y
    d = 2 * (y - v) if rule.objective == "regression" else -v
    gain = None
    if rule.norm:
        gain, d = d * normed, d * (1 + weights[-1])
        d = scale * (d - d.mean(-1, keepdim=True) - normed * (d * normed).mean(-1, keepdim=True))
    right = [d]
    for layer, by in zip(reversed(layers[1:]), reversed(slopes), strict=True):
        right.append((right[-1] @ layer.mT) * by)
    return Factors(left, right[::-1], gain)


def slope(x: Tensor) -> Tensor:
    """The derivative of GELU."""
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density
