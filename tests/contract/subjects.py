"""What the contract is checked on: every registered part with each of its EXAMPLES, on every grid that it declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formery import registry
from formery.errors import BadSpec
from formery.spec import FILLED, Place

DIM = 32
GRIDS = {1: (24,), 2: (6, 4), 3: (2, 3, 4)}
"""One grid a rank, all of 24 tokens."""
OTHER_GRIDS = {1: (17,), 2: (5, 7), 3: (3, 2, 5)}


@dataclass(frozen=True)
class Subject:
    """A part's class with options, on a grid."""

    part: type[Any]
    options: dict[str, Any] = field(hash=False)
    grid: tuple[int, ...] = GRIDS[1]
    args: tuple[int, ...] = (DIM,)
    """What it is built with beside its options."""

    def __str__(self) -> str:
        options = " ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.part.__name__} {options} on {'x'.join(map(str, self.grid))}".replace("  ", " ")

    def plain(self, grid: tuple[int, ...] | None = None) -> Any:
        """The part as it is initialised, in float64."""
        torch.manual_seed(0)
        place = Place(grid=self.grid if grid is None else grid)
        names = [name for name in inspect.signature(self.part).parameters if name in FILLED]
        filled = {name: place if name == "place" else getattr(place, name) for name in names}
        options = self.options
        if hasattr(self.part, "shorthand") and not self.part.is_full(options):
            options = self.part.shorthand(**options)
        return self.part(*self.args, **options, **filled).double()

    def make(self, dtype: torch.dtype = torch.float64) -> Any:
        """The part in evaluation, with every parameter moved off its initial value: zeros must hide nothing."""
        return moved(self.plain()).to(dtype).eval()

    def tokens(self, batch: int = 2, grid: tuple[int, ...] | None = None, seed: int = 1) -> Tensor:
        """(batch, *grid, DIM) tokens in float64."""
        shape = (batch, *(self.grid if grid is None else grid), DIM)
        return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def declared(self, name: str) -> Any:
        """What an instance declares, and what follows from that (see `DERIVED`)."""
        instance = _instance(self)
        return DERIVED[name](self, instance) if name in DERIVED else getattr(instance, name)


def _maps(instance: Any) -> str:
    """Whether a mixer takes maps "only", maps "too", or reads them "row by row"."""
    if 2 not in instance.grids:
        return "row by row"
    return "too" if 1 in instance.grids or getattr(instance, "sees_prefix", False) else "only"


DERIVED: dict[str, Callable[[Subject, Any], Any]] = {
    "rank": lambda subject, part: len(subject.grid),
    "simplest": lambda subject, part: len(subject.grid) == min(getattr(part, "grids", (1,))),
    "maps": lambda subject, part: _maps(part),
    "looks_at_batch": lambda subject, part: any(getattr(m, "looks_at_batch", False) for m in part.modules()),
    "surrogate": lambda subject, part: any(getattr(m, "surrogate", False) for m in part.modules()),
    "all_pack": lambda subject, part: all(m.packs for m in part.modules() if hasattr(m, "packs")),
    "all_stream": lambda subject, part: all(m.streams == "any" for m in part.modules() if hasattr(m, "streams")),
}
"""What is not an attribute of the instance itself: of its grid, or of all the parts inside it."""


@cache
def _instance(subject: Subject) -> Any:
    return subject.plain()


def moved(module: nn.Module) -> nn.Module:
    """The module with small noise on every parameter."""
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=noise))
    return module


def classes(role: str) -> list[type[Any]]:
    """The classes of a role."""
    return [registry.find(role, name) for name in registry.index(role)]


def subjects_of(part: type[Any], ranks: Iterable[int] = (1, 2, 3), **more: Any) -> Iterator[Subject]:
    """A part with each of its EXAMPLES, on each of `ranks` that it takes: those it declares, or does not refuse."""
    for options in part.EXAMPLES:
        taken = [s for rank in ranks if takes(s := Subject(part, options, GRIDS[rank], **more), rank)]
        assert taken, f"{part.__name__} takes its example {options} on no grid"
        yield from taken


def takes(subject: Subject, rank: int) -> bool:
    """Whether a part with its options goes on a grid of that rank: it declares so, and does not refuse."""
    if rank not in getattr(subject.part, "grids", (rank,)):
        return False
    try:
        return rank in getattr(subject.plain(), "grids", (rank,))
    except BadSpec as error:
        if f"here the grid is {rank}-D" in str(error):
            return False
        raise


def subjects(role: str, ranks: Iterable[int] = (1, 2, 3), **more: Any) -> list[Subject]:
    """All subjects of a role: every registered class is among them, or it could dodge by declaring no grid."""
    found = [subject for part in classes(role) for subject in subjects_of(part, ranks, **more)]
    assert {subject.part for subject in found} == set(classes(role))
    return found


@dataclass(frozen=True)
class Promise:
    """A check, and what a subject has to declare for it to apply: values by the name of the capability."""

    check: Callable[[Subject], None]
    needs: dict[str, tuple[Any, ...]] = field(hash=False)

    def applies(self, subject: Subject) -> bool:
        """Whether the subject declares what is needed."""
        return all(subject.declared(name) in values for name, values in self.needs.items())

    def __str__(self) -> str:
        return self.check.__name__


class Contract(list[Promise]):
    """All promises of a role."""

    def promise(self, **needs: Any) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
        """Add the decorated check: for all subjects, or those that declare `name=value` (or one of several values)."""
        values = {name: value if isinstance(value, tuple) else (value,) for name, value in needs.items()}

        def add(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
            self.append(Promise(check, values))
            return check

        return add

    def pairs(self, subjects: Iterable[Subject]) -> list[tuple[Promise, Subject]]:
        """What is to be checked."""
        return [(promise, subject) for subject in subjects for promise in self if promise.applies(subject)]

    def parametrize(self, subjects: Iterable[Subject]) -> pytest.MarkDecorator:
        """One test a pair."""
        pairs = self.pairs(subjects)
        return pytest.mark.parametrize(("promise", "subject"), pairs, ids=[f"{p} {s}" for p, s in pairs])

    def hold(self, subject: Subject) -> list[str]:
        """Check everything that applies to one subject; the names of the checks."""
        applying = [promise for promise in self if promise.applies(subject)]
        for promise in applying:
            promise.check(subject)
        return [str(promise) for promise in applying]
