"""Image models against timm, with the same weights."""

from __future__ import annotations

import copy

import timm
import torch
from torch import Tensor, nn

import formery
from formery.measure import Comparison, Work, compare, count_macs
from formery.ops.linear import using

from .record import Record

NAMES = {"poolformer_s12": "poolformer_s12", "convnext_tiny": "convnext_tiny", "vit_small": "vit_small_patch16_224"}
"""formery's name -> timm's."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCHES = (1, 8)
SIZE = 224
CLOSE = 1e-4
"""Largest difference of float32 scores, in units of the largest score."""

NOTES = """\
Eager forwards of one process, 224 x 224 pixels, without gradients. All models of a cell hold the same weights (timm's
state dict, read by `load_published`) and agree on the input before anything is timed. Rounds go through all of them
in a random order; a ratio is that of the same round's times, above 1 is faster. timm runs in both memory formats, and
the better one is the base. *packed* keeps a second copy of the weights in oneDNN's order (`accelerate(pack=True)`);
*linear off* is formery with torch's own dense products; *timm, accelerated* is timm's model through
`formery.accelerate`. The share of products is that of the rate which this machine reaches in a plain matrix product
of the same dtype. Errors are those of the scores against timm's in float32, in units of the largest.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model, dtype and batch whose words contain `only`."""
    record = Record("images_timm", "Image models, formery and timm", NOTES, threads)
    for name in NAMES:
        for dtype in DTYPES:
            for batch in BATCHES:
                conditions = {"model": name, "dtype": dtype, "batch": f"batch {batch}"}
                if only in " ".join(conditions.values()):
                    record.add(conditions, lambda n=name, d=dtype, b=batch: measured(n, d, b, threads, seconds))  # type: ignore[misc]
    return record


def measured(name: str, dtype: str, batch: int, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One cell, and the models' errors."""
    theirs, ours = pair(name)
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    macs = count_macs(ours, images).total
    with torch.inference_mode():
        exact = theirs(images)
    theirs, ours, images = theirs.to(DTYPES[dtype]), ours.to(DTYPES[dtype]), images.to(DTYPES[dtype])
    calls = subjects(theirs, ours, images)
    errors = {}
    with torch.inference_mode():
        for subject, call in calls.items():
            errors[subject] = float((call().float() - exact).abs().max() / exact.abs().max())
            allowed = CLOSE if dtype == "float32" else 2 * errors["timm, contiguous"]
            if errors[subject] > allowed:
                raise AssertionError(f"{subject} differs from timm by {errors[subject]:.1e}, allowed is {allowed:.1e}")
    works = {subject: Work(call, macs=macs, dtype=DTYPES[dtype]) for subject, call in calls.items()}
    comparison = compare(works, threads=threads, seconds=seconds, least=3)
    formats = ("timm, contiguous", "timm, channels last")
    return comparison.against(min(formats, key=lambda subject: comparison[subject].timing.median)), errors


def pair(name: str) -> tuple[nn.Module, formery.Model]:
    """timm's model and ours with its weights. Vectors are drawn: fresh layer scales of 1e-6 would hide whole blocks."""
    torch.manual_seed(0)
    theirs = timm.create_model(NAMES[name]).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    ours = formery.create_model(name).eval()
    if unplaced := ours.load_published(theirs.state_dict()):
        raise AssertionError(f"{name}: timm's {unplaced} found no place")
    return theirs, ours


def subjects(theirs: nn.Module, ours: nn.Module, images: Tensor):  # type: ignore[no-untyped-def]
    """Forwards by name."""
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images_last = images.contiguous(memory_format=torch.channels_last)
    packed = formery.accelerate(copy.deepcopy(ours), pack=True)
    quick = formery.accelerate(copy.deepcopy(theirs))
    quick_packed = formery.accelerate(copy.deepcopy(theirs), pack=True)
    off = in_mode("torch", ours, images)
    return {
        "timm, contiguous": lambda: theirs(images),
        "timm, channels last": lambda: last(images_last),
        "formery": lambda: ours(images),
        "formery, packed": lambda: packed(images),
        "formery, linear off": off,
        "timm, accelerated": lambda: quick(images),
        "timm, accelerated, packed": lambda: quick_packed(images),
    }


def in_mode(mode: str, model: nn.Module, images: Tensor):  # type: ignore[no-untyped-def]
    """A forward with dense products of `mode`."""

    def call() -> Tensor:
        with using(mode):  # type: ignore[arg-type]
            return model(images)

    return call
