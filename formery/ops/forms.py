"""What an op with several forms asks before it chooses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

T = TypeVar("T")


def one(length: int | torch.SymInt) -> bool:
    """Whether there is a single token; an exporter's free length is not asked, which would pin it."""
    if torch.compiler.is_exporting():
        from torch.fx.experimental.symbolic_shapes import statically_known_true  # heavy, and exporters have loaded it

        return statically_known_true(length == 1)
    return length == 1


def transformed() -> bool:
    """Whether `torch.jit`, `torch.func` or forward-mode differentiation looks on: they take plain operations only."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def watched() -> bool:
    """Whether somebody compiles, traces or transforms operations, and so takes the plain ones."""
    return torch.compiler.is_compiling() or transformed()


def plain(x: Tensor) -> bool:
    """Whether work on an ordinary tensor may take any form that is fast: on the CPU, where nobody differentiates,
    watches, or stands between operations and their kernels."""
    if torch.is_grad_enabled() or not x.is_cpu or watched():
        return False
    return type(x) in (Tensor, nn.Parameter) and torch._C._len_torch_dispatch_stack() == 0


def may_overwrite(state: Tensor, *others: Tensor) -> bool:
    """Whether a state that its owner gives away may be written over: plain work, and no gradient passes or has passed
    through it."""
    if watched() or state.requires_grad:
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in others))


def without_autocast(x: Tensor, work: Callable[[], T]) -> T:
    """What `work` returns where autocast, which would round states, does not reach it."""
    if not x.is_meta and torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return work()
    return work()
