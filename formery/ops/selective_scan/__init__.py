"""The selective scan: Mamba (arXiv 2312.00752), equation 2 with algorithm 2's discretisation as released.

    S_t = exp(dt_t A) S_{t-1} + b_t (dt_t u_t)^T,   y_t = S_t^T c_t

Each number of the state decays at a rate of its own, A < 0, times the step dt of its channel; b is discretised by
Euler's rule, as the released code does. Shapes: u, dt (B, L, G, D), dt >= 0; A (G, N, D); b, c (B, L, G, N), shared by
the D channels of each of G groups (one in Mamba; one a direction in scans of images); states (B, G, N, D), channels
last. Every form returns y (B, L, G, D) in u's dtype and the last state (float32 at least, whatever the inputs),
computes in the state's dtype, and changes none of its inputs. Steps (softplus), the skip D u and the gate are the
caller's. Where dt is 0, a token neither decays nor writes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import backend
from ..forms import may_overwrite, one, transformed, without_autocast
from ..profiled import SCAN, profiled
from .chunked import chunked
from .compiled import compiled
from .reference import reference, step
from .traced import differentiable, exported

__all__ = ["chunked", "compiled", "differentiable", "exported", "macs", "reference", "selective_scan", "step"]


@profiled(SCAN)
def selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None, *, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """The fastest form for these inputs where they are used; `state` None means zeros.

    `overwrite` gives the state's memory away: where no gradient passes, a single token's next state is put there.
    Inside `torch.autocast` as outside: the inputs' dtypes say what is computed in, and the state is not rounded.
    """
    if state is None:
        state = u.new_zeros(u.shape[0], *A.shape, dtype=torch.promote_types(u.dtype, torch.float32))
    return without_autocast(u, lambda: _fastest(u, dt, A, b, c, state, overwrite))


def _fastest(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, overwrite: bool
) -> tuple[Tensor, Tensor]:
    if transformed():
        return differentiable(u, dt, A, b, c, state)
    if one(u.shape[1]):
        overwrite = overwrite and may_overwrite(state, u, dt, A, b, c)
        y, state = step(u[:, 0], dt[:, 0], A, b[:, 0], c[:, 0], state, overwrite=overwrite)
        return y[:, None], state
    if torch.compiler.is_exporting():
        return exported(u, dt, A, b, c, state)
    if torch.compiler.is_compiling():
        return compiled(u, dt, A, b, c, state)
    if backend.takes_kernels(u, dt, A, b, c, state, fits=A.shape[1] <= backend.NUMBERS):
        from .fused import fused

        return fused(u, dt, A, b, c, state)
    return (reference if backend.mode() == "reference" else chunked)(u, dt, A, b, c, state)


def macs(batch: int, length: int, channels: int, state: int) -> int:
    """Multiply-accumulates of the recurrence, whatever form computes it.

    Each token writes to the state of every channel and reads it: two products with a vector of `state` numbers. The
    decay only scales the state, which is no multiply-accumulate.
    """
    return batch * length * channels * 2 * state
