"""Image weights made weights of a video model (I3D, arXiv 1705.07750, section 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .checkpoints import read
from .errors import BadSpec, BadWeights
from .published import dialects_of, recognise
from .weights import match, to_theirs

if TYPE_CHECKING:
    from .model import Model

Inflation = Literal["mean", "centre"]
"""The kernel divided by the frames at each of them, or whole at the middle one and zero at the others."""


def inflate(kernel: Tensor, frames: int, rule: Inflation = "mean") -> Tensor:
    """(D, C, h, w) -> (D, C, frames, h, w).

    On frames that are all alike a convolution by the result gives what one by `kernel` gives on each: by `centre` in
    every frame, by `mean` where the kernel does not reach beyond the first or last.
    """
    if kernel.dim() != 4 or frames < 1:
        raise BadSpec(f"a kernel (D, C, h, w) is inflated to 1 frame or more, got {list(kernel.shape)} and {frames}")
    if rule == "mean":
        return (kernel / frames)[:, :, None].repeat(1, 1, frames, 1, 1)
    if rule != "centre":
        raise BadSpec(f"kernels are inflated by 'mean' or 'centre', got {rule!r}")
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated


@torch.no_grad()
def load_inflated(model: Model, source: str | Path | Mapping[str, Tensor], *, rule: Inflation = "mean") -> list[str]:
    """Load the published weights of an image model into the video model of the same system and size.

    Kernels get their axis of time by `inflate`; all else is taken as it is. A classifier of another number of classes
    stays behind, and the model keeps its own. Returns the names that had no use here. BadWeights as `load_published`.
    """
    if model.modality != "video":
        raise BadWeights(f"{model.name} takes {model.modality}, and image weights are inflated for videos")
    theirs = read(source)
    chosen = recognise(model, theirs).name
    dialect = next(d for d in dialects_of(model) if d.name == chosen)
    own = to_theirs({name: t for name, t in model.state_dict().items() if match(name, dialect.rules)}, dialect)
    inflated = {
        name: inflate(t, own[name].shape[2], rule) if name in own and own[name].dim() == 5 and t.dim() == 4 else t
        for name, t in theirs.items()
    }
    left: list[str] = []
    for layer in model.head.layers:
        classifier = match(f"head.{layer}.weight", dialect.rules)
        name = "" if classifier is None else classifier.theirs[0]
        if name in own and name in inflated and inflated[name].shape != own[name].shape:
            held = [n for n in (name, name.replace("weight", "bias")) if n in inflated]
            inflated |= {n: own[n] for n in held}
            left += held
    return left + model.load_published(inflated)
