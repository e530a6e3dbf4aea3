"""An op that keeps its inputs for the gradient and nothing else, and works out the rest again when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """Functions of an op's inputs (None where one is left out), which give its output and its last state."""

    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[[Sequence[Any], Tensor, Tensor, Sequence[bool]], tuple[Tensor | None, ...]]
    """(inputs, gradient of the output, of the last state, which inputs ask for theirs) -> those of the inputs."""
    differentiable: Callable[..., tuple[Tensor, Tensor]]
    """The same of plain operations: what the gradient of a gradient goes through."""


class Recomputed(torch.autograd.Function):
    """`forward` with `backward`."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        ctx.rule = rule
        return rule.forward(*inputs)

    @staticmethod
    def backward(ctx: Any, d_o: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        given, asked = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():
            return None, *ctx.rule.backward(given, d_o, d_state, asked)
        wanted = [x for x, needed in zip(given, asked, strict=True) if needed]
        found = iter(torch.autograd.grad(ctx.rule.differentiable(*given), wanted, (d_o, d_state), create_graph=True))
        return None, *(next(found) if needed else None for needed in asked)


def recomputed(rule: Rule, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    """The op on these inputs, with a gradient where one is asked for."""
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        out, last = Recomputed.apply(rule, *inputs)  # type: ignore[no-untyped-call]
        return out, last
    return rule.forward(*inputs)
