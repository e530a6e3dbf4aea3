"""A deployed folder, run in the form that was chosen for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import BadFile
from ...files import read_json
from ...model import Model
from .forms import FORMS, Layout, runner

REPORT = "deploy.json"
LAYOUTS = ("contiguous", "channels last")


class Deployed(nn.Module):
    """Images (B, C, H, W) in float32 to scores (B, classes) in float32, as one form runs the model."""

    def __init__(self, model: Model, form: str, folder: Path, layout: Layout) -> None:
        super().__init__()
        self.form, self.extra = form, model.extra
        self.run = runner(form, model, folder, layout)
        # So that whoever asks a module for its device and dtype gets an answer.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.run(inputs)


def opened(folder: str | Path, form: str | None = None) -> Deployed:
    """What `deploy` has left in `folder`, in the form that it chose, or in another `form`. Runs no code from there.

    BadFile where the folder is not of `deploy`, is damaged, or lacks the file that the form needs.
    """
    folder = Path(folder)
    told: Any = read_json(folder / REPORT)
    if not isinstance(told, dict) or told.get("format") != 1:
        raise BadFile(f"{folder / REPORT} is no report of 'formery deploy'; deploy the model again")
    name, layout = form or told.get("chosen"), told.get("layout")
    if name not in FORMS or layout not in LAYOUTS:
        raise BadFile(f"{folder / REPORT} names no form that can be run, but {name!r} and {layout!r}; deploy it again")
    return Deployed(Model.from_pretrained(folder).eval(), str(name), folder, layout)
