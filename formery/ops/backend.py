"""Which form of a recurrence runs: Triton kernels, torch's operations by chunks, or the definition.

Holds for gated linear attention, state space duality, the (gated) delta rule, the selective scan and the short
convolution before them, wherever plain work on more than one token is done, and (but for the convolution) inside
`torch.compile`; exporters, `torch.func` and single tokens have forms of their own. The switch is
`with using("torch")`, or FORMERY_RECURRENCE=torch in the environment.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import Parameter

from ..errors import CannotRun
from ..extras import need
from .switch import Switch

Mode = Literal["auto", "triton", "torch", "reference"]
"""auto: `triton` for tensors on CUDA devices where it is installed and takes them, else `torch`; reference: the
definition, token by token, for those who look for a fault (compiled graphs keep to `torch`)."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels take; others go to `torch`."""
KEYS = 256
"""The widest keys that the delta rule's kernels take: a program holds whole columns of the state."""
NUMBERS = 64
"""The most numbers of a channel's state that the selective scan's kernels take."""
TAPS = 16
"""The most taps of a short convolution that its kernels take."""
OLDEST = (8, 0)
"""The compute capability from which on there are bfloat16 and tf32 products."""

SWITCH = Switch("the recurrence backend", "FORMERY_RECURRENCE", get_args(Mode))


def mode() -> Mode:
    """What decides: what `using`, else FORMERY_RECURRENCE, asks for; without either 'auto'."""
    return SWITCH()  # type: ignore[return-value]


def using(name: Mode) -> AbstractContextManager[None]:
    """Within the block, recurrences use the form `name`; BadSpec for another, MissingExtra where triton is missing."""
    if name == "triton":
        need("triton", "gpu")
    return SWITCH.using(name)


def takes_kernels(*inputs: Tensor | None, fits: bool = True) -> bool:
    """Whether these inputs of an op, None where one is left out, go to its Triton form.

    `fits` says whether their sizes are such that kernels take them. Where 'triton' is asked for and cannot run at all,
    MissingExtra or CannotRun says why; dtypes and sizes that kernels do not take go to torch without a word.
    """
    asked, given = mode(), [x for x in inputs if x is not None]
    if asked in ("torch", "reference") or (asked == "auto" and not given[0].is_cuda):
        return False
    if asked == "triton":
        need("triton", "gpu")
        if given[0].is_cpu and not _interpreted():
            raise CannotRun(
                "Triton kernels take tensors on CUDA devices and these are on the CPU; move the model, ask for the "
                "backend 'auto', or set TRITON_INTERPRET=1 before the start to test kernels"
            )
    elif find_spec("triton") is None or torch._C._len_torch_dispatch_stack() > 0:
        return False  # whoever counts operations shall see them
    return fits and all(_ordinary(x) for x in given) and (given[0].is_cpu or _recent(given[0].device))


def _ordinary(x: Tensor) -> bool:
    """No subclass (fake, distributed...), no device without values, no dtype that kernels do not take."""
    return type(x) in (Tensor, Parameter) and (x.is_cuda or x.is_cpu) and x.dtype in DTYPES


def _interpreted() -> bool:
    from .kernels.launch import INTERPRETED

    return INTERPRETED


@cache
def _recent(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= OLDEST
