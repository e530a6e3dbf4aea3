"""This machine: what it is called, and what was measured on it once and is remembered.

Measurements stand in the folder FORMERY_CACHE (default ~/.cache/formery), one file a kind, by processor, torch version
and number of threads.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import BadFile, Unwritable
from .files import read_json, write_json


def processor() -> str:
    """The processor's name, as the system gives it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_left() -> int | None:
    """Bytes that can still be asked for; None where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return min(free, _group_left() or free)


def _group_left() -> int | None:
    """What a control group still allows (version 2); None where there is no bound."""
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return max(0, int(most) - int(used))
    except (OSError, ValueError):
        return None


def identity(threads: int) -> str:
    """What a measurement with so many threads holds for."""
    facts = _cpuinfo()
    stepping = " ".join(facts[name] for name in ("cpu family", "model", "stepping") if name in facts)
    return f"{processor()} {stepping}, {cores()} cores, torch {version('torch')}, {threads} threads"


def remembered(kind: str, threads: int) -> Any:
    """What was kept of this kind for this machine; None if nothing, or if the file is broken."""
    return _all(kind).get(identity(threads))


def remember(kind: str, threads: int, value: Any) -> None:
    """Keep `value` (plain data). A folder that cannot be written costs the next process the time to measure again."""
    try:
        write_json(_file(kind), {**_all(kind), identity(threads): value})
    except Unwritable:
        pass


def _all(kind: str) -> dict[str, Any]:
    try:
        kept = read_json(_file(kind))
    except BadFile:
        return {}
    return kept if isinstance(kept, dict) else {}


def _file(kind: str) -> Path:
    return Path(os.environ.get("FORMERY_CACHE") or Path.home() / ".cache" / "formery") / f"{kind}.json"


def _cpuinfo() -> dict[str, str]:
    """Facts of the first processor where the system tells them."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
