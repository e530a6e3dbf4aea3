"""How much memory a forward takes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import CannotRun
from .inputs import as_inputs
from .parameters import count_parameters
from .report import Report, grid, size
from .running import evaluating, synchronize

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Memory(Report):
    """Bytes of one forward without gradients.

    Measured on torch's own allocator: what its operations asked for and gave back. What libraries take for themselves
    (scratch of oneDNN and MKL, the interpreter) is not seen; the inputs are the caller's and are not counted.
    """

    weights: int
    """Parameters and saved buffers, shared tensors once."""
    activations: int
    """The most that was held at once beside weights and inputs."""
    kept: int
    """What is still held when the forward is over: its output."""

    @property
    def peak(self) -> int:
        """Weights and activations together."""
        return self.weights + self.activations

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"peak": self.peak}

    def table(self) -> Table:
        rows = [("weights", size(self.weights)), ("activations", size(self.activations)), ("peak", size(self.peak))]
        return grid("Memory of a forward", ("part", "bytes"), rows)


def peak_memory(model: nn.Module, *inputs: Any, warmup: bool = True) -> Memory:
    """Run one forward and follow the allocator. `inputs` as for `count_macs`.

    warmup: run one that is not counted before; without it, the model has run on such inputs already.
    """
    given = as_inputs(model, inputs)
    if any(isinstance(x, torch.Tensor) and x.is_meta for x in given):
        raise CannotRun(
            "memory is measured on a model with values, this one stands on the meta device; build it on a real one"
        )
    counted = count_parameters(model)
    weights = counted.bytes + counted.buffer_bytes
    with evaluating(model), torch.inference_mode():
        if warmup:
            model(*given)
        synchronize(given)
        device = next((x.device for x in given if isinstance(x, torch.Tensor)), torch.device("cpu"))
        follow = _followed_on_cpu if device.type == "cpu" else _followed_on_accelerator
        return Memory(weights, *follow(lambda: model(*given)))


def _followed_on_cpu(call: Any) -> tuple[int, int]:
    from torch.profiler import ProfilerActivity, profile

    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with quiet():
        profiler.start()
    out = call()
    with quiet():
        profiler.stop()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    del out
    steps = sorted(
        (e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]" and e["args"]["Device Type"] == 0
    )
    held = most = 0
    for _, change in steps:
        held += change
        most = max(most, held)
    return most, held


@contextmanager
def quiet() -> Iterator[None]:
    """Without the lines that the profiler's library writes to the process' own stderr when it starts and stops."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _followed_on_accelerator(call: Any) -> tuple[int, int]:
    before = torch.accelerator.memory_allocated()
    torch.accelerator.reset_peak_memory_stats()
    out = call()
    torch.accelerator.synchronize()
    most, held = torch.accelerator.max_memory_allocated() - before, torch.accelerator.memory_allocated() - before
    del out
    return most, held
