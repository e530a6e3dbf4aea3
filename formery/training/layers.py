"""How deep each parameter sits: what layer-wise learning rates and a frozen body go by."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from ..errors import BadSpec

WITH_THE_LAST = 99999.0
"""timm's number for what joins the layer before it: a final norm."""


def layers_of(model: nn.Module) -> tuple[dict[str, int], int]:
    """({name of a parameter: its layer, 0 for the stem}, the number of the highest), as `model.group_matcher()` says.

    The matcher is timm's: regular expressions by kind, in order of depth; a match is placed by the numbers it captures
    and by those beside it; what none matches lies above all. BadSpec where the model has no matcher.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        raise BadSpec("layer_decay needs to know the model's layers: it has no group_matcher; leave layer_decay out")
    rules = list(_rules(matcher()))
    members: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for name, _ in model.named_parameters():
        members[_place(name, rules)].append(name)
    found: dict[str, int] = {}
    layer = -1
    for place in sorted(members):
        layer += int(layer < 0 or place[-1] != WITH_THE_LAST)
        found |= dict.fromkeys(members[place], layer)
    return found, layer


def _rules(matcher: Mapping[str, Any]) -> Iterable[tuple[int, re.Pattern[str], tuple[float, ...]]]:
    for order, given in enumerate(matcher.values()):
        for rule in [given] if isinstance(given, str) else given:
            pattern, suffix = (rule, None) if isinstance(rule, str) else rule
            yield order, re.compile(pattern), tuple(float(number) for number in suffix or ())


def _place(name: str, rules: list[tuple[int, re.Pattern[str], tuple[float, ...]]]) -> tuple[float, ...]:
    for order, pattern, suffix in rules:
        if found := pattern.match(name):
            return (float(order), *(float(number) for number in found.groups() if number is not None), *suffix)
    return (float("inf"),)


def head_of(model: nn.Module) -> set[nn.Parameter]:
    """The parameters of the head; BadSpec where there is none to be found, or none to train."""
    head: Any = getattr(model, "head", None)
    classifier: Any = getattr(model, "get_classifier", None)
    if not isinstance(head, nn.Module) and classifier is not None:
        head = classifier()
    found = {p for p in head.parameters() if p.requires_grad} if isinstance(head, nn.Module) else set()
    if not found:
        raise BadSpec("head_only: the model has no head with parameters to train; leave head_only out")
    return found
