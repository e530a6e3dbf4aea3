"""What is done to training images, as plain options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...errors import BadSpec
from ...registry import nearest
from ...spec import checked
from .. import chance
from . import torchvision_operations
from .crops import cropped
from .erasing import erased
from .mixing import mixed
from .moves import moved, turned
from .operations import OPERATIONS
from .policies import NAMES, Policy, Step, jitter_steps, policy_of

DEIT = {"crop": [0.08, 1.0], "flips": True, "policy": "rand-m9-mstd0.5", "erase": 0.25, "mixup": 0.8, "cutmix": 1.0}
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "light": {"crop": [0.35, 1.0], "flips": True, "jitter": 0.2},
    "trivial": {"crop": [0.35, 1.0], "flips": True, "policy": "trivial", "erase": 0.1},
    "deit": DEIT,
}
"""Sets of options by name; `deit` is that of arXiv 2012.12877, table 9, with which many have trained since."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images change from step to step; see `formery.data.augment` for the order.

    shifts: whole pixels in each direction; zoom: scale in [1 - zoom, 1 + zoom]; rotation: degrees each way; what comes
    in repeats the border. flips: every second image is mirrored.
    crop: smallest and largest share of the area of a random resized crop, of width / height within `ratio`, resized by
    `mode`. policy: `rand`, `trivial` or timm's form (`rand-m9-n2-mstd0.5-p0.5`); jitter: of brightness, contrast and
    saturation. erase: share of images with a box of noise. mixup, cutmix: a of Beta(a, a), 0 for none; mix: share of
    batches that are mixed. repeats: how often an image stands in a batch (arXiv 1901.09335), each time augmented anew.
    by: what computes the policy's and the jitter's pixels.
    """

    shifts: int = 0
    flips: bool = False
    zoom: float = 0.0
    rotation: float = 0.0
    crop: list[float] | None = None
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    policy: str | None = None
    jitter: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix: float = 1.0
    repeats: int = 1
    by: Literal["auto", "torchvision", "tensors"] = "auto"
    mode: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.shifts < 0 or int(self.shifts) != self.shifts:
            raise BadSpec(f"shifts={self.shifts} must be a whole number of pixels, 0 or more")
        if not 0 <= self.zoom < 1:
            raise BadSpec(f"zoom={self.zoom} must lie in [0, 1): images are scaled by 1 - zoom to 1 + zoom")
        if not 0 <= self.rotation <= 180:
            raise BadSpec(f"rotation={self.rotation} must lie in 0..180 degrees")
        if self.crop is not None and not (len(self.crop) == 2 and 0 < self.crop[0] <= self.crop[1] <= 1):
            raise BadSpec(f"crop={self.crop} must be the smallest and the largest share of the area, within (0, 1]")
        if not (len(self.ratio) == 2 and 0 < self.ratio[0] <= self.ratio[1]):
            raise BadSpec(f"ratio={self.ratio} must be the smallest and the largest width / height, above 0")
        for name in ("jitter", "erase", "mix"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadSpec(f"{name}={getattr(self, name)} must lie in 0..1")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise BadSpec(f"{name}={getattr(self, name)} must be a number, 0 or more: a of Beta(a, a)")
        if self.repeats < 1:
            raise BadSpec(f"repeats={self.repeats} must be 1 or more")
        if self.policy is not None:
            policy_of(self.policy)
        if self.by == "torchvision" and not torchvision_operations.installed():
            raise BadSpec("by='torchvision', but torchvision is not installed; install it, or leave `by` out")

    @cached_property
    def _policy(self) -> Policy | None:
        return None if self.policy is None else policy_of(self.policy)

    @property
    def mixes(self) -> bool:
        """Whether targets are (B, classes) rather than labels."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def operates(self) -> str | None:
        """What computes operations: `tensors`, or torchvision and its version; None where there are none."""
        if self.policy is None and not self.jitter:
            return None
        ours = self.by == "tensors" or (self.by == "auto" and not torchvision_operations.installed())
        return "tensors" if ours else f"torchvision {torchvision_operations.release()}"

    def describe(self) -> dict[str, Any]:
        """The options as plain JSON, and what computes the operations, whose pixels may differ in the last bit."""
        return {**asdict(self), "operations_by": self.operates}

    def __call__(self, images: Tensor, seed: int, step: int, size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, *size), each image changed on its own; the same size unless given."""
        num = len(images)
        drawn = torch.from_numpy(chance.uniform(seed, "augment", step, 5 * num).reshape(5, num))
        if self.crop is not None:
            area, ratio = (self.crop[0], self.crop[1]), (self.ratio[0], self.ratio[1])
            images = cropped(images, size or (images.shape[2], images.shape[3]), area, ratio, self.mode, seed, step)
        if self.zoom or self.rotation:
            images = turned(images, self.zoom, self.rotation, drawn[0], drawn[1])
        if self.shifts or self.flips:
            images = moved(images, self.shifts, self.flips, drawn[2], drawn[3], drawn[4])
        if self._policy is not None:
            images = self._operated(images, self._policy.steps(num, (images.shape[2], images.shape[3]), seed, step))
        if self.jitter:
            images = self._operated(images, jitter_steps(num, self.jitter, seed, step))
        return images

    def _operated(self, images: Tensor, steps: Iterable[Step]) -> Tensor:
        known = OPERATIONS if self.operates == "tensors" else torchvision_operations.operations()
        images = images.clone()
        for chosen, amounts in steps:
            for number in np.unique(chosen):
                which = torch.from_numpy(np.flatnonzero(chosen == number))
                images[which] = known[NAMES[number]](images[which], amounts[which])
        return images

    def erased(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Normalised images, of which some have a box of noise."""
        return erased(images, self.erase, seed, step) if self.erase else images

    def mixed(self, images: Tensor, labels: Tensor, num_classes: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Images and labels (B,) as they are, or mixed, with targets (B, num_classes)."""
        if not self.mixes:
            return images, labels
        return mixed(
            images, labels, num_classes, mixup=self.mixup, cutmix=self.cutmix, share=self.mix, seed=seed, step=step
        )


def augmentation_of(
    augment: str | Mapping[str, Any] | None,
    *,
    size: tuple[int, int],
    shifts: int | None = None,
    flips: bool = False,
    zoom: float = 0.0,
    rotation: float = 0.0,
) -> Augmentation:
    """The augmentation of images of `size`: that of `augment`, with the single options where they are given.

    `augment` is a name of `PRESETS`, or options of `Augmentation`, with those of a preset called `like` as their base.
    Without it images are shifted by a pixel or two. BadSpec names what does not fit.
    """
    given = {"like": augment} if isinstance(augment, str) else dict(augment or {})
    base = given.pop("like", "none")
    if base not in PRESETS:
        raise BadSpec(f"augment: no preset is called {base!r}; {nearest(str(base), PRESETS)}")
    options = PRESETS[base] | given
    if shifts is not None or augment is None:
        options["shifts"] = default_shifts(min(size)) if shifts is None else shifts
    options |= {name: value for name, value in (("flips", flips), ("zoom", zoom), ("rotation", rotation)) if value}
    return Augmentation(**checked(Augmentation.__init__, options, "augment"))


def default_shifts(size: int) -> int:
    """One pixel for small images, two from 32 pixels on."""
    return 1 if size < 32 else 2
