"""Image models against timm, with the same weights."""

from __future__ import annotations

import copy
import math

import timm
import torch
from torch import Tensor, nn

import formery
from formery.measure import Comparison, Work, compare, count_macs

from .record import Record, asked

NAMES = {
    "poolformer_s12": "poolformer_s12",
    "convnext_tiny": "convnext_tiny",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "efficientformer_l1": "efficientformer_l1",
    "crossvit_15": "crossvit_15_240",
    "tnt_s": "tnt_s_patch16_224",
    "nextvit_small": "nextvit_small",
    "vit_small": "vit_small_patch16_224",
}
"""formery's name -> timm's."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCHES = (1, 8)
CLOSE = 1e-4
"""Largest difference of float32 scores, in units of the largest score."""

NOTES = """\
Eager forwards of one process at the nominal size (224 x 224 pixels, CrossViT 240 x 240), without gradients. All
models of a cell hold the same weights (timm's state dict, read by `load_published`) and agree on the input before
anything is timed. Rounds go through all of them in a random order; a ratio is that of the same round's times, above 1
is faster. timm runs in both memory formats, and the better one is the base. *packed* keeps a second copy of the
weights in oneDNN's order (`accelerate(pack=True)`). The share of products is that of the rate which this machine
reaches in a plain matrix product of the same dtype, by the faster of its libraries. Errors are those of the scores
against timm's in float32, in units of the largest.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model, dtype and batch whose words contain `only`."""
    record = Record("images_timm", "Image models, formery and timm", NOTES, threads)
    for name in NAMES:
        for dtype in DTYPES:
            for batch in BATCHES:
                conditions = {"model": name, "dtype": dtype, "batch": f"batch {batch}"}
                if asked(" ".join(conditions.values()), only):
                    record.add(conditions, lambda n=name, d=dtype, b=batch: measured(n, d, b, threads, seconds))  # type: ignore[misc]
    for dtype in DTYPES:
        record.remarks += means(record, dtype, ("formery", "formery, packed"))
    return record


def means(record: Record, dtype: str, rows: tuple[str, ...]) -> list[str]:
    """Geometric means over models and batches of a dtype's cells, of first quartiles."""
    cells = [cell.comparison for cell in record.cells if cell.conditions.get("dtype", dtype) == dtype]
    told = []
    for row in rows:
        lower = [cell[row].ratio_lower for cell in cells if row in cell.samples]
        if lower:
            told.append(
                f"{row}, {dtype}: first quartiles of ratios {min(lower):.2f} to {max(lower):.2f}, geometric mean "
                f"{math.exp(sum(map(math.log, lower)) / len(lower)):.2f} over {len(lower)} cells"
            )
    return told


def measured(name: str, dtype: str, batch: int, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One cell, and the models' errors."""
    theirs, ours = pair(name)
    images = images_for(ours, batch)
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


def images_for(model: formery.Model, batch: int) -> Tensor:
    """Normal images of the model's nominal size."""
    return torch.randn(batch, *model.default_cfg["input_size"], generator=torch.Generator().manual_seed(0))


def pair(name: str) -> tuple[nn.Module, formery.Model]:
    """timm's model and ours with its weights. Vectors are drawn: fresh layer scales of 1e-6 would hide whole blocks."""
    torch.manual_seed(0)
    theirs = timm.create_model(NAMES[name], drop_path_rate=0.0).eval()
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
    return {
        "timm, contiguous": lambda: theirs(images),
        "timm, channels last": lambda: last(images_last),
        "formery": lambda: ours(images),
        "formery, packed": lambda: packed(images),
    }
