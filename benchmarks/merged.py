"""UniRepLKNet and UniFormer as they are trained and as they are deployed, beside ConvNeXt at equal MACs."""

from __future__ import annotations

import copy
from contextlib import suppress
from functools import partial

import torch

import formery
from formery.errors import CannotRewrite
from formery.measure import Comparison, Work, compare, count_macs
from formery.runtime.deploy.rewriting import exact

from .images import BATCHES, CLOSE, images_for
from .record import Record, asked

NAMES = ("unireplknet_n", "unireplknet_t", "uniformer_xs", "uniformer_small")
PEER = "convnext_tiny"

NOTES = """\
Eager forwards in float32 at the nominal size, of weights drawn and never trained. *merged* has been through every exact
rewrite: UniRepLKNet's parallel dilated branches become one large kernel, batch norms go into the convolutions and
dense layers beside them, layer scales and shifts too. Above 1 a ratio says how much faster the merged model is.
convnext_tiny, eager as it comes, is timed in the same rounds; the remarks say how many images a second each computes
and what ConvNeXt would at the same number of MACs, its own rate of MACs kept. Errors are those of the merged model's
scores, in units of the largest.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model and batch whose words contain `only`."""
    record = Record("merged", "Merged and unmerged models, beside ConvNeXt", NOTES, threads)
    for name in NAMES:
        for batch in BATCHES:
            conditions = {"model": name, "batch": f"batch {batch}"}
            if asked(" ".join(conditions.values()), only):
                record.add(conditions, lambda n=name, b=batch: measured(n, b, threads, seconds, record.remarks))  # type: ignore[misc]
    return record


def measured(
    name: str, batch: int, threads: int, seconds: float, remarks: list[str]
) -> tuple[Comparison, dict[str, float]]:
    """One cell, and what merging changes."""
    model, peer = drawn(name), drawn(PEER)
    images = images_for(model, batch)
    merged = copy.deepcopy(model)
    for rewrite in exact():
        with suppress(CannotRewrite):
            formery.rewrites.apply(merged, rewrite)
    with torch.inference_mode():
        expected = model(images)
        error = float((merged(images) - expected).abs().max() / expected.abs().max())
    if error > CLOSE:
        raise AssertionError(f"merging changes scores by {error:.1e}, allowed is {CLOSE:.1e}")
    subjects = {"as trained": model, "merged": merged, PEER: peer}
    macs = {subject: count_macs(own, images).total for subject, own in subjects.items()}
    works = {subject: Work(partial(own, images), macs=macs[subject]) for subject, own in subjects.items()}
    comparison = compare(works, threads=threads, seconds=seconds, least=5)
    seen = {subject: batch / comparison[subject].timing.median for subject in subjects}
    equal = seen[PEER] * macs[PEER] / macs["merged"]
    remarks.append(
        f"{name}, batch {batch}: {seen['merged']:.1f} images a second merged ({macs['merged'] / batch / 1e9:.2f} GMACs "
        f"each), {seen['as trained']:.1f} as trained; {PEER} {seen[PEER]:.1f} ({macs[PEER] / batch / 1e9:.2f} GMACs), "
        f"at equal MACs {equal:.1f}: {seen['merged'] / equal:.2f}x"
    )
    return comparison, {"merged": error}


def drawn(name: str) -> formery.Model:
    """A model whose vectors and batch norms are drawn: fresh layer scales of 1e-6 would hide whole blocks."""
    torch.manual_seed(0)
    model = formery.create_model(name, drop_path_rate=0.0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for path, statistics in model.named_buffers():
            if path.endswith("running_mean"):
                statistics.normal_(0.0, 0.1)
            elif path.endswith("running_var"):
                statistics.uniform_(0.5, 1.5)
    return model
