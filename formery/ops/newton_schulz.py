"""Orthogonalising matrices by a quintic Newton-Schulz iteration (the Muon optimizer's, Jordan et al. 2024).

With X the matrix over its Frobenius norm, each step is X <- a X + (b A + c A^2) X, A = X X^T. It moves every singular
value towards 1 and leaves the singular vectors as they are. The coefficients are steep at 0 and do not settle at 1:
five steps bring values from 0.01 to 1 of the norm into about 0.7 to 1.2, and smaller ones only part of the way.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .forms import transformed

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the equation above."""
STEPS = 5


def newton_schulz(x: Tensor, steps: int = STEPS, eps: float = 1e-7) -> Tensor:
    """x (..., m, n) with its singular values near 1; zeros stay zeros (`eps` is added to the norm, in squares).

    For a gradient only x is kept, and the steps are taken again: they would take fifteen times the memory.
    """
    if not (torch.is_grad_enabled() and x.requires_grad) or transformed() or torch.compiler.is_compiling():
        return iterated(x, steps, eps)
    found: Tensor = _Again.apply(x, steps, eps)  # type: ignore[no-untyped-call]
    return found


class _Again(torch.autograd.Function):
    """`iterated`, whose backward goes through it once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.options = steps, eps
        return iterated(x, steps, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if twice else x.detach().requires_grad_()
            (found,) = torch.autograd.grad(iterated(x, *ctx.options), x, gradient, create_graph=twice)
        return found, None, None


def iterated(x: Tensor, steps: int = STEPS, eps: float = 1e-7) -> Tensor:
    """`newton_schulz` of plain operations."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    X = x.mT if tall else x
    X = X.reshape(math.prod(X.shape[:-2]), *X.shape[-2:])
    X = X * torch.rsqrt(X.square().sum((-2, -1), keepdim=True) + eps * eps)
    for _ in range(steps):
        A = torch.bmm(X, X.mT)
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return (X.mT if tall else X).reshape(x.shape)


def macs(rows: int, columns: int, steps: int = STEPS) -> int:
    """Multiply-accumulates for one matrix."""
    short, long = min(rows, columns), max(rows, columns)
    return steps * short * short * (2 * long + short)
