"""Image models as they are deployed, against timm's compiled."""

from __future__ import annotations

import copy
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import formery
from formery.errors import CannotRewrite, CannotRun
from formery.measure import Comparison, Work, compare, count_macs
from formery.measure.inputs import nominal_shape
from formery.runtime.deploy.agreement import agreement, outputs
from formery.runtime.deploy.forms import FORMS, Runner, compiled, runner
from formery.runtime.deploy.photographs import crops, normalised
from formery.runtime.deploy.rewriting import exact
from formery.runtime.export import export_onnx
from formery.runtime.int8 import quantise

from .images import BATCHES, NAMES, images_for, means, pair
from .record import Record, asked

SERVED = ("packed", "compiled", "compiled-free", "onnx", "bfloat16-packed", "bfloat16-compiled", "int8")
"""Forms of ours; the fastest of the float32 ones is what is deployed."""
EXACT = ("packed", "compiled", "compiled-free", "onnx")

NOTES = """\
timm's model, compiled by torch.compile with frozen weights in the memory format in which it is the faster one, is the
base. formery's has been rewritten by every exact rewrite that it allows, and runs in the forms of `formery deploy`:
*packed* (eager, dense weights in oneDNN's order), *compiled* for this batch (dense layers written as convolutions) and
for any (*compiled-free*), onnxruntime in float32 and int8, and in bfloat16. *deployed* is the fastest of its float32
forms in the same rounds. All hold the same weights, drawn and never trained. Errors are those of the scores against
timm's in float32, in units of the largest; for what is approximate the remarks give the share of 64 photographs' crops
whose likeliest class stays, which for weights that were never trained is a hard test.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model and batch whose words contain `only`."""
    record = Record("deployed_timm", "Image models deployed, formery and timm", NOTES, threads)
    for name in NAMES:
        for batch in BATCHES:
            conditions = {"model": name, "batch": f"batch {batch}"}
            if asked(" ".join(conditions.values()), only):
                record.add(conditions, lambda n=name, b=batch: measured(n, b, threads, seconds, record.remarks))  # type: ignore[misc]
    record.remarks += means(record, "float32", ("deployed",))
    return record


def measured(
    name: str, batch: int, threads: int, seconds: float, remarks: list[str]
) -> tuple[Comparison, dict[str, float]]:
    """One cell, and the forms' errors."""
    torch.compiler.reset()  # programs of other cells count against the limit of this one
    theirs, ours = pair(name)
    images = images_for(ours, batch)
    macs = count_macs(ours, images).total
    with torch.no_grad(), tempfile.TemporaryDirectory() as place:
        expected = theirs(images)
        own, folder = copy.deepcopy(ours), Path(place)
        for rewrite in exact():
            with suppress(CannotRewrite):
                formery.rewrites.apply(own, rewrite)
        export_onnx(own, folder / "model.onnx")
        photographs, others = normalised(crops(128, nominal_shape(own)[1:]), own).tensor_split(2)
        quantise(folder / "model.onnx", folder / "int8.onnx", iter(others.split(8)))
        runs: dict[str, Runner] = {"timm, compiled": peer(theirs, images, threads)}
        runs |= {form: runner(form, own, folder, "contiguous", threads=threads) for form in SERVED}
        errors = {}
        for form, run in list(runs.items()):
            try:
                errors[form] = agreement(expected, run(images)).difference
            except CannotRun as error:
                remarks.append(f"{name}, batch {batch}: {form}: {error}")
                del runs[form]
        if batch == 1:
            remarks.append(f"{name}: {agreements(theirs, runs, photographs)}")
        works = {
            form: Work(partial(run, images), macs=macs, dtype=FORMS[form].dtype if form in FORMS else torch.float32)
            for form, run in runs.items()
        }
        comparison = compare(works, threads=threads, seconds=seconds, least=5)
    best = max((form for form in EXACT if form in runs), key=lambda form: comparison[form].ratio)
    return with_row(comparison, "deployed", best), errors | {"deployed": errors[best]}


def peer(theirs: nn.Module, images: Tensor, threads: int) -> Runner:
    """timm's model compiled, in its faster memory format."""
    last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    both = {
        "contiguous": partial(theirs, images),
        "last": partial(last, images.contiguous(memory_format=torch.channels_last)),
    }
    faster = min(compare(both, threads=threads, seconds=2, shares=False).rows, key=lambda row: row.timing.median).name
    memory = torch.contiguous_format if faster == "contiguous" else torch.channels_last
    program = compiled((theirs if faster == "contiguous" else last).requires_grad_(False))

    def run(given: Tensor) -> Tensor:
        with torch.no_grad():
            return program(given.contiguous(memory_format=memory))

    return run


def agreements(theirs: nn.Module, runs: dict[str, Runner], photographs: Tensor) -> str:
    """Of approximate forms with timm's float32 model, in words."""
    expected = outputs(theirs, photographs)
    found = {form: agreement(expected, outputs(runs[form], photographs)) for form in ("bfloat16-packed", "int8")}
    return ", ".join(
        f"{form} keeps the likeliest class of {seen.top1:.0%} of {seen.images} photographs, "
        f"largest change {seen.difference:.1e}"
        for form, seen in found.items()
    )


def with_row(comparison: Comparison, name: str, of: str) -> Comparison:
    """The comparison with the row `of` once more, as `name`."""
    row = replace(comparison[of], name=name)
    return replace(
        comparison, rows=[*comparison.rows, row], samples={**comparison.samples, name: comparison.samples[of]}
    )
