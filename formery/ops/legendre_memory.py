"""The Legendre memory (LMU, Voelker et al. 2019): a fixed linear state space that holds the last `theta` inputs.

m_t = A m_{t-1} + B u_t, with A and B the zero-order hold (step 1) of dm/dt = A' m + B' u, where for i, j = 0, 1, ...
A'_ij = (2i + 1) / theta * (-1 if i < j else (-1)^(i - j + 1)) and B'_i = (2i + 1) / theta * (-1)^i. The `order` numbers
of a memory are the window's coordinates in shifted Legendre polynomials: u(t - theta r) is about sum_i P_i(2r - 1) m_i.

Shapes: u (B, L, D), each of D inputs with a memory of its own; memories (B, D, order), None for zeros. Every form
returns the memory after each token (B, L, D, order) and after the last (B, D, order), in the promotion of the inputs'
dtype with float32, computes in the tables' dtype, and changes none of its inputs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from .forms import without_autocast
from .profiled import SCAN, profiled

LOG_CHUNK = 7
CHUNK = 2**LOG_CHUNK
"""Tokens that one convolution goes over; longer rows are cut, and their pieces joined by a recurrence."""
LOG_EXPORTED = 5


class Tables(NamedTuple):
    """The fixed tensors of a memory."""

    powers: Tensor
    """(LOG_CHUNK + 1, order, order) A to the powers 1, 2, 4, ..., CHUNK."""
    impulse: Tensor
    """(CHUNK, order) A^t B for t = 0, 1, ...: what one input of 1 leaves in the memory."""


def continuous(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """A' (order, order) and B' (order,) of the differential equation, float64."""
    at = torch.arange(order, dtype=torch.float64, device="cpu")
    scale = (2 * at + 1) / theta
    i, j = at[:, None], at[None, :]
    sign = torch.where(i < j, -1.0, 1 - 2 * ((i - j + 1) % 2))
    return scale[:, None] * sign, scale * (1 - 2 * (at % 2))


def discrete(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """A (order, order) and B (order,) of the recurrence, float64: the exponential of both in one matrix."""
    a, b = continuous(order, theta)
    joined = torch.zeros(order + 1, order + 1, dtype=torch.float64, device="cpu")
    joined[:order, :order], joined[:order, order] = a, b
    exponential = torch.linalg.matrix_exp(joined)
    return exponential[:order, :order].clone(), exponential[:order, order].clone()


@lru_cache(maxsize=4)
def tables(order: int, theta: float) -> Tables:
    """The tables in float64: in float32 the powers of a large A would drift."""
    power, impulse = discrete(order, theta)
    impulse, powers = impulse[None], [power]
    for _ in range(LOG_CHUNK):
        impulse = torch.cat([impulse, impulse @ power.mT])
        power = power @ power
        powers.append(power)
    return Tables(torch.stack(powers), impulse)


def reference(u: Tensor, tables: Tables, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token after another: the definition."""
    A, B = tables.powers[0], tables.impulse[0]
    m = _start(u, tables, memory)
    found = []
    for t in range(u.shape[1]):
        m = m @ A.mT + u[:, t, :, None].to(m.dtype) * B
        found.append(m)
    return torch.stack(found, dim=1) if found else _none(u, m), m


