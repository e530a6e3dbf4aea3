"""Claims of UniFormer (arXiv 2201.09450, 2201.04676)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..spec import Place, build
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted

__all__ = ["figures", "local_affinity"]


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    why = (
        "The authors' tool counted norms as well, which rounds B up to 8.3G. Their 100M of UniFormer-L hold the "
        "auxiliary head of token labelling; their 12.6G are less than the dense layers of its third and fourth stage."
    )
    return counted("uniformer", progress, why)


@check
def local_affinity(seed: int, progress: Progress) -> Measured:
    """The local aggregator against a sum over offsets of affinity times value, for maps and videos."""
    worst = 0.0
    for grid in ((9, 7), (4, 6, 5)):
        mixer: Any = build(
            "mixer", {"kind": "separable_conv", "ratio": 1.0, "size": 5}, 16, place=Place(grid=grid)
        ).double()
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
            x = torch.randn(2, *grid, 16, dtype=torch.float64)
            worst = max(worst, relative(mixer(x), by_offsets(mixer, x)))
    said = f"largest difference {worst:.1e} of the output's scale, on maps and videos"
    return Measured({"relative": worst}, worst <= 1e-5, said)


def by_offsets(mixer: Any, x: Tensor) -> Tensor:
    """The aggregator with its affinity written out: for each token, over all offsets o, a(o) v(token + o).

    v (B, *grid, C) are the values of all tokens, a (C,) depends on the offset alone; beyond the border v is zero.
    """
    kernel, bias = mixer.conv.weight.squeeze(1), mixer.conv.bias
    reach = kernel.shape[-1] // 2
    values = F.pad(F.linear(x, mixer.expand.weight, mixer.expand.bias), (0, 0, *(reach,) * (2 * (x.dim() - 2))))
    total = torch.zeros_like(x) + bias
    for offset in torch.cartesian_prod(*(torch.arange(size) for size in kernel.shape[1:])).tolist():
        place = tuple(slice(o, o + n) for o, n in zip(offset, x.shape[1:-1], strict=True))
        total = total + kernel[(slice(None), *offset)] * values[(slice(None), *place)]
    return F.linear(total, mixer.reduce.weight, mixer.reduce.bias)
