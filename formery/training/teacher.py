"""A teacher: a trained model whose scores another learns from (arXiv 1503.02531; arXiv 2012.12877)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import cards
from ..create import create_model
from ..errors import BadData, BadFile, BadSpec, FormeryError, MissingExtra, UnknownName
from ..files import CONFIG, saved_in
from ..interop.torchvision import declare_missing_operators
from ..measure.inputs import nominal_shape
from ..model import Model
from ..saving import tensors_of
from ..tasks.classify import Classify
from ..tasks.distillation import distillation_loss
from ..tasks.task import Batch, Task
from .checkpoint import digest
from .distillation import Distillation

PRETRAINED = "pretrained"


class Teacher:
    """A frozen model in evaluation mode that sees what the pupil sees, as itself was trained to see it.

    `size`, `mean` and `std` are the teacher's own (None: any size); `order` says where it keeps the pupil's classes.
    """

    def __init__(self, model: nn.Module, options: Distillation, task: Classify, data: Any, facts: Mapping[str, Any]):
        self.model = model.eval().requires_grad_(False)
        self.options, self.task = options, task
        self.digest = digest({name: t.detach().cpu() for name, t in tensors_of(model).items()})
        self.size: tuple[int, int] | None = facts["size"]
        ours, theirs = (_statistics(f) for f in (data.preprocess, facts))
        self.scale, self.shift = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
        self.order: Tensor | None = facts["order"]

    def to(self, device: torch.device) -> None:
        """Stand where the pupil stands."""
        self.model.to(device)
        self.scale, self.shift = self.scale.to(device), self.shift.to(device)
        self.order = None if self.order is None else self.order.to(device)

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(B, classes) in the pupil's order, of images normalised for the pupil."""
        seen = images * self.scale + self.shift
        if self.size is not None and tuple(seen.shape[2:]) != self.size:
            seen = F.interpolate(seen, self.size, mode="bicubic", align_corners=False, antialias=True)
        scores = self.model(seen.to(next(self.model.parameters()).dtype)).float()
        return scores if self.order is None else scores[:, self.order]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """(1 - alpha) of the task's loss and alpha of the teacher's; a head of two classifiers has one for each."""
        images, targets = batch
        options, output = self.options, model(images.to(next(model.parameters()).dtype))
        return distillation_loss(
            output, targets, self.scores(images), form=options.form, alpha=options.alpha,
            temperature=options.temperature, label_smoothing=self.task.label_smoothing,
        )  # fmt: skip


def _statistics(facts: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(list(facts[name]), dtype=torch.float32)[:, None, None] for name in ("mean", "std"))
    return mean, std


def open_teacher(options: Distillation, data: Any, task: Task) -> Teacher:
    """The teacher that the options name, checked on one image. Errors begin with where it was named."""
    if not isinstance(task, Classify):
        raise BadSpec(f"distill: teachers are for classify, this task is {task.kind}; leave distill out")
    try:
        model, known = _opened(options, data)
        facts = _facts(model, known, data)
        teacher = Teacher(model, options, task, data, facts)
        images, _ = data.batch_of(data.parts.train[:1])
        found = teacher.scores(images)
        if found.shape[1] != data.num_classes:
            raise BadSpec(f"it gives {found.shape[1]} scores, {data.name} has {data.num_classes} classes")
    except FormeryError as error:
        raise type(error)(f"distill.teacher {options.teacher}: {error}") from None
    return teacher


def _opened(options: Distillation, data: Any) -> tuple[nn.Module, Mapping[str, Any]]:
    """(the model, what a saved one says of itself)."""
    path = Path(options.teacher)
    if (saved_in(path) / CONFIG).is_file():
        if options.weights is not None:
            raise BadSpec("a saved model brings its own weights; leave distill.weights out")
        model = Model.from_pretrained(path)
        return model, model.extra
    if options.weights is None:
        if path.is_dir() or ("/" in options.teacher and not options.teacher.startswith("timm/")):
            raise BadFile("there is no saved model")
        _check_name(options.teacher)
        raise BadSpec("a teacher without weights has nothing to teach; give distill.weights, or the folder of a model")
    try:
        return create_model(options.teacher, options.weights), {}
    except UnknownName as error:
        found = _timm(options.teacher.removeprefix("timm/"), options.weights, data.num_classes)
        if found is None:
            raise UnknownName(f"{error}; timm has none either") from None
        return found, {}


def _check_name(name: str) -> None:
    """UnknownName for what is neither formery's nor timm's."""
    try:
        cards.canonical(name)
    except UnknownName as error:
        declare_missing_operators()
        try:
            import timm
        except ImportError:
            known = False
        else:
            known = timm.is_model(name.removeprefix("timm/"))
        if not known:
            raise UnknownName(f"{error}, and there is no folder of this name") from None


def _timm(name: str, weights: str, num_classes: int) -> nn.Module | None:
    """timm's model of this name with its weights; None where timm has none, or there is no timm."""
    declare_missing_operators()
    try:
        import timm
    except ImportError:
        raise MissingExtra("timm is not installed; pip install 'formery[timm]'") from None
    if not timm.is_model(name):
        return None
    if weights == PRETRAINED:
        return timm.create_model(name, pretrained=True)
    if not Path(weights).is_file():
        raise BadFile(f"{weights} does not exist; distill.weights is a file, or {PRETRAINED}")
    try:
        return timm.create_model(name, checkpoint_path=weights, num_classes=num_classes)
    except (RuntimeError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())
        raise BadFile(f"{weights} does not fit timm's {name}: {said[:200]}") from None


def _facts(model: nn.Module, known: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """How the teacher sees images (size, mean, std), and where it keeps the data's classes."""
    if isinstance(model, Model):
        if model.modality != "image":
            raise BadData(f"it takes {model.modality}, {data.name} has images")
        _, channels, height, width = nominal_shape(model)
        size: tuple[int, int] | None = (height, width)
        seen = known.get("preprocess") or {name: model.default_cfg[name] for name in ("mean", "std")}
    else:
        config = getattr(model, "pretrained_cfg", {}) or {}
        channels, height, width = config.get("input_size", (3, 224, 224))
        size, seen = ((height, width) if config.get("fixed_input_size") else None), config
    if channels != data.in_chans:
        raise BadData(f"it takes images of {channels} channels, {data.name} has {data.in_chans}")
    classes, order = known.get("classes"), None
    if classes is not None and list(classes) != list(data.classes):
        if missing := [name for name in data.classes if name not in classes]:
            raise BadData(f"it has not learned the class {missing[0]!r} of {data.name}")
        order = torch.tensor([list(classes).index(name) for name in data.classes])
    mean, std = (
        list(seen.get(name) or default) for name, default in (("mean", [0.0] * channels), ("std", [1.0] * channels))
    )
    if len(mean) != channels or len(std) != channels:
        mean, std = data.preprocess["mean"], data.preprocess["std"]
    return {"size": size, "mean": mean, "std": std, "order": order}
