"""The forget gate of HGRN (arXiv 2311.04823, section 3.2) and HGRN-2: a sigmoid above a lower bound."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

# With b the bound and s = sigmoid(x): f = b + (1 - b) s = s (1 + b exp(-x)), and s = exp(-softplus(-x)).


def forget(x: Tensor, log_bound: Tensor | None) -> Tensor:
    """f itself."""
    return x.sigmoid() if log_bound is None else log_bound.exp() - log_bound.expm1() * x.sigmoid()


def log_forget(x: Tensor, log_bound: Tensor | None) -> Tensor:
    """log f, finite wherever x and the log of the bound are."""
    return F.logsigmoid(x) if log_bound is None else F.softplus(log_bound - x) - F.softplus(-x)


def written(x: Tensor, log_bound: Tensor | None) -> Tensor:
    """1 - f, to full precision where f is near 1."""
    return (-x).sigmoid() if log_bound is None else -log_bound.expm1() * (-x).sigmoid()
