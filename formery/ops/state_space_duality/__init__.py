"""State space duality: Mamba-2 (arXiv 2405.21060); linear attention with one decay a head and token.

    S_t = exp(g_t) S_{t-1} + b_t x_t^T,   y_t = S_t^T c_t

Shapes: x (B, L, H, P); g (B, L, H) with g <= 0 the log decay; b, c (B, L, G, N), each group shared by H / G heads in
a row; states (B, H, N, P). Every form returns y (B, L, H, P) in x's dtype and the last state (float32 at least,
whatever the inputs), computes in the state's dtype, and changes none of its inputs. Mamba-2 hands in x times its step
and g = step times rate; steps, the skip D x, gate and norm are the caller's. Where x and g are 0, a token neither
decays nor writes. Without decay this is causal linear attention without a denominator.
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

__all__ = ["chunked", "compiled", "differentiable", "exported", "macs", "reference", "state_space_duality", "step"]


@profiled(SCAN)
def state_space_duality(
    x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None, *, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """The fastest form for these inputs where they are used; `state` None means zeros.

    `overwrite` gives the state's memory away: where no gradient passes, a single token's next state is put there.
    Inside `torch.autocast` as outside: the inputs' dtypes say what is computed in, and the state is not rounded.
    """
    if state is None:
        dtype = torch.promote_types(x.dtype, torch.float32)
        state = x.new_zeros(x.shape[0], x.shape[2], b.shape[-1], x.shape[-1], dtype=dtype)
    return without_autocast(x, lambda: _fastest(x, g, b, c, state, overwrite))


def _fastest(x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, overwrite: bool) -> tuple[Tensor, Tensor]:
    if transformed():
        return differentiable(x, g, b, c, state)
    if one(x.shape[1]):
        overwrite = overwrite and may_overwrite(state, x, g, b, c)
        y, state = step(x[:, 0], g[:, 0], b[:, 0], c[:, 0], state, overwrite=overwrite)
        return y[:, None], state
    if torch.compiler.is_exporting():
        return exported(x, g, b, c, state)
    if torch.compiler.is_compiling():
        return compiled(x, g, b, c, state)
    if backend.takes_kernels(x, g, b, c, state):
        from .fused import fused

        return fused(x, g, b, c, state)
    return (reference if backend.mode() == "reference" else chunked)(x, g, b, c, state)


def macs(batch: int, length: int, heads: int, state: int, width: int) -> int:
    """Multiply-accumulates of the recurrence, whatever form computes it.

    Each token of a head writes to a state of `state` x `width` numbers and reads it: two such products. The decay only
    scales the state, which is no multiply-accumulate.
    """
    return batch * length * heads * 2 * state * width
