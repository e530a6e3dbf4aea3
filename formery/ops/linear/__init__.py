"""Dense layers, by the fastest product this machine has.

`linear` computes what `F.linear` computes, to rounding. On CPUs for which torch's own fp32 product takes a slow path,
oneDNN's is up to twice as fast; which one wins for which kind of product is measured once a machine (`choice`). The off
switch is `with using("torch")`, or FORMERY_LINEAR=torch in the environment.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from . import int8 as int8_rows
from .choice import SMALL, SMALL_ROW, Mode, choose, chosen, impose, imposed, using
from .int8 import Int8Weight
from .products import ACTIVATIONS, Activation, PackedWeight, available, onednn, plain

__all__ = [
    "Activation",
    "Int8Weight",
    "Mode",
    "PackedWeight",
    "chosen",
    "impose",
    "imposed",
    "linear",
    "reference",
    "using",
]


def reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation | None = None) -> Tensor:
    """The definition: activation(x (..., in) weight (out, in)^T + bias (out,))."""
    y = x @ weight.mT
    y = y if bias is None else y + bias
    return y if activation is None else ACTIVATIONS[activation](y)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation | None = None,
    packed: PackedWeight | None = None,
    int8: Int8Weight | None = None,
) -> Tensor:
    """activation(x (..., in) weight (out, in)^T + bias (out,)) by the fastest product.

    `packed` keeps a copy of the weight in oneDNN's order, used where no gradient is asked for and it is faster. `int8`
    keeps one in whole numbers, used likewise for a few rows at most: its values differ.
    """
    if torch.compiler.is_compiling() or not _applies(x, weight, bias):
        return plain(x, weight, bias, activation)
    outer, inner = weight.shape
    choice = choose(x.numel() // inner, inner, outer, x.dtype)
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        if not choice.onednn:
            return plain(x, weight, bias, activation)
        y: Tensor = Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return y if activation is None else ACTIVATIONS[activation](y)
    if int8 is not None and int8_rows.applies(x.numel() // inner, weight) and (numbers := int8.of(weight)) is not None:
        return int8_rows.product(x, numbers, bias, activation)
    laid_out = packed.of(weight) if packed is not None and choice.packed else None
    if laid_out is None and not (choice.onednn or (choice.fused and activation is not None)):
        return plain(x, weight, bias, activation)
    y = onednn(_rows(x), weight if laid_out is None else laid_out, bias, activation)
    return y.view(*x.shape[:-1], outer)


def _rows(x: Tensor) -> Tensor:
    """x (..., in) as a matrix that oneDNN reads as it is."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if _matrix(flat) else flat.contiguous()


def _matrix(x: Tensor) -> bool:
    """Whether x, or its transpose, is rows of neighbouring elements that do not overlap."""
    (rows, columns), (down, along) = x.shape, x.stride()
    return (along == 1 and down >= columns) or (down == 1 and along >= rows)


def _applies(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether there is a choice: ordinary CPU matrices of one dtype, large enough, and nobody who watches operations.

    Whoever counts, traces, transforms or casts operations knows `F.linear` and shall see it.
    """
    if torch._C._get_tracing_state() is not None or not _ordinary(x):
        return False
    numbers, alone = x.numel(), x.shape[-1]
    if numbers * weight.shape[0] < (SMALL_ROW if numbers == alone else SMALL):  # also without rows or columns
        return False
    dtype = x.dtype
    return (
        (dtype is torch.float32 or dtype is torch.bfloat16)
        and dtype is weight.dtype
        and _ordinary(weight)
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and _matrix(weight)
        and (bias is None or (_ordinary(bias) and bias.dtype is dtype and bias.shape == weight.shape[:1]))
        and available()
        and not _watched()
    )


def _ordinary(tensor: Tensor) -> bool:
    """No subclass (quantised, distributed, fake, functional...), no other device, no other layout."""
    kind = type(tensor)
    return (kind is Tensor or kind is Parameter) and tensor.is_cpu and tensor.layout is torch.strided


def _watched() -> bool:
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    )


class Linear(torch.autograd.Function):
    """oneDNN's product with its gradients, which are products too and chosen likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn(_rows(x), weight, bias).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, flat = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        of_x, of_weight, of_bias = ctx.needs_input_grad
        # linear() itself, whose gradients are right to any order; its products take the transposed views as they are.
        d_x = linear(rows, weight.mT).view_as(x) if of_x else None
        if of_weight and rows.shape[0] >= MANY:
            return d_x, *_summed_over_many(rows, flat, weight, of_bias)
        return d_x, _summed(rows, flat) if of_weight else None, rows.sum(0) if of_bias else None


def _summed(rows: Tensor, flat: Tensor) -> Tensor:
    """rows (N, out)^T flat (N, in), by the product whose result is the taller one: 1,576 x 1,536 by 1,576 x 384 takes
    12.0 ms as it stands and 9.9 the other way about (two threads of an AMD EPYC, torch 2.13)."""
    return linear(flat.mT, rows.mT).mT if rows.shape[1] > flat.shape[1] else linear(rows.mT, flat.mT)


MANY = 4096
"""Rows from which on the weight's gradient is oneDNN's 1x1 convolution's. Both its factors are much longer than wide:
25,088 x 64 by 25,088 x 256 takes 5.9 ms there, the bias' sum included, 9.1 as oneDNN's matrix product, 7.0 as MKL's
(two threads of an AMD EPYC, torch 2.13)."""


def _summed_over_many(rows: Tensor, flat: Tensor, weight: Tensor, of_bias: bool) -> tuple[Tensor, Tensor | None]:
    """rows (N, out)^T flat (N, in), and the sum of rows: gradients of a 1x1 convolution over a map of 1 x N places."""
    gradients, inputs = (t[None, None].movedim(-1, 1) for t in (rows, flat))  # views: channels last in memory
    _, d_weight, d_bias = torch.ops.aten.convolution_backward(
        gradients, inputs, weight[..., None, None], [weight.shape[0]], [1, 1], [0, 0], [1, 1], False, [0, 0], 1,
        [False, True, of_bias],
    )  # fmt: skip
    return d_weight.view_as(weight), d_bias if of_bias else None
