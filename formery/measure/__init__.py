"""What a model costs, counted or clocked: parameters, multiply-accumulates, memory, time; and models side by side.

Results are plain data (`as_dict()`) that rich prints as tables.
"""

from __future__ import annotations

from .characterize import Curve, characterize, crossing
from .comparison import Comparison, Row, Work, compare
from .layers import Layer, Layers, per_layer
from .machine import Machine, machine
from .macs import MacReport, count_macs
from .memory import Memory, peak_memory
from .operators import operator_split
from .parameters import Parameters, count_parameters
from .streams import ContextPoint, ContextSweep, context_sweep, state_bytes
from .timing import Throughput, Timing, latency, throughput

__all__ = [
    "Comparison", "ContextPoint", "ContextSweep", "Curve", "Layer", "Layers", "MacReport", "Machine", "Memory",
    "Parameters", "Row", "Throughput", "Timing", "Work", "characterize", "compare", "context_sweep",
    "count_macs", "count_parameters", "crossing", "latency", "machine", "operator_split", "peak_memory", "per_layer",
    "state_bytes", "throughput",
]  # fmt: skip
