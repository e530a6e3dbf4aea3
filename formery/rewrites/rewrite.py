"""What every rewrite is: a decision in plain data, and surgery that follows it."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import nn

from ..errors import BadSpec, CannotRewrite
from ..measure.inputs import without_values
from ..registry import nearest
from ..spec import options

Plan = dict[str, Any]
"""`kind` and `version` of the rewrite, its `options`, the `steps` to perform, what was `refused` and why."""


class Step(BaseModel):
    """One piece of surgery: plain data that names modules and tensors by dotted paths."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Refusal(BaseModel):
    """What a rewrite left alone, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    what: str
    where: str
    why: str


S = TypeVar("S", bound=BaseModel)


class Rewrite(ABC):
    """Model to model. `decide` touches nothing; `perform` is deterministic and needs nothing but model and plan."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    never_after: ClassVar[Mapping[str, str]] = {}
    """Kinds of rewrites that it cannot follow, and the reason."""

    @classmethod
    @abstractmethod
    def decide(cls, model: nn.Module, data: Any = None, **options: Any) -> Plan:
        """The plan for this model; CannotRewrite says what stands in the way."""

    @classmethod
    @abstractmethod
    def steps_of(cls, plan: Plan) -> list[Any]:
        """The plan's steps, checked for their form."""

    @classmethod
    @abstractmethod
    def do(cls, model: nn.Module, steps: list[Any]) -> None:
        """The surgery; CannotRewrite where the model has not what a step names, as the step takes it to be."""

    @classmethod
    @abstractmethod
    def why_not(cls, model: nn.Module) -> str | None:
        """None where there is something to do, else the reason why not."""

    @classmethod
    def perform(cls, model: nn.Module, plan: Plan) -> nn.Module:
        """Follow the plan; returns the same model, which remembers the plan in `plans`.

        It is rehearsed on a copy without values: CannotRewrite leaves the model as it was. A plan without steps changes
        nothing and is not remembered.
        """
        cls.in_order(model)
        steps = cls.steps_of(checked_plan(cls, plan))
        if not steps:
            return model
        cls.do(without_values(model), steps)
        cls.do(model, steps)
        plans = getattr(model, "plans", None)
        if not isinstance(plans, list):
            model.plans = plans = []  # type: ignore[assignment]
        plans.append(plain(plan))
        return model

    @classmethod
    def in_order(cls, model: nn.Module) -> None:
        """CannotRewrite if an earlier rewrite of the model forbids this one."""
        for plan in getattr(model, "plans", None) or []:
            if reason := cls.never_after.get(plan.get("kind", "")):
                raise CannotRewrite(f"{cls.kind} cannot follow {plan['kind']}: {reason}")

    @classmethod
    def plan(cls, options: Mapping[str, Any], steps: list[Any], refused: list[Refusal], **evidence: Any) -> Plan:
        """The plan as plain data."""
        return plain(
            {
                "kind": cls.kind,
                "version": cls.version,
                "options": dict(options),
                "steps": [step.model_dump(mode="json") for step in steps],
                "refused": [refusal.model_dump() for refusal in refused],
                **evidence,
            }
        )


class Exact(Rewrite):
    """Promises equal outputs of `forward` in evaluation."""


class Approximate(Rewrite):
    """Changes outputs; its report says by how much on the data given."""


def checked_options(rewrite: type[Rewrite], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options for `decide`; BadSpec names one that it does not have, with the nearest, or one of another type."""
    schema = options(rewrite.decide)
    checked = {}
    for name, value in given.items():
        if name not in schema:
            raise BadSpec(f"{rewrite.kind} has no option {name!r}; {nearest(name, schema)}")
        value = list(value) if isinstance(value, tuple) else value
        try:
            checked[name] = TypeAdapter(schema[name].hint).validate_python(value, strict=True)
        except ValidationError as error:
            fault = error.errors()[0]["msg"]
            raise BadSpec(f"{rewrite.kind}, option {name}: {fault[0].lower()}{fault[1:]}, got {value!r}") from None
    return checked


def plain(plan: Mapping[str, Any]) -> Plan:
    """A copy as JSON would give it back: what is remembered equals what is saved and loaded."""
    try:
        return json.loads(json.dumps(plan, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CannotRewrite(f"a plan is plain JSON with finite numbers: {error}") from None


def checked_plan(rewrite: type[Rewrite], plan: Any) -> Plan:
    """The plan, if it is one of this rewrite and version."""
    if not isinstance(plan, Mapping) or plan.get("kind") != rewrite.kind:
        kind = plan.get("kind") if isinstance(plan, Mapping) else plan
        raise CannotRewrite(f"{rewrite.kind} got a plan of kind {kind!r}; perform it with the rewrite that decided it")
    if plan.get("version") != rewrite.version:
        raise CannotRewrite(
            f"this formery performs {rewrite.kind} plans of version {rewrite.version}, got {plan.get('version')!r}"
        )
    if not isinstance(plan.get("steps"), list):
        raise CannotRewrite(f"a {rewrite.kind} plan has a list of steps, got {plan.get('steps')!r}; was it edited?")
    return copy.deepcopy(dict(plan))


def parsed(kind: str, adapter: Any, steps: list[Any]) -> list[Any]:
    """The steps as `adapter` (a pydantic TypeAdapter) reads them; CannotRewrite names the first fault in one line."""
    read = []
    for number, step in enumerate(steps):
        try:
            read.append(adapter.validate_json(json.dumps(step)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"][1:])
            raise CannotRewrite(
                f"{kind} plan, step {number}{f', {place}' if place else ''}: {first['msg'].lower()}; was it edited?"
            ) from None
    return read
