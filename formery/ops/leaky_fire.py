"""Leaky integrate and fire: neurons whose time is the sequence's own (LMUFormer, arXiv 2402.04882, section 3).

v_t = w_{t-1} + (x_t - w_{t-1}) / tau; the neuron fires, s_t = 1, where v_t >= threshold, and then starts again from 0:
w_t = v_t (1 - s_t). A step has no slope to learn by: backward it counts as sigmoid(4 (v - threshold)), a surrogate
gradient, and the reset as fixed.

Shapes: x (B, L, C), potentials w (B, C), None for zeros. Every form returns the spikes (B, L, C) in x's dtype and the
potentials after each token (B, L, C), float32 at least, and changes none of its inputs. What a neuron does depends on
whether it fired before, so that all forms go token by token; they are short passes over (B, C).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from .profiled import SCAN, profiled

SHARPNESS = 4.0
"""Of the surrogate's sigmoid."""


class _Step(torch.autograd.Function):
    """1 where v >= 0, with the surrogate's slope."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return gradient * slope(v)


def slope(v: Tensor) -> Tensor:
    """What a step at 0 counts as having for a slope at v."""
    s = torch.sigmoid(SHARPNESS * v)
    return SHARPNESS * s * (1 - s)


def reference(
    x: Tensor, potential: Tensor | None = None, threshold: float = 1.0, tau: float = 2.0
) -> tuple[Tensor, Tensor]:
    """One token after another, differentiated as it stands: the definition."""
    w = _start(x, potential)
    spikes, potentials = [x[:, :0]], [w[:, None][:, :0]]
    for t in range(x.shape[1]):
        v = w + (x[:, t].to(w.dtype) - w) / tau
        s = _Step.apply(v - threshold)  # type: ignore[no-untyped-call]
        w = v * (1 - s.detach())
        spikes.append(s[:, None].to(x.dtype))
        potentials.append(w[:, None])
    return torch.cat(spikes, dim=1), torch.cat(potentials, dim=1)


@profiled(SCAN)
def leaky_fire(
    x: Tensor, potential: Tensor | None = None, threshold: float = 1.0, tau: float = 2.0
) -> tuple[Tensor, Tensor]:
    """The fastest form: one opaque operator whatever the length, and a `scan` for exporters."""
    if torch.compiler.is_exporting():
        return exported(x, potential, threshold, tau)
    fires, rests, _ = fired(x, _start(x, potential), threshold, tau)
    return fires, rests


@torch.library.custom_op("formery::leaky_fire", mutates_args=())
def fired(x: Tensor, w: Tensor, threshold: float, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, potentials after the resets and before them."""
    before = []
    inputs = x.to(w.dtype)
    for t in range(x.shape[1]):
        v = w + (inputs[:, t] - w) / tau
        before.append(v)
        w = v.masked_fill(v >= threshold, 0)
    v = torch.stack(before, dim=1) if before else inputs.clone()
    spikes = v >= threshold
    return spikes.to(x.dtype, copy=True), v.masked_fill(spikes, 0), v


@fired.register_fake
def _(x: Tensor, w: Tensor, threshold: float, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    plain = torch.empty_like(x, memory_format=torch.contiguous_format)
    return plain, torch.empty_like(plain, dtype=w.dtype), torch.empty_like(plain, dtype=w.dtype)


@torch.library.custom_op("formery::leaky_fire_backward", mutates_args=())
def fired_backward(
    v: Tensor, of_spikes: Tensor, of_rests: Tensor, threshold: float, tau: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the inputs (B, L, C) and of the first potentials (B, C), in the potentials' dtype."""
    stays = (v < threshold).to(v.dtype)
    own = of_spikes.to(v.dtype) * slope(v - threshold) + of_rests * stays
    kept = (1 - 1 / tau) * stays
    g = v.new_zeros(v.shape[0], v.shape[2])
    found: list[Tensor] = []
    for t in range(v.shape[1] - 1, -1, -1):  # g comes in as the gradient of the next token's potential
        g = own[:, t] + (kept[:, t] * g if found else 0)
        found.append(g)
    whole = torch.stack(found[::-1], dim=1) if found else v.clone()
    return whole / tau, g * (1 - 1 / tau)


@fired_backward.register_fake
def _(v: Tensor, of_spikes: Tensor, of_rests: Tensor, threshold: float, tau: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v, memory_format=torch.contiguous_format), v.new_empty(v.shape[0], v.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, ctx.threshold, ctx.tau = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(output[2])


def _gradient(ctx: Any, of_spikes: Tensor, of_rests: Tensor, _: Any) -> tuple[Tensor, Tensor, None, None]:
    (v,) = ctx.saved_tensors
    of_x, of_w = fired_backward(v, of_spikes.contiguous(), of_rests.contiguous(), ctx.threshold, ctx.tau)
    return of_x.to(ctx.dtype), of_w, None, None


fired.register_autograd(_gradient, setup_context=_keep)


def exported(
    x: Tensor, potential: Tensor | None = None, threshold: float = 1.0, tau: float = 2.0
) -> tuple[Tensor, Tensor]:
    """`reference` as a `scan` of plain operations: no gradients, a free length of at least 1."""
    first = _start(x, potential)

    def body(w: Tensor, x_t: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        v = w + (x_t - w) / tau
        fires = v >= threshold
        rest = torch.where(fires, 0.0, v)
        return rest, (fires.to(v.dtype), rest.clone())

    _, (spikes, potentials) = scan(body, first, x.to(first.dtype).transpose(0, 1).contiguous())
    return spikes.transpose(0, 1).to(x.dtype), potentials.transpose(0, 1)


def _start(x: Tensor, potential: Tensor | None) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_zeros(x.shape[0], x.shape[2], dtype=dtype) if potential is None else potential.to(dtype)
