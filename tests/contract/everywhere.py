"""What parts of every role promise, however they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from formery import formats, registry, spec
from tests.contract import common
from tests.contract.subjects import Contract, Subject

Run = Callable[[Any, Tensor], Tensor]
"""(part, input) -> output."""
Inputs = Callable[[Subject, int], Tensor]
"""(subject, batch) -> an input of the subject's own size."""


def tokens(subject: Subject, batch: int) -> Tensor:
    """Tokens on the subject's grid."""
    return subject.tokens(batch)


def contract_of(role: str, run: Run, inputs: Inputs = tokens, *, traced: bool = True) -> Contract:
    """The promises of a role's parts; with `traced`, that they compile and export as well."""
    contract = Contract()
    promise = contract.promise

    @promise()
    def check_dtype_and_repeatability(subject: Subject) -> None:
        for dtype in (torch.float64, torch.float32):
            part, x = subject.make(dtype), inputs(subject, 2).to(dtype)
            y = run(part, x)
            assert y.dtype == dtype
            assert y.isfinite().all()
            assert torch.equal(run(part, x), y)

    @promise()
    def check_gradients(subject: Subject) -> None:
        part = subject.make()
        part.train(getattr(part, "more_in_training", False))
        common.check_gradients(part, lambda x: run(part, x), inputs(subject, 2))

    @promise(looks_at_batch=False)
    def check_batch(subject: Subject) -> None:
        part = subject.make()
        common.check_batch(part, lambda x: run(part, x), inputs(subject, 3))

    @promise(looks_at_batch=True)
    def check_batch_is_seen_in_training_only(subject: Subject) -> None:
        part, x = subject.make(), inputs(subject, 3)
        common.close(run(part, x)[:1], run(part, x[:1]))
        assert common.leaks(part, lambda x: run(part, x), x)

    @promise()
    def check_nothing_is_stored(subject: Subject) -> None:
        part = subject.make()
        common.check_left_alone(part, lambda: run(part, inputs(subject, 2)))

    @promise()
    def check_names(subject: Subject) -> None:
        common.check_names(subject.make())

    @promise()
    def check_half_precision(subject: Subject) -> None:
        common.check_half(subject.make, inputs(subject, 2), run)

    @promise(simplest=True)
    def check_spec_round_trip(subject: Subject) -> None:
        check_spec(role, subject)

    if traced:

        @promise(simplest=True)
        def check_compiles(subject: Subject) -> None:
            part = subject.make()
            xs = [inputs(subject, batch) for batch in (2, 3)]
            common.check_compiles(part, xs, lambda x: run(part, x))

        @promise(simplest=True, exports=True)
        def check_exports(subject: Subject) -> None:
            part = subject.make()
            xs = [inputs(subject, batch) for batch in (2, 3)]
            common.check_exports(part, xs, lambda x: run(part, x), [0])

    return contract


def check_spec(role: str, subject: Subject) -> None:
    """The options resolve to every option written out; that resolves to itself, and survives JSON and YAML."""
    name = registry.name_of(role, subject.part)
    node = spec.resolve_part(role, {"kind": name, **subject.options})
    assert set(node) == {"kind", *spec.options(subject.part.__init__)}
    assert spec.resolve_part(role, node) == node
    assert formats.from_json(formats.to_json(node)) == node
    assert formats.from_yaml(formats.to_yaml(node)) == node
