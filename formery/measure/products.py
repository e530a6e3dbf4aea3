"""Multiply-accumulates of single tensor operations, by torch's own table and what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

Kind = Literal["linear", "convolution", "attention", "product"]
"""A dense layer, a convolution, fused attention, or any other product of matrices."""


def _attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> int:
    """q k^T and the weighted sum of v, all pairs, whatever a mask hides. q (B, H, L, D), k and v (B, H', M, D)."""
    return prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _matrix_vector(matrix: Tensor, vector: Tensor) -> int:
    return matrix.numel()


def _dot(a: Tensor, b: Tensor) -> int:
    return a.numel()


def _dense(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    """x (..., in) by weight (out, in)."""
    return x.numel() * weight.shape[0]


def _packed_dense(x: Tensor, packed: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    """The same, where the packed weight comes before the plain one."""
    return x.numel() * weight.shape[0]


def _binary_dense(x: Tensor, other: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    """The same, with a tensor to be added in between."""
    return x.numel() * weight.shape[0]


def _integers(a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> int:
    return a.shape[0] * a.shape[1] * b.shape[1]


def _grouped(a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> int:
    """Rows of a (N, K), each by one of the matrices of b (G, K, M)."""
    return a.numel() * b.shape[-1]


MISSING: dict[str, dict[str, Callable[..., int]]] = {
    "aten": {
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_fused_attention_overrideable": _attention,
        "mv": _matrix_vector,
        "dot": _dot,
        "vdot": _dot,
        "_int_mm": _integers,
        "_grouped_mm": _grouped,
    },
    "mkldnn": {"_linear_pointwise": _dense},
    "mkl": {"_mkl_linear": _packed_dense},
}
"""What torch's table lacks, by namespace; operators that this torch build does not have are left out."""


def _own() -> dict[Any, Callable[..., int]]:
    found = {}
    for space, entries in MISSING.items():
        for name, formula in entries.items():
            packet = getattr(getattr(torch.ops, space), name, None)
            if packet is not None and packet not in flop_registry:
                found[packet] = formula
    return found


OWN = _own()


def macs_of(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> tuple[Kind, int] | None:
    """The kind and the multiply-accumulates of one call of an operator; None where it is no product."""
    packet = _out_of_place(operator.overloadpacket)
    if packet in OWN:
        formula = _binary_dense if str(operator).endswith("_linear_pointwise.binary") else OWN[packet]
        return _kind(packet), formula(*args, **kwargs)
    if packet is aten.addmv:
        return "linear", args[1].numel()
    if packet in flop_registry:
        return _kind(packet), flop_registry[packet](*args, **kwargs, out_val=out) // 2
    return None


def is_product(operator: Any) -> bool:
    """Whether `macs_of` knows the operator."""
    packet = _out_of_place(operator.overloadpacket)
    return packet in OWN or packet in flop_registry or packet is aten.addmv


def _out_of_place(packet: Any) -> Any:
    """baddbmm for baddbmm_: the table knows the former only."""
    name = packet.__name__
    return getattr(aten, name.rstrip("_"), packet) if name.endswith("_") else packet


def _kind(packet: Any) -> Kind:
    name = str(packet)
    if "attention" in name:
        return "attention"
    if "conv" in name:
        return "convolution"
    return "linear" if "linear" in name else "product"
