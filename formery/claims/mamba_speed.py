"""Claims of Mamba and Mamba-2 about time, measured in turns on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..model import Model
from ..ops import selective_scan as scan
from ..ops import state_space_duality as duality
from ..systems.language import mamba as system
from .check import Measured, Progress, check

ROUNDS = 60
SHORT, LONG = 256, 4096


@check
def decode_cost(seed: int, progress: Progress) -> Measured:
    """A token after 256 and after 4096 others, in turns: four layers of the width of the 130M models."""
    found: dict[str, Any] = {}
    for kind in ("mamba", "mamba2"):
        progress(kind)
        model = Model(system.spec(dim=768, depth=4, vocab=1024, mixer={"kind": kind})).eval()
        streams = {tokens: _fed(model, tokens) for tokens in (SHORT, LONG)}
        times: dict[int, list[float]] = {tokens: [] for tokens in streams}
        token = torch.zeros(1, 1, dtype=torch.long)
        with torch.inference_mode():
            for _ in range(ROUNDS):
                for tokens, stream in streams.items():
                    times[tokens].append(_seconds(model, token, state=stream))
        short, long = (1e3 * median(times[tokens]) for tokens in streams)
        found[kind] = {"ms after 256": short, "ms after 4096": long, "ratio": long / short}
        found[kind]["bytes"] = [stream.nbytes() for stream in streams.values()]
    passed = all(0.8 <= row["ratio"] <= 1.2 and len(set(row["bytes"])) == 1 for row in found.values())
    said = "; ".join(f"{n} {r['ms after 256']:.2f} and {r['ms after 4096']:.2f} ms" for n, r in found.items())
    note = "" if passed else "Another program may have taken part of the machine's time."
    return Measured(found, passed, f"median of {ROUNDS} tokens after 256 and after 4096: {said}", note=note)


@torch.inference_mode()
def _fed(model: Model, tokens: int) -> Any:
    stream = model.new_state(1, tokens + ROUNDS + 1)
    model(torch.randint(0, 1024, (1, tokens)), state=stream)
    return stream


@check
def training_speed(seed: int, progress: Progress) -> Measured:
    """Forward and backward of 512 tokens: chunks against the loop over tokens, and Mamba-2 against Mamba.

    Sizes are those of a layer of the 130M models: 1536 channels of 16 numbers, 24 heads of 128 x 64.
    """
    L, N, P, H, D = 512, 128, 64, 24, 1536
    first = (
        torch.randn(1, L, 1, D), 0.1 * torch.rand(1, L, 1, D), -16 * torch.rand(1, 16, D), torch.randn(1, L, 1, 16),
        torch.randn(1, L, 1, 16), torch.zeros(1, 1, 16, D),
    )  # fmt: skip
    second = (
        torch.randn(1, L, H, P), -torch.rand(1, L, H), torch.randn(1, L, 1, N), torch.randn(1, L, 1, N),
        torch.zeros(1, H, N, P),
    )  # fmt: skip
    runs = {
        "mamba in chunks": (scan.chunked, first),
        "mamba2 in chunks": (duality.chunked, second),
        "mamba by tokens": (scan.reference, first),
        "mamba2 by tokens": (duality.reference, second),
    }
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(4):
        progress(f"turn {turn + 1} of 4")
        for name, (form, inputs) in runs.items():
            leaves = [x.requires_grad_() for x in inputs]
            best[name] = min(best[name], _seconds(_learn, form, leaves))
    found = {name: 1e3 * seconds for name, seconds in best.items()}
    ratios = [found[f"{n} by tokens"] / found[f"{n} in chunks"] for n in ("mamba", "mamba2")]
    between = found["mamba in chunks"] / found["mamba2 in chunks"]
    said = (
        f"chunks are {ratios[0]:.1f} and {ratios[1]:.1f} times as fast as tokens one by one (Mamba, Mamba-2); "
        f"Mamba-2's recurrence is {between:.1f} times as fast as Mamba's, with a state of 8 times the size"
    )
    value = {f"{name} ms": ms for name, ms in found.items()}
    return Measured(value, min(*ratios, between) > 1, said, "Mamba-2 2 to 8 times as fast on a GPU")


def _learn(form: Callable[..., tuple[Tensor, Tensor]], leaves: list[Tensor]) -> None:
    y, state = form(*leaves)
    torch.autograd.grad((y, state), leaves, (torch.ones_like(y), torch.ones_like(state)))


def _seconds(work: Callable[..., object], *args: Any, **kwargs: Any) -> float:
    start = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - start
