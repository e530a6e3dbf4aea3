"""Deployment from beginning to end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BadSpec, CannotExport, CannotRun, MissingExtra
from ...files import atomic, write_json
from ...host import processor
from ...measure import compare
from ...measure.running import using_threads
from ...model import Model
from ...saving import formery_version
from .agreement import Agreement, agreement, outputs
from .evidence import Evidence, evidence
from .forms import FORMS, INT8, ONNX, USUAL, Form, Layout, Runner, forms_of, runner
from .opening import REPORT
from .rewriting import CLOSE, rewritten

PLOT = "deploy.png"


@dataclass(frozen=True)
class DeployReport:
    """What was done, measured and chosen."""

    model: str
    out: str
    chosen: str
    """The fastest form of those that agree."""
    layout: Layout
    """Memory format of the images that torch takes faster."""
    rewrites: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    """Of each form: milliseconds, ratio to the model as it came (median and first quartile), agreement, and why it may
    not be chosen (`unfit`); or why it is not there (`why`)."""
    batch: int
    threads: int
    images: str
    """What outputs were compared on."""
    judged: int
    """How many images these were."""
    own_images: bool
    """Whether they are such as the model is for; approximate forms are chosen on no others."""
    at_least: float
    machine: str
    torch: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"format": 1, "formery": formery_version(), **asdict(self)}


def deploy(
    model: Model,
    out: str | Path,
    *,
    images: Any = None,
    forms: Sequence[str] = USUAL,
    rewrites: bool = True,
    batch: int = 1,
    threads: int | None = None,
    seconds: float = 10.0,
    at_least: float = 0.99,
    tell: Callable[[str], None] = lambda text: None,
) -> DeployReport:
    """Rewrite a trained image model exactly, time it in each of `forms`, and write what serves it best into `out`.

    Outputs are compared on `images`, a source of data (their validation part) or a folder of images without classes;
    unless given, on the data of the model's training where these can be opened, and else on crops of two photographs;
    int8 takes its ranges from others of them. A form is chosen if it is the fastest (median over interleaved rounds at
    `batch`) among those that give the likeliest class of the model as it came on a share of `at_least` of the images;
    photographs that have nothing to do with the model are no reason to choose one that changes more than rounding.
    The folder holds the rewritten model, the exported files, `deploy.json` and a plot. The model is left as it was.
    """
    if not 0 <= at_least <= 1:
        raise BadSpec(f"at_least is a share from 0 to 1, got {at_least}")
    if batch < 1:
        raise BadSpec(f"batch is at least 1, got {batch}")
    names = forms_of(forms)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadSpec(f"{out} is there already; give a new folder, so that nothing of yours is written over")
    came = _copy(model)
    found = evidence(came, images)
    sample = found.judged
    tell(f"comparing outputs on {len(sample)} {found.source}")
    given = sample[:batch] if batch <= len(sample) else sample.repeat(-(-batch // len(sample)), 1, 1, 1)[:batch]
    with using_threads(threads) as used, torch.no_grad(), atomic(out) as folder:
        expected = outputs(came, sample)
        own = _copy(came)
        done = rewritten(own, sample, seconds=seconds / 4, threads=threads, tell=tell) if rewrites else []
        folder.mkdir()
        own.save_pretrained(folder)
        layout = _layout(own, folder, given, seconds / 4, used)
        works: dict[str, Runner] = {"as it came": came}
        rows: list[dict[str, Any]] = []
        agreed: dict[str, Agreement] = {}
        for name in names:
            tell(f"form: {name} ({FORMS[name].says})")
            try:
                run = _made(name, own, folder, layout, found.others, used)
                agreed[name] = agreement(expected, outputs(run, sample))
            except (CannotExport, CannotRun, MissingExtra) as error:
                rows.append({"form": name, "why": str(error)})
                continue
            works[name] = run
        tell(f"timing {len(works)} forms in turn for {seconds:g} seconds")
        calls = {name: partial(run, given) for name, run in works.items()}
        timed = compare(calls, base="as it came", seconds=seconds, threads=threads, least=5, shares=False)
        for name in works:
            rows.append(_row(name, timed[name], agreed.get(name), batch))
        reasons = {name: unfit(FORMS[name], seen, at_least, found) for name, seen in agreed.items()}
        able = [name for name, reason in reasons.items() if reason is None]
        if not able:
            raise CannotRun(f"no form agrees on {at_least:.0%} of the images; ask for less, or look at the weights")
        chosen = min(able, key=lambda name: timed[name].timing.median)
        for row in rows:
            if reason := reasons.get(row["form"]):
                row["unfit"] = reason
        report = DeployReport(
            model=came.name, out=str(out), chosen=chosen, layout=layout, rewrites=done, rows=rows, batch=batch,
            threads=used, images=found.source, judged=len(sample), own_images=found.own, at_least=at_least,
            machine=processor(), torch=torch.__version__,
        )  # fmt: skip
        write_json(folder / REPORT, report.as_dict())
        _plot(report, folder / PLOT)
    return report


def unfit(form: Form, seen: Agreement, at_least: float, on: Evidence) -> str | None:
    """Why a form may not be chosen; None where it may.

    The likeliest classes agree; if it promises so, only rounding changed; if not, the images are the model's own,
    unless nobody asks for agreement.
    """
    if seen.top1 < at_least:
        return f"the likeliest class stays on {seen.top1:.1%} of {seen.images} images, less than {100 * at_least:g} %"
    if not form.approximate:
        return None if seen.difference <= CLOSE else f"scores change by {seen.difference:.1e}, more than rounding"
    if on.own or at_least == 0:
        return None
    return f"it changes more than rounding, and was only seen on {on.source} ({on.why_not}); --data decides"


def _copy(model: Model) -> Model:
    import copy

    return copy.deepcopy(model).eval().requires_grad_(False)


def _layout(model: Model, folder: Path, images: Tensor, seconds: float, threads: int) -> Layout:
    """The memory format of images that is faster, the plain one where they are alike."""
    layouts: tuple[Layout, ...] = ("contiguous", "channels last")
    calls = {str(layout): partial(runner("eager", model, folder, layout), images) for layout in layouts}
    found = compare(calls, seconds=seconds, threads=threads, shares=False, least=5)["channels last"]
    return "channels last" if found.ratio_lower > 1 else "contiguous"


def _made(name: str, model: Model, folder: Path, layout: Layout, others: Tensor, threads: int) -> Runner:
    """What runs the form, its file written first where it has one; int8 takes its ranges from `others`."""
    if FORMS[name].file is not None and not (folder / ONNX).exists():
        from ..export import export_onnx

        export_onnx(model, folder / ONNX)
    if FORMS[name].file == INT8:
        from ..int8 import quantise

        quantise(folder / ONNX, folder / INT8, iter(others.split(8)))
    return runner(name, model, folder, layout, threads=threads)


def _row(name: str, row: Any, found: Agreement | None, batch: int) -> dict[str, Any]:
    timing = row.timing
    own = {} if found is None else {"difference": found.difference, "top1": found.top1, "images": found.images}
    return {
        "form": name, "milliseconds": timing.median * 1e3, "images_per_second": timing.per_second(batch),
        "ratio": row.ratio, "ratio_lower": row.ratio_lower, "spread": timing.spread, "rounds": timing.runs, **own,
    }  # fmt: skip


def _plot(report: DeployReport, path: Path) -> None:
    from .plot import plot

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / PLOT
        plot(report.as_dict(), draft)
        path.write_bytes(draft.read_bytes())
