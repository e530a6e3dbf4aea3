"""What a model costs, counted or clocked: parameters, multiply-accumulates, memory, time; and models side by side.

Results are plain data (`as_dict()`) that rich prints as tables.
"""

from __future__ import annotations

from .comparison import Comparison, Row, Work, compare
from .layers import Layer, Layers, per_layer
from .machine import Machine, machine
from .macs import MacReport, count_macs
from .memory import Memory, peak_memory
from .parameters import Parameters, count_parameters
from .streams import ContextPoint, ContextSweep, context_sweep, state_bytes
from .timing import Throughput, Timing, latency, throughput

__all__ = [
    "Comparison", "ContextPoint", "ContextSweep", "Layer", "Layers", "MacReport", "Machine", "Memory", "Parameters",
    "Row", "Throughput", "Timing", "Work", "compare", "context_sweep", "count_macs", "count_parameters", "latency",
    "machine", "peak_memory", "per_layer", "state_bytes", "throughput",
]  # fmt: skip
