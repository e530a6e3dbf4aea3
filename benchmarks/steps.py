"""Training steps of image models against timm."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formery.measure import Comparison, Work, compare, count_macs

from .images import NAMES, images_for, means, pair
from .record import Record, asked

BATCH = 8
CLOSE = 1e-3
"""Largest difference of the gradients' norms, in units of timm's."""

NOTES = """\
One step of training in float32 with a batch of 8: forward, cross-entropy, backward, AdamW (torch's own, over all
parameters). Both models hold the same weights, and the norms of their gradients agree before anything is timed. Both
are in training mode; nothing is dropped at random. timm runs in both memory formats, and the better one is the base.
Errors are those of the gradient's norm.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model whose words contain `only`."""
    record = Record("steps_timm", "Training steps of image models, formery and timm", NOTES, threads)
    for name in NAMES:
        conditions = {"model": name, "batch": f"batch {BATCH}"}
        if asked(" ".join(conditions.values()), only):
            record.add(conditions, lambda n=name: measured(n, threads, seconds))  # type: ignore[misc]
    record.remarks += means(record, "float32", ("formery",))
    return record


def measured(name: str, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One cell, and the differences of the gradients' norms."""
    theirs, ours = pair(name)
    theirs.train()
    ours.train()
    if callable(both_heads := getattr(theirs, "set_distilled_training", None)):  # as ours do
        both_heads(True)
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images_for(ours, BATCH)
    macs = 3 * count_macs(ours, images).total
    given = {"timm, contiguous": (theirs, images), "formery": (ours, images)}
    given["timm, channels last"] = last, images.contiguous(memory_format=torch.channels_last)
    norms = {subject: gradient(model, x) for subject, (model, x) in given.items()}
    base = norms["timm, contiguous"]
    errors = {subject: abs(norm - base) / base for subject, norm in norms.items()}
    if errors["formery"] > CLOSE:
        raise AssertionError(f"the gradient's norm differs from timm's by {errors['formery']:.1e}")
    works = {subject: Work(step(model, x), macs=macs) for subject, (model, x) in given.items()}
    comparison = compare(works, threads=threads, seconds=seconds, least=3)
    formats = ("timm, contiguous", "timm, channels last")
    return comparison.against(min(formats, key=lambda subject: comparison[subject].timing.median)), errors


def loss_of(model: nn.Module, images: Tensor) -> Tensor:
    """Cross-entropy against fixed classes; a model with a second head gives their sum."""
    classes = torch.arange(len(images))
    found = model(images)
    return sum(F.cross_entropy(scores, classes) for scores in (found if isinstance(found, tuple) else (found,)))  # type: ignore[return-value]


def gradient(model: nn.Module, images: Tensor) -> float:
    """The norm of the gradient over all parameters."""
    model.zero_grad()
    loss_of(model, images).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    model.zero_grad()
    return float(norm)


def step(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """One step of training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def run() -> None:
        with torch.inference_mode(False), torch.enable_grad():
            optimizer.zero_grad()
            loss_of(model, images).backward()
            optimizer.step()

    return run
