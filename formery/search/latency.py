"""What candidates cost: parameters, and the time of one item, models taking turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..measure import Work, compare, count_parameters, latency

SECONDS, LEAST, MOST = 0.4, 7, 25
"""Of timing a model, and its fewest and most rounds."""


def table(models: Mapping[str, nn.Module], inputs: Callable[[Any], Tensor]) -> dict[str, dict[str, Any]]:
    """Parameters and median milliseconds of one item, by name; interleaved, so that their order holds under noise."""
    works = {name: Work(partial(model, inputs(model)), model=model) for name, model in models.items()}
    found = compare(works, seconds=SECONDS * len(works), least=LEAST, most=MOST, shares=False)
    return {
        name: {"params": count_parameters(model).total, "latency_ms": 1e3 * found[name].timing.median}
        for name, model in models.items()
    }


def milliseconds(model: nn.Module, inputs: Tensor) -> float:
    """Median milliseconds of one forward."""
    return 1e3 * latency(partial(model, inputs), seconds=SECONDS, least=LEAST, most=MOST).median
