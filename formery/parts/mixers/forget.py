"""The forget gate of HGRN (arXiv 2311.04823, section 3.2) and HGRN-2: a sigmoid above a lower bound."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def forget(x: Tensor, log_bound: Tensor | None) -> Tensor:
    """f = b + (1 - b) sigmoid(x), b the bound."""
    return x.sigmoid() if log_bound is None else log_bound.exp() - log_bound.expm1() * x.sigmoid()


def log_forget(x: Tensor, log_bound: Tensor | None) -> Tensor:
    """log f, finite wherever x and the log of the bound (below 0) are: from 1 - f where f is above a half."""
    if log_bound is None:
        return F.logsigmoid(x)
    rest = written(x, log_bound)
    far = torch.logaddexp(log_bound, (-log_bound.expm1()).log() + F.logsigmoid(x))
    return torch.where(rest < 0.5, torch.log1p(-rest.clamp(max=0.5)), far)


def written(x: Tensor, log_bound: Tensor | None) -> Tensor:
    """1 - f, to full precision where f is near 1."""
    return (-x).sigmoid() if log_bound is None else -log_bound.expm1() * (-x).sigmoid()