@profiled(SCAN)
def legendre_memory(u: Tensor, tables: Tables, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fastest form. Inside `torch.autocast` as outside: nothing is rounded to its dtype."""
    return without_autocast(u, lambda: _fastest(u, tables, memory))


def _fastest(u: Tensor, tables: Tables, memory: Tensor | None) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_exporting():
        return exported(u, tables, memory)
    if u.shape[1] <= 1:
        return reference(u, tables, memory)
    return chunked(u, tables, memory)


def chunked(u: Tensor, tables: Tables, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """By Fourier transform within pieces of CHUNK tokens; a recurrence over the pieces, L / CHUNK steps."""
    length = u.shape[1]
    S = _start(u, tables, memory)
    u = u.to(S.dtype)
    if length <= CHUNK:
        found = by_fft(u, tables)
        if memory is not None:
            found = found + trajectory(S[:, None], tables, length)[:, 0]
        return found, found[:, -1]
    pieces = F.pad(u, (0, 0, 0, -length % CHUNK)).unflatten(1, (-1, CHUNK))
    found = by_fft(pieces.flatten(0, 1), tables).unflatten(0, pieces.shape[:2])  # (B, pieces, CHUNK, D, order)
    before, leap = [], tables.powers[-1].mT
    for ends in found[:, :, -1].unbind(1):
        before.append(S)
        S = S @ leap + ends
    found = (found + trajectory(torch.stack(before, dim=1), tables, CHUNK)).flatten(1, 2)[:, :length]
    return found, found[:, -1]


def by_fft(u: Tensor, tables: Tables) -> Tensor:
    """Memories (B, L, D, order) of at most CHUNK tokens after nothing: the inputs' convolution with the impulse."""
    length = u.shape[1]
    size = 2 * length
    inputs = torch.fft.rfft(u, size, dim=1)
    response = torch.fft.rfft(tables.impulse[:length], size, dim=0)
    return torch.fft.irfft(inputs[..., None] * response[:, None], size, dim=1)[:, :length]


def trajectory(memory: Tensor, tables: Tables, length: int) -> Tensor:
    """(B, N, length, D, order): memories (B, N, D, order) left alone for 1, 2, ..., length tokens, by doubling."""
    found, num = (memory @ tables.powers[0].mT)[:, :, None], 1
    while num < length:
        found = torch.cat([found, found @ tables.powers[num.bit_length() - 1].mT], dim=2)
        num *= 2
    return found[:, :, :length]


def exported(u: Tensor, tables: Tables, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`reference` of products of matrices and a `scan`, for `torch.export` and ONNX with a free length of at least 1.

    The number of pieces is one more than needed, so that no length is a special case.
    """
    length, size = u.shape[1], 2**LOG_EXPORTED
    num = (length + size - 1) // size + 1
    S = _start(u, tables, memory)
    u = F.pad(u.to(S.dtype), (0, 0, 0, num * size - length))
    steps = torch.arange(size, device=u.device)
    pieces = u[:, torch.arange(num, device=u.device)[:, None] * size + steps]  # (B, num, size, D)
    late = steps - steps[:, None]
    response = tables.impulse[late.clamp(min=0)] * (late >= 0)[..., None]
    found = torch.einsum("bnsd,stq->bntdq", pieces, response)
    leap = tables.powers[LOG_EXPORTED].mT

    def body(S: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        return S @ leap + ends, S.clone()

    _, before = scan(body, S, found[:, :, -1].transpose(0, 1).contiguous())
    found = found + trajectory(before.transpose(0, 1), tables, size)
    found = found.flatten(1, 2).index_select(1, torch.arange(length, device=u.device))
    return found, found[:, -1]


def _start(u: Tensor, tables: Tables, memory: Tensor | None) -> Tensor:
    dtype = torch.promote_types(torch.promote_types(u.dtype, torch.float32), tables.impulse.dtype)
    if memory is None:
        return u.new_zeros(u.shape[0], u.shape[2], tables.impulse.shape[1], dtype=dtype)
    return memory.to(dtype)


def _none(u: Tensor, memory: Tensor) -> Tensor:
    return memory[:, None].expand(-1, u.shape[1], -1, -1)


def readout(order: int, delays: Tensor) -> Tensor:
    """(order, *delays.shape) weights that read u(t - theta r) from the memory for `delays` r in 0 to 1: P_i(2r - 1)."""
    x = 2 * delays.double() - 1
    rows = [torch.ones_like(x), x]
    for n in range(1, order - 1):
        rows.append(((2 * n + 1) * x * rows[n] - n * rows[n - 1]) / (n + 1))
    return torch.stack(rows[:order])


def macs(batch: int, length: int, inputs: int, order: int) -> int:
    """Multiply-accumulates of the recurrence, whatever form computes it."""
    return batch * length * inputs * order * (order + 1)
