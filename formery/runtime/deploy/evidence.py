"""The images on which forms of a model are compared, and whether they are such as it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data import chance, load_image
from ...data.folders import is_image, shown, walk
from ...errors import BadData, BadFile, CannotRun, FormeryError
from ...measure.inputs import nominal_shape
from ...model import Model
from ...registry import index
from ..given import open_for
from .photographs import crops, normalised

NUM = 64
"""Images that are judged of 224x224 pixels, and the fewest of any size, where there are so many."""
MOST = 512
READERS = 4


@dataclass(frozen=True)
class Evidence:
    """Images as the model wants them: (n, C, H, W) to judge by, and others for int8 to take its ranges from."""

    judged: Tensor
    others: Tensor
    source: str
    """What the judged ones are, in words."""
    own: bool
    """Whether they are such as the model is for: those of its training, or given ones."""
    why_not: str = ""
    """Why they are not."""


def evidence(model: Model, source: Any = None, *, seed: int = 0) -> Evidence:
    """Images of `source`; where none is given those of the model's training, or else crops of two photographs.

    Of data in parts the validation part is judged, and the training part gives the others. A folder needs no classes:
    what its files show is compared, not whether it is right. CannotRun for models that take no images, BadData where
    `source` has none.
    """
    if model.modality != "image":
        raise CannotRun(f"{model.name} takes {model.modality}; images are deployed here, 'formery export' takes others")
    shape = nominal_shape(model)[1:]
    num = max(NUM, min(MOST, NUM * 224 * 224 // (shape[1] * shape[2])))
    if source is not None:
        return _given(model, source, num, seed)
    found = _learned(model, num, seed)
    if isinstance(found, Evidence):
        return found
    judged, others = normalised(crops(2 * NUM, shape, seed), model).tensor_split(2)
    return Evidence(judged, others, "crops of two photographs of scikit-learn", own=False, why_not=found)


def _given(model: Model, source: Any, num: int, seed: int) -> Evidence:
    folder = Path(source).expanduser() if isinstance(source, str | Path) and source not in index("data") else None
    try:
        data = open_for(model, source, seed=seed, options={} if folder is None else _skipping(folder))
    except BadData:
        if folder is None or not folder.is_dir():
            raise
        files = [file for file in walk(folder) if is_image(file)]
        if not files:
            raise
        return _unlabelled(model, folder, files, num, seed)
    return _by_parts(data, num, seed)


def _learned(model: Model, num: int, seed: int) -> Evidence | str:
    """Of the data that the model says it has learned from; why not, where they cannot be had."""
    known = model.extra.get("data")
    if not isinstance(known, Mapping) or not isinstance(name := known.get("name"), str):
        return f"{model.name} does not say what it was trained on"
    try:
        options = dict(known.get("options") or {}) | ({} if name in index("data") else _skipping(Path(name)))
        data = open_for(model, name, seed=seed, options=options)
    except (FormeryError, TypeError):
        return f"{name}, which {model.name} was trained on, cannot be opened here"
    if data.digest != known.get("digest"):
        return f"what is called {name} here is not what {model.name} was trained on"
    return _by_parts(data, num, seed)


def _skipping(folder: Path) -> dict[str, Any]:
    return {"broken": "skip"} if folder.is_dir() else {}


def _by_parts(data: Any, num: int, seed: int) -> Evidence:
    part = data.validation()
    chosen = chance.permutation(seed, "deploy", 0, len(part))[:num]
    judged, _ = data.batch_of(part.items[chosen])
    return Evidence(judged, data.sample(NUM), f"images of the validation part of {data.name}", own=True)


def _unlabelled(model: Model, folder: Path, files: list[Path], num: int, seed: int) -> Evidence:
    """Images below a folder, wherever they are; those that cannot be read are left out, and counted."""
    _, channels, *size = nominal_shape(model)
    facts = model.default_cfg
    usual = {"mean": facts["mean"], "std": facts["std"], "interpolation": facts["interpolation"], "fit": "squash"}
    preprocess = usual | dict(model.extra.get("preprocess") or {}) | {"size": size, "channels": channels}
    if len(preprocess["mean"]) != channels:
        preprocess |= {name: [float(np.mean(preprocess[name]))] * channels for name in ("mean", "std")}

    def read(file: Path) -> Tensor | FormeryError:
        try:
            return load_image(file, preprocess)
        except (BadData, BadFile) as error:
            return error

    order = chance.permutation(seed, "deploy", 0, len(files))[: num + NUM]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(read, (files[place] for place in order)))
    images = [image for image in found if isinstance(image, Tensor)]
    faults = [image for image in found if not isinstance(image, Tensor)]
    if not images:
        raise BadData(f"none of {len(faults)} images in {shown(folder)} can be read: {faults[0]}")
    judged = torch.stack(images[: max(1, len(images) - NUM)] if len(images) > 2 * NUM else images[::2])
    others = torch.stack(images[-NUM:] if len(images) > 2 * NUM else images[1::2] or images)
    left = f" ({len(faults)} more cannot be read)" if faults else ""
    return Evidence(judged, others, f"images of {shown(folder)}{left}", own=True)
