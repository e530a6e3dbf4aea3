"""Claims of LMUFormer that need no training; `lmuformer_learning` has the others."""

from __future__ import annotations

import torch

from ..create import create_model
from ..model import Model
from ..ops import legendre_memory as rule
from ..parts.norms.batch import Batch
from ..runtime.listening import Listening, beginnings
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted
from .lmuformer_learning import early_answers, spikes

__all__ = ["early_answers", "figures", "recurrence", "spikes", "streaming", "window"]

THETA = 128.0


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("lmuformer", progress)


@check
def recurrence(seed: int, progress: Progress) -> Measured:
    """Memories by Fourier transform against those of the recurrence, float32, relative to the largest."""
    worst: dict[str, float] = {}
    for order in (8, 64, 256):
        tables = rule.Tables(*(table.float() for table in rule.tables(order, THETA)))
        for length in (16, 128, 1000):
            progress(f"order {order}, {length} frames")
            u = torch.relu(torch.randn(2, length, 1))
            (found, _), (wanted, _) = rule.chunked(u, tables), rule.reference(u, tables)
            worst[f"{order} x {length}"] = relative(found, wanted)
    largest = max(worst.values())
    return Measured(worst, largest < 1e-5, f"largest difference of the scale {largest:.1e}")


@check
def window(seed: int, progress: Progress) -> Measured:
    """A smooth signal's last 128 values, read from the memory of orders 4 to 32."""
    t = torch.arange(1000, dtype=torch.float64)
    u = torch.sin(2 * torch.pi * t / 80) + 0.5 * torch.cos(2 * torch.pi * t / 45)
    delays = torch.arange(128)
    errors: dict[str, float] = {}
    for order in (4, 8, 16, 32):
        m, _ = rule.legendre_memory(u.view(1, -1, 1), rule.tables(order, THETA))
        read = m[0, 256:, 0] @ rule.readout(order, delays / THETA)
        true = u[torch.arange(256, 1000)[:, None] - delays]
        errors[str(order)] = float((read - true).norm() / true.norm())
    row = [errors[str(order)] for order in (4, 8, 16)]
    passed = errors["16"] < 0.08 and row == sorted(row, reverse=True)
    said = ", ".join(f"order {order}: {100 * error:.1f} %" for order, error in errors.items())
    note = "What is left at 16 and 32 is the hold over one sample, half a sample's delay."
    return Measured(errors, passed, said, note=note)


@check
def streaming(seed: int, progress: Progress) -> Measured:
    """Answers of both versions, frame by frame, against those of one pass over the whole."""
    worst: dict[str, float] = {}
    late: dict[str, int] = {}
    spread: dict[str, float] = {}
    for name in ("lmuformer_256", "spiking_lmuformer_256"):
        progress(name)
        model = create_model(name)
        _awake(model)
        model.double().eval()
        x = torch.randn(2, 40, 128, dtype=torch.float64)
        with torch.no_grad():
            whole = beginnings(model, x)
            listening, heard = Listening(model, 2), []
            for frame, chunk in enumerate(x.split(1, dim=1)):
                heard.append(listening.hear(chunk, last=frame == 39))
                if heard[-1].shape[1] and name not in late:
                    late[name] = frame
            together = torch.cat(heard, dim=1)
            error = (together - whole).abs().max() / whole.abs().max()
            end = (whole[:, -1] - model(x)).abs().max() / whole.abs().max()
        worst[name] = float(torch.maximum(error, end))
        spread[name] = float(whole.std(1).mean() / whole.abs().max())  # answers change from frame to frame
    passed = all(error < 1e-10 for error in worst.values()) and set(late.values()) == {5}
    passed = passed and min(spread.values()) > 1e-3
    said = ", ".join(f"{name}: {error:.1e} apart, {late[name]} frames late" for name, error in worst.items())
    return Measured({"apart": worst, "late": late}, passed, said, "a delay of 5 frames")


def _awake(model: Model) -> None:
    """Weights by fan-in, and the statistics of one batch, under which neurons fire."""
    model.init_weights(None)
    norms = [module for module in model.modules() if isinstance(module, Batch)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 64, 128))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
