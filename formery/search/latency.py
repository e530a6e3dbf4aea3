"""Latencies of candidates, interleaved so that their order holds on a noisy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

ROUNDS, WARM = 25, 3


def table(models: Mapping[str, nn.Module], inputs: Callable[[Any], Tensor]) -> dict[str, dict[str, Any]]:
    """Parameters and median milliseconds of one item, by name; the models take turns."""
    given = {name: inputs(model) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(WARM + ROUNDS):
            for name, model in models.items():
                start = time.perf_counter()
                model(given[name])
                if turn >= WARM:
                    times[name].append(time.perf_counter() - start)
    return {
        name: {"params": sum(p.numel() for p in model.parameters()), "latency_ms": 1e3 * statistics.median(times[name])}
        for name, model in models.items()
    }


def milliseconds(model: nn.Module, inputs: Tensor) -> float:
    """Median milliseconds of one forward."""
    found: float = table({"model": model}, lambda _: inputs)["model"]["latency_ms"]
    return found
