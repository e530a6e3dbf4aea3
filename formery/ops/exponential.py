"""e^x as a power of 2: torch's exp takes 2 to 3 times as long for float32 (one thread of an AMD EPYC, torch 2.13)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG2_E = math.log2(math.e)
"""What an exponent of e is multiplied by to become one of 2."""


def exp(x: Tensor) -> Tensor:
    """e^x, whose relative error is that of an exponent rounded once more: 6e-8 |x| in float32.

    Compilers and exporters get the operation that they know.
    """
    return x.exp() if torch.compiler.is_compiling() else torch.exp2(x * LOG2_E)
