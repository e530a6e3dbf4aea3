"""What every probe is, and a probe as data of the language task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

from pydantic import Field

from ... import spec
from ...errors import BadSpec
from .. import chance

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
Count = Annotated[int, Field(ge=1)]
Kinds = Annotated[int, Field(ge=2)]
"""How many tokens there are to choose from: of one kind there is nothing to tell."""
Sizes = Annotated[Sequence[Count], Field(min_length=1)]
"""Difficulties."""

IGNORED = -100
"""The target of tokens that do not count."""
JUDGED = 10**6
"""Steps from here on are drawn for judging, so that nothing learned is judged by."""

Draw = Callable[[int, int, int, int], "tuple[Tensor, Tensor]"]
"""(seed, step, batch, size) -> ids, targets (B, L), int64; targets that do not count are `IGNORED`."""


@dataclass(frozen=True)
class Probe:
    """Sequences of any difficulty with answers that can be checked."""

    name: str
    vocab: int
    """Kinds of tokens; answers are among them."""
    draw: Draw
    sizes: tuple[int, ...]
    """Difficulties that models are judged at, rising."""
    trained: tuple[int, ...]
    """Difficulties of the training, each for an equal share of its steps, rising."""
    unit: str
    """What a size counts."""
    chance: float
    """Share of right answers of who knows the form of the task and nothing else."""
    tokens: Callable[[int], int] = field(default=lambda size: size)
    """Length of a sequence of a size."""
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sizes or not self.trained or min(*self.sizes, *self.trained) < 1:
            raise BadSpec(f"{self.name}: sizes are at least 1, got {self.sizes} and {self.trained}")


def checked(make: Callable[P, Probe]) -> Callable[P, Probe]:
    """A probe's function whose options are what their hints say, or BadSpec names the one that is not."""

    @wraps(make)
    def call(*args: P.args, **given: P.kwargs) -> Probe:
        return make(*args, **spec.checked(make, given, make.__name__))

    return call


def long_enough(name: str, least: int, sizes: Sequence[int], trained: Sequence[int], why: str) -> None:
    """BadSpec where a size is below the `least` that holds what is asked."""
    if min(*sizes, *trained) < least:
        raise BadSpec(f"{name}: {why} need sizes of at least {least}, got {min(*sizes, *trained)}")


class ProbeData:
    """A probe as endless data of the language task: the size rises with the steps."""

    modality, task = "text", "language"

    def __init__(self, probe: Probe, steps: int, seed: int = 0) -> None:
        self.probe, self.steps, self.seed = probe, steps, seed
        self.name, self.vocab = probe.name, probe.vocab

    @property
    def digest(self) -> str:
        """Of the generator and its options: the content is endless."""
        said = [self.probe.name, self.probe.options, self.probe.trained, self.steps, self.seed]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def size_at(self, step: int) -> int:
        """The size that is trained at a step."""
        stages = self.probe.trained
        return stages[min(len(stages) - 1, step * len(stages) // max(1, self.steps))]

    def train_batch(self, step: int, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
        """A batch of the size that belongs to this step; the task's own length is not asked."""
        return self.probe.draw(self.seed, step, batch_size, self.size_at(step))

    def windows(self, split: str, length: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch of the last size."""
        yield self.probe.draw(self.seed, JUDGED, 128, self.probe.trained[-1])

    def describe(self) -> dict[str, Any]:
        """Plain JSON for reports."""
        return {"name": self.name, "modality": self.modality, "task": self.task, "digest": self.digest,
                "seed": self.seed, "vocab": self.vocab, "options": self.probe.options}  # fmt: skip


def integers(seed: int, stream: str, step: int, shape: Sequence[int], below: int) -> Tensor:
    """Uniform integers in [0, below) of a shape."""
    import math

    import torch

    return torch.from_numpy(chance.integers(seed, stream, step, math.prod(shape), below)).view(*shape)


def orders(seed: int, stream: str, step: int, batch: int, num: int, *, most: int | None = None) -> Tensor:
    """(batch, most or num): different numbers of 0 to num - 1 in each row, in random order."""
    import torch

    drawn = torch.from_numpy(chance.uniform(seed, stream, step, batch * num)).view(batch, num)
    return drawn.argsort(dim=1)[:, :most]


def nothing_counts(ids: Tensor) -> Tensor:
    """Targets of which none counts yet."""
    import torch

    return torch.full_like(ids, IGNORED)
