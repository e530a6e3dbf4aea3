"""Profiles tell recurrences from other work: every operation that is one puts all of its work into their region."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from formery import ops
from formery.measure.memory import quiet
from formery.ops import damped_average, delta_rule, leaky_fire, legendre_memory
from formery.ops import test_time_memory as trained
from formery.ops.profiled import SCAN
from tests.contract.recurrences import SUBJECTS, delta

LENGTH = 20
Call = Callable[[], Any]


def _drawn(*shape: int) -> torch.Tensor:
    return torch.rand(2, LENGTH, *shape)


def _trained() -> Call:
    gates = trained.Gates(-_drawn(3), _drawn(3), None, None, None)
    memory = trained.fresh(trained.Rule(), (torch.zeros(3, 5, 4),), 2, 5, 4, momentum=False)
    return partial(trained.trained_memory, _drawn(3, 5), _drawn(3, 5), _drawn(3, 4), gates, memory, trained.Rule())


def _without_decay() -> Call:
    q, k, v, _, beta, state = delta(LENGTH, dtype=torch.float32)
    return partial(delta_rule.delta_rule, q, k, v, beta, state)


def _remembered() -> Call:
    return partial(legendre_memory.legendre_memory, _drawn(4), legendre_memory.tables(3, 9.0))


CALLS: dict[str, Callable[[], Call]] = {
    **{op.name: lambda op=op: partial(op.face, *op.draw(LENGTH, 2, torch.float32)) for op in SUBJECTS},  # type: ignore[misc]
    "damped_average": lambda: partial(damped_average.damped_average, _drawn(4), *torch.rand(3, 4, 2)),
    "delta_rule": _without_decay,
    "leaky_fire": lambda: partial(leaky_fire.leaky_fire, _drawn(4)),
    "legendre_memory": _remembered,
    "test_time_memory": _trained,
}
"""Every recurrence, on inputs drawn when they are asked for."""
CARRIED = {"state", "memory", "potential"}
"""What the definition of a recurrence carries on; a convolution's `tail` is made of its inputs."""


def test_no_recurrence_is_missing_here() -> None:
    modules = {name: import_module(f"formery.ops.{name}") for _, name, _ in pkgutil.iter_modules(ops.__path__)}
    carrying = {
        name
        for name, module in modules.items()
        if hasattr(module, "reference") and CARRIED & inspect.signature(module.reference).parameters.keys()
    }
    assert carrying == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_all_work_of_a_recurrence_has_its_region(name: str) -> None:
    call = CALLS[name]()
    with quiet(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    assert {event.name for event in profiler.events() if event.cpu_parent is None} == {SCAN}
