"""Pictures of a training: how images are augmented, how it went, and what the model takes images for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.sheet import INK, Cell, evenly, judged, sheet
from ..files import atomic
from ..tasks.task import SHARE, Task, judging

if TYPE_CHECKING:
    from PIL.Image import Image

    from .loop import TrainResult

FOLDER = "pictures"
AUGMENTED, CURVES, PREDICTIONS = "augmented.png", "curves.png", "predictions.png"
MOST = 36
"""Images in a sheet of predictions."""


def before(data: Any, out: Path) -> None:
    """What can be seen before a training: augmented images, where there are images."""
    if getattr(data, "modality", None) == "image":
        augmented(data, out / FOLDER / AUGMENTED)


def after(model: torch.nn.Module, data: Any, task: Task, result: TrainResult, out: Path) -> None:
    """What can be seen after it: curves, and for classifiers of images their predictions on the validation part."""
    curves(result, task, out / FOLDER / CURVES)
    if task.kind == "classify":
        predictions(model, data, out / FOLDER / PREDICTIONS)


def augmented(data: Any, path: Path, *, images: int = 4, times: int = 8) -> None:
    """A row for each of the first training images: as it is, then as steps of the training would show it."""
    items = data.train_items(0, images * data.augmentation.repeats)[:: data.augmentation.repeats]
    names = data.classes
    plain, labels = data.batch_of(items)
    cells: list[Cell] = []
    shown = [_pixels(data, plain)]
    targets: list[Tensor] = []
    for step in range(times):
        batch, wanted = data.shown(items, step)
        shown.append(_pixels(data, batch))
        targets.append(wanted)
    for row in range(len(items)):
        cells.append((shown[0][row], names[int(labels[row])], INK))
        for batch, wanted in zip(shown[1:], targets, strict=True):
            cells.append((batch[row], _share(wanted[row], names), INK))
    _write(sheet(cells, times + 1, f"{data.name}: each row an image as it is, then as training sees it"), path)


def _share(target: Tensor, names: Sequence[str]) -> str:
    """The classes of a mixed image in percent; nothing for one that is not mixed."""
    if target.dim() == 0:
        return ""
    values, places = target.topk(min(2, len(names)))
    said = [f"{100 * v:.0f}% {names[p]}" for v, p in zip(values.tolist(), places.tolist(), strict=True) if v > 0.005]
    return " ".join(said) if len(said) > 1 else ""


def predictions(model: torch.nn.Module, data: Any, path: Path, *, most: int = MOST) -> None:
    """Validation images with what the model takes them for: its surest mistakes first, then an even choice of the rest.

    Mistakes have a red frame and say what was right.
    """
    found: list[tuple[bool, float, int, int, int]] = []
    part = data.validation()
    with judging(model, None) as place:
        dtype = next(model.parameters()).dtype
        at = 0
        for images, labels in part.batches(256):
            chances = model(images.to(place, dtype)).float().softmax(-1).cpu()
            values, places = chances.max(-1)
            for row in range(len(labels)):
                guess, label = int(places[row]), int(labels[row])
                found.append((guess == label, -float(values[row]), at + row, guess, label))
            at += len(labels)
    wrong = sorted(entry for entry in found if not entry[0])
    right = [entry for entry in found if entry[0]]
    shown = wrong[: most if not right else max(most // 2, most - len(right))]
    shown += evenly(right, most - len(shown))
    images, _ = data.batch_of(part.items[[entry[2] for entry in shown]])
    names = data.classes
    cells = [
        judged(pixels, names[guess], -minus, names[label])
        for pixels, (_, minus, _, guess, label) in zip(_pixels(data, images), shown, strict=True)
    ]
    title = f"{data.name}, validation: {len(wrong)} of {len(found)} wrong"
    title += f"; the {sum(not e[0] for e in shown)} surest mistakes first" if wrong else ""
    _write(sheet(cells, 9, title), path)


def curves(result: TrainResult, task: Task, path: Path) -> None:
    """The validation metric and the training loss, judgement by judgement, and the learning rate below."""
    from matplotlib.figure import Figure

    steps = [entry["step"] for entry in result.curve]
    if not steps:
        return
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    percent = 100 if task.unit == SHARE else 1
    values = [percent * entry["metrics"][task.metric] for entry in result.curve]
    marker = "o" if len(steps) <= 40 else None
    (line,) = above.plot(
        steps, values, c="#1f77b4", marker=marker, ms=3.5, label="validation " + task.metric.replace("_", " ")
    )
    shown = [line]
    if result.best_step in steps:
        best = values[steps.index(result.best_step)]
        says = f"best: {best:.2f}{' %' if percent == 100 else ''} after {result.best_step} steps"
        shown.append(
            above.scatter(
                [result.best_step], [best], s=70, facecolors="none", edgecolors="#d62728", lw=1.5, zorder=4, label=says
            )
        )
    above.set_ylabel(f"{task.metric.replace('_', ' ')} ({'%' if percent == 100 else task.unit})")
    losses = above.twinx()
    (dotted,) = losses.plot(
        steps, [entry["loss"] for entry in result.curve], c="#555555", ls=":", lw=1.4, label="training loss"
    )
    losses.set_ylabel("training loss")
    # Above both axes: curves that rise and fall leave no corner free for certain.
    figure.legend(handles=[*shown, dotted], fontsize=8.5, loc="outside upper center", ncols=3, frameon=False)
    above.margins(y=0.12)
    below.plot(steps, [entry["rate"] for entry in result.curve], c="#2ca02c", lw=1.4)
    below.set_ylabel("rate", fontsize=8.5)
    below.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    below.set_ylim(bottom=0)
    below.set_xlabel("training steps")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _pixels(data: Any, images: Tensor) -> Tensor:
    """Normalised images as they look, uint8 (n, C, H, W)."""
    mean, std = (torch.tensor(data.preprocess[name])[:, None, None] for name in ("mean", "std"))
    return (255 * (images * std + mean).clamp(0, 1)).round().byte()


def _write(image: Image, path: Path) -> None:
    with atomic(path) as temporary:
        image.save(temporary, format="PNG")
