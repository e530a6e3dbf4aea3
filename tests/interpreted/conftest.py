"""Kernels on the CPU: these files are collected where TRITON_INTERPRET=1 stands in the environment before triton is
imported, as `tests/unit/test_ops_kernels.py` arranges it for each of them in a process of its own."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
