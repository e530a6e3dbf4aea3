"""Positive random features of the exponential kernel (Performer, arXiv 2009.14794, equation 5).

phi(x) = exp(W x - |x|^2 / 2) / sqrt(m), with m rows W drawn from a standard normal distribution: phi(q) . phi(k)
is exp(q . k) on average. All of it in float32 at least, inside autocast too: the exponent has no bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .forms import without_autocast


def positive_features(
    x: Tensor, draws: Tensor, *, within: Sequence[int] = (), padding: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """phi(x) of x (..., d) with draws (m, d), (..., m), divided by exp of what comes second.

    That is 0, or with `within`, axes, the largest exponent over them, so that none overflows: attention's normaliser
    takes such a factor out again where it is one for all keys that a query meets, or one for each query. `padding`
    (broadcast against x, its last axis of 1) marks vectors whose features are zeros.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, draws.dtype), torch.float32)

    def work() -> tuple[Tensor, Tensor]:
        wide = x.to(dtype)
        exponents = wide @ draws.to(dtype).mT - wide.square().sum(-1, keepdim=True) / 2
        if padding is not None:
            exponents = exponents.masked_fill(padding, -torch.inf)
        largest = exponents.new_zeros(())
        if within:
            largest = exponents.detach().amax(tuple(within), keepdim=True)
            largest = largest.masked_fill(largest == -torch.inf, 0.0)
            exponents = exponents - largest
        return exponents.exp() * draws.shape[0] ** -0.5, largest

    return without_autocast(x, work)


def orthogonal_rows(count: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """(count, dim) unit vectors, orthogonal within each `dim` of them (section 2.4 there), float32 on the CPU."""
    blocks = -(-count // dim)
    square = torch.randn(blocks, dim, dim, generator=generator, dtype=torch.float32, device="cpu")
    q, r = torch.linalg.qr(square)
    signs = r.diagonal(dim1=-2, dim2=-1).sign()  # so that every rotation is as likely
    return (q * signs[:, None]).mT.flatten(0, 1)[:count]


def gaussian_rows(count: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """(count, dim) rows that are orthogonal as above and each, taken alone, standard normal."""
    lengths = torch.randn(count, dim, generator=generator, dtype=torch.float32, device="cpu").norm(dim=-1, keepdim=True)
    return orthogonal_rows(count, dim, generator) * lengths
