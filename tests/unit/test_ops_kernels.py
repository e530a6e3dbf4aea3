"""Triton kernels without a GPU: their values under triton's interpreter, and their code as it is compiled for one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is made for Linux on x86-64 and ARM")
ROOT = Path(__file__).parents[2]
INTERPRETED = sorted((ROOT / "tests" / "interpreted").glob("test_*.py"))
SHARED = 99 << 10
"""Bytes of shared memory that a program may have on every device of compute capability 8.0 or later."""
SPILLED = 256
"""Bytes a thread may put aside for want of registers."""


@pytest.mark.slow
@pytest.mark.parametrize("path", INTERPRETED, ids=lambda path: path.stem)
def test_under_the_interpreter(path: Path) -> None:
    """In a process of its own: triton reads the environment when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(path)]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Kernels as they are launched: compiled for an H100, by name, and not run."""
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver, jit

    try:
        assert knobs.nvidia.ptxas.path
    except RuntimeError as missing:
        pytest.skip(str(missing))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    there = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    found: dict[str, Any] = {}
    run = jit.JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel.device_caches.clear()
        found[kernel.__name__] = run(kernel, *args, grid=grid, warmup=True, **options)
        return found[kernel.__name__]

    monkeypatch.setattr(jit.JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", there)
    return found


def spilled(cubin: bytes, folder: Path) -> int:
    """Bytes of a thread's stack."""
    from triton import knobs

    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    told = subprocess.run(
        [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)], capture_output=True, text=True, check=True
    ).stdout
    return int(re.search(r"STACK:(\d+)", told)[1])  # type: ignore[index]


def launched_by(*modules: Any) -> set[str]:
    """Names of the kernels that hosts import."""
    from triton.runtime.jit import JITFunction

    return {name for module in modules for name, value in vars(module).items() if isinstance(value, JITFunction)}


def linear(kind: str) -> Callable[[torch.dtype], set[str]]:
    def run(dtype: torch.dtype) -> set[str]:
        from formery.ops.kernels import linear_attention as host

        groups, heads, key, value = (1, 16, 128, 64) if kind == "shared" else (2, 2, 128, 128)
        q, v = torch.zeros(1, 128, groups, key, dtype=dtype), torch.zeros(1, 128, heads, value, dtype=dtype)
        g, state = torch.zeros(1, 128, heads, key), torch.zeros(1, heads, key, value)
        decays = {"channel": g, "shared": g[..., 0], "none": None}[kind]
        host.forward(q, q, v, decays, state)
        host.backward(q, q, v, decays, state, v, state)
        pairs = set() if kind == "channel" else {"scores", "score_gradients", "pair_gradients"}
        return launched_by(host) - pairs

    return run


def delta(dtype: torch.dtype, key: int = 128) -> set[str]:
    from formery.ops.kernels import delta_rule as host

    q, g, state = torch.zeros(1, 128, 2, key, dtype=dtype), torch.zeros(1, 128, 2), torch.zeros(1, 2, key, key)
    host.forward(q, q, q, g, g, state)
    host.backward(q, q, q, g, g, state, q, state)
    return launched_by(host) | {"outputs", "value_gradients"}


def wide(dtype: torch.dtype) -> set[str]:
    return delta(dtype, 256)


def selective(dtype: torch.dtype) -> set[str]:
    from formery.ops.kernels import selective_scan as host

    u, b = torch.zeros(1, 128, 1, 1536, dtype=dtype), torch.zeros(1, 128, 1, 16, dtype=dtype)
    A = torch.zeros(1, 16, 1536)
    host.forward(u, u, A, b, b, A[None])
    host.backward(u, u, A, b, b, A[None], u, A[None])
    return launched_by(host)


def convolution(dtype: torch.dtype) -> set[str]:
    from formery.ops.kernels import short_convolution as host

    x, weight = torch.zeros(1, 128, 256, dtype=dtype, requires_grad=True), torch.zeros(256, 4, dtype=dtype)
    y: Tensor = host.fused(x, weight, weight[:, 0], silu=True)[0]
    y.sum().backward()
    return launched_by(host)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "dtype"),
    [
        *((call, torch.bfloat16) for call in (linear("channel"), linear("shared"), delta, selective, convolution)),
        (linear("none"), torch.float32), (delta, torch.float32), (wide, torch.bfloat16),
    ],
    ids=["channel", "shared", "delta", "selective", "convolution", "none-float32", "delta-float32", "delta-wide"],
)  # fmt: skip
def test_compiles_for_a_gpu(
    call: Callable[[torch.dtype], set[str]], dtype: torch.dtype, compiled: dict[str, Any], tmp_path: Path
) -> None:
    """Every kernel, as its host launches it, with registers and shared memory as there are."""
    assert call(dtype) == set(compiled)
    for name, kernel in compiled.items():
        assert kernel.metadata.shared <= SHARED, name
        assert spilled(kernel.asm["cubin"], tmp_path) <= SPILLED, name
