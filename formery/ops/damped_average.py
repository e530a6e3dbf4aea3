"""The multi-dimensional damped moving average of Mega (arXiv 2209.10655, section 3.1).

Each of C channels is kept in n dimensions: s_t = keep s_{t-1} + write x_t, read as y_t = sum_n read s_t, where
keep = 1 - p a, write = p b and read = c / sqrt(n) of the paper's damping p, decay a, expansion b and projection c. It
is a convolution with the kernel K_l = sum_n read write keep^l.

Shapes: x (B, L, C); keep in (0, 1), write, read (C, n); states (B, C, n), None for zeros. Every form returns
y (B, L, C) in x's dtype and the last state, float32 at least, computes in the state's dtype, and changes no input.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from .forms import without_autocast
from .profiled import SCAN, profiled

EXPORTED_CHUNK = 32
PIECE = 4096
"""Tokens whose powers of `keep` are held at once."""


def reference(
    x: Tensor, keep: Tensor, write: Tensor, read: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token after another: the definition."""
    s = _start(x, keep, state)
    outputs = [x[:, :0]]
    for t in range(x.shape[1]):
        s = keep.to(s.dtype) * s + write.to(s.dtype) * x[:, t, :, None].to(s.dtype)
        outputs.append((s * read.to(s.dtype)).sum(-1)[:, None].to(x.dtype))
    return torch.cat(outputs, dim=1), s


@profiled(SCAN)
def damped_average(
    x: Tensor, keep: Tensor, write: Tensor, read: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fastest form. Inside `torch.autocast` as outside: nothing is rounded to its dtype."""
    return without_autocast(x, lambda: _fastest(x, keep, write, read, state))


def _fastest(x: Tensor, keep: Tensor, write: Tensor, read: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_exporting():
        return exported(x, keep, write, read, state)
    if x.shape[1] <= 1:
        return reference(x, keep, write, read, state)
    outputs = []
    for piece in x.split(PIECE, dim=1):
        y, state = by_fft(piece, keep, write, read, state)
        outputs.append(y)
    assert state is not None
    return (torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]), state


def powers(keep: Tensor, length: int) -> Tensor:
    """(C, n, length) keep to the powers 0, 1, 2, ..."""
    steps = torch.arange(length, device=keep.device, dtype=keep.dtype)
    return (keep.log()[..., None] * steps).exp()


def kernel(keep: Tensor, write: Tensor, read: Tensor, length: int) -> Tensor:
    """(C, length) the convolution's kernel."""
    return ((read * write)[..., None] * powers(keep, length)).sum(1)


def by_fft(x: Tensor, keep: Tensor, write: Tensor, read: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All tokens at once: the convolution by Fourier transform of twice the length, what the state still gives beside
    it."""
    s = _start(x, keep, state)
    keep, write, read = (t.to(s.dtype) for t in (keep, write, read))
    length, rows = x.shape[1], x.mT.to(s.dtype)  # (B, C, L)
    faded = powers(keep, length)
    whole = ((read * write)[..., None] * faded).sum(1)
    y = torch.fft.irfft(torch.fft.rfft(rows, 2 * length) * torch.fft.rfft(whole, 2 * length), 2 * length)[..., :length]
    last = torch.einsum("bct,cnt->bcn", rows.flip(-1), faded) * write
    if state is not None:
        y = y + torch.einsum("bcn,cnt->bct", s * (read * keep), faded)
        last = last + s * faded[..., -1] * keep
    return y.mT.to(x.dtype), last


def exported(
    x: Tensor, keep: Tensor, write: Tensor, read: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`reference` of products and a `scan`, for `torch.export` and ONNX with a free length of at least 1.

    The number of pieces is one more than needed, so that no length is a special case; the state returned is that behind
    them, which an exported program has no use for.
    """
    s = _start(x, keep, state)
    keep, write, read = (t.to(s.dtype) for t in (keep, write, read))
    length, size = x.shape[1], EXPORTED_CHUNK
    num = (length + size - 1) // size + 1
    steps = torch.arange(size, device=x.device)
    at = torch.arange(num, device=x.device)[:, None] * size + steps
    rows = F.pad(x.to(s.dtype), (0, 0, 0, num * size - length))[:, at].permute(1, 0, 3, 2).contiguous()
    faded = powers(keep, size)
    late = steps - steps[:, None]  # (from, to)
    within = ((read * write)[..., None] * faded).sum(1)[:, late.clamp(min=0)] * (late >= 0)  # (C, from, to)
    later, whole = (read * keep)[..., None] * faded, faded[..., -1] * keep
    gathered = faded.flip(-1) * write[..., None]

    def body(s: Tensor, piece: Tensor) -> tuple[Tensor, Tensor]:  # piece (B, C, size)
        y = torch.einsum("bct,ctu->bcu", piece, within) + torch.einsum("bcn,cnt->bct", s, later)
        return s * whole + torch.einsum("bct,cnt->bcn", piece, gathered), y

    last, found = scan(body, s, rows)  # (num, B, C, size)
    y = found.permute(1, 0, 3, 2).flatten(1, 2)
    return y.index_select(1, torch.arange(length, device=x.device)).to(x.dtype), last


def _start(x: Tensor, keep: Tensor, state: Tensor | None) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_zeros(x.shape[0], *keep.shape, dtype=dtype) if state is None else state.to(dtype)


def macs(batch: int, length: int, channels: int, dims: int) -> int:
    """Multiply-accumulates of the recurrence: each dimension is kept, written and read."""
    return batch * length * channels * dims * 3
