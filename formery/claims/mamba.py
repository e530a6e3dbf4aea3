"""Claims of Mamba and Mamba-2 that need no training and no clock; others: `mamba_learning`, `mamba_speed`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..create import create_model
from ..ops import selective_scan as scan
from ..ops import state_space_duality as duality
from .check import Measured, Progress, check
from .comparing import BARS, relative, scores_in_pieces
from .figures import counted
from .mamba_learning import induction, selective_copying
from .mamba_speed import decode_cost, training_speed

__all__ = [
    "convolution", "decode_cost", "figures", "induction", "linear_attention", "selective_copying", "splits", "state",
    "training_speed",
]  # fmt: skip

LENGTH = 70


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("mamba", progress)


@check
def splits(seed: int, progress: Progress) -> Measured:
    """Both operators in chunks of 1, 7, 16 and all tokens against their definitions; models' scores in such pieces."""
    worst: dict[str, float] = {}
    for dtype in BARS:
        kind = str(dtype).removeprefix("torch.")
        for name, op, inputs in (
            ("selective scan", scan, scan_inputs(dtype)),
            ("duality", duality, duality_inputs(dtype)),
        ):
            progress(f"{name} {kind}")
            wanted = op.reference(*inputs)
            for chunk in (1, 7, 16, LENGTH):
                found = op.chunked(*inputs, chunk=chunk)
                error = max(relative(a, b) for a, b in zip(found, wanted, strict=True))
                worst[f"{name} {kind}"] = max(worst.get(f"{name} {kind}", 0.0), error)
        for name in ("mamba_tiny", "mamba2_tiny"):
            progress(f"{name} {kind}")
            worst[f"{name} {kind}"] = scores_in_pieces(name, dtype, (1, 7, 16, LENGTH), length=LENGTH)
    passed = all(error <= BARS[torch.float32 if "32" in name else torch.float64] for name, error in worst.items())
    said = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    return Measured(worst, passed, f"largest differences of the scale: {said}")


def scan_inputs(dtype: torch.dtype, length: int = LENGTH) -> tuple[Tensor, ...]:
    """u, dt, A, b, c and a state as the mixer makes them."""
    B, N, D = 2, 8, 24
    u, raw = (torch.randn(B, length, 1, D, dtype=dtype) for _ in range(2))
    b, c = (torch.randn(B, length, 1, N, dtype=dtype) for _ in range(2))
    A = -torch.arange(1, N + 1, dtype=dtype)[None, :, None].expand(1, N, D) * (1 + torch.rand(1, N, D, dtype=dtype))
    return u, F.softplus(raw - 2), A, b, c, torch.randn(B, 1, N, D, dtype=dtype)


def duality_inputs(dtype: torch.dtype, length: int = LENGTH) -> tuple[Tensor, ...]:
    """x, g, b, c and a state as the mixer makes them, two groups of heads."""
    B, H, G, N, P = 2, 4, 2, 8, 16
    x, g = torch.randn(B, length, H, P, dtype=dtype), -F.softplus(torch.randn(B, length, H, dtype=dtype))
    b, c = (torch.randn(B, length, G, N, dtype=dtype) for _ in range(2))
    return x, g * 4 * torch.rand(H, dtype=dtype), b, c, torch.randn(B, H, N, P, dtype=dtype)


@check
def linear_attention(seed: int, progress: Progress) -> Measured:
    """The duality without decay against sums of values weighted by products of vectors."""
    x, g, b, c, state = duality_inputs(torch.float32)
    heads = [vectors.repeat_interleave(2, dim=2).transpose(1, 2) for vectors in (c, b)]
    wanted = ((heads[0] @ heads[1].mT).tril() @ x.transpose(1, 2)).transpose(1, 2)
    without = relative(duality.state_space_duality(x, torch.zeros_like(g), b, c, torch.zeros_like(state))[0], wanted)
    decays = relative(duality.state_space_duality(x, g, b, c, torch.zeros_like(state))[0], wanted)
    said = f"difference {without:.1e} of the scale; {decays:.2f} with the decays"
    return Measured({"without decay": without, "with decay": decays}, without <= 1e-5 < 0.01 < decays, said)


@check
def convolution(seed: int, progress: Progress) -> Measured:
    """The selective scan with constant steps and vectors against a convolution with its response, by FFT."""
    u, dt, A, b, c, state = scan_inputs(torch.float32, 256)
    found = {}
    for name, inputs in (("constant", [x[:1, :1].expand(*u.shape[:2], *x.shape[2:]) for x in (dt, b, c)]),
                         ("selective", [dt, b, c])):  # fmt: skip
        steps, writes, reads = inputs
        y = scan.selective_scan(u, steps, A, writes, reads, torch.zeros_like(state))[0][:, :, 0]
        found[name] = relative(y, by_fft(u[:, :, 0], steps[0, 0, 0], A[0], writes[0, 0, 0], reads[0, 0, 0]))
    said = f"difference {found['constant']:.1e} of the scale; {found['selective']:.2f} where the token chooses"
    return Measured(found, found["constant"] <= 1e-5 < 0.01 < found["selective"], said)


def by_fft(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """u (B, L, D) convolved with the response sum_n c_n exp(t dt A_n) dt b_n of steps dt (D,), A (N, D), b, c (N,)."""
    length = u.shape[1]
    wide = dt.double()
    powers = torch.arange(length, dtype=torch.float64)[:, None, None] * wide * A.double()
    kernel = ((c * b).double()[:, None] * powers.exp()).sum(1) * wide
    product = torch.fft.rfft(u.double(), 2 * length, 1) * torch.fft.rfft(kernel, 2 * length, 0)
    return torch.fft.irfft(product, 2 * length, 1)[:, :length].to(u.dtype)


@check
def state(seed: int, progress: Progress) -> Measured:
    """Bytes of the whole states of the smallest published sizes, for 1 token and for 65,536."""
    found: dict[str, Any] = {}
    for name, numbers in (("mamba_130m", 1536 * (16 + 3)), ("mamba2_130m", 24 * 128 * 64 + 3 * (1536 + 2 * 128))):
        with torch.device("meta"):
            model = create_model(name)
        found[name] = [model.new_state(1, tokens).nbytes() for tokens in (1, 65536)]
        found[f"{name} numbers"] = 24 * numbers
    passed = all(found[n] == [4 * found[f"{n} numbers"]] * 2 for n in ("mamba_130m", "mamba2_130m"))
    said = ", ".join(f"{n} {found[n][0] / 2**20:.1f} MiB" for n in ("mamba_130m", "mamba2_130m"))
    note = "transformers keeps four columns of the convolution's input, the last of which the next token pushes out."
    return Measured(found, passed, f"{said} in float32, for 1 token and for 65,536", note=note)
