"""Any mixer on any grid: sequence mixers read a map row by row, map mixers leave prefix tokens alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import registry
from ...context import Context, State
from ...errors import BadSpec, CannotRun
from .mixer import Mixer


def check_grid(mixer: Mixer, rank: int, name: str) -> None:
    """BadSpec unless `mixer` can work on a grid of `rank` axes, directly or row by row."""
    if rank and rank not in mixer.grids and 1 not in mixer.grids:
        ranks = " or ".join(f"{r}-D" for r in mixer.grids)
        raise BadSpec(f"mixer {name!r} works on {ranks} grids, here the grid is {rank}-D; choose another mixer")


def check_bound(mixer: Mixer, x: Tensor, grid: tuple[int, ...]) -> None:
    """CannotRun unless tokens (B, *grid, C) stand on the grid that a mixer's biases are bound to."""
    found = tuple(x.shape[1:-1])
    if not torch.compiler.is_compiling() and found != grid:
        what = " x ".join(map(str, grid))
        raise CannotRun(
            f"{registry.name_of('mixer', type(mixer))} is bound to {torch.Size(grid).numel()} tokens ({what}), got "
            f"{' x '.join(map(str, found))}; set img_size"
        )


def on_grid(mixer: Mixer, x: Tensor, ctx: Context, state: State | None) -> Tensor:
    """`mixer(x)` of x (B, *grid, C), or (B, prefix + tokens, C) with ctx.grid and ctx.prefix saying what is what."""
    flat = x.dim() == 3 and len(ctx.grid) > 1
    if flat and mixer.sees_prefix:
        return mixer(x, ctx, state)
    if flat and 1 not in mixer.grids:
        tokens = x[:, ctx.prefix :].unflatten(1, ctx.grid)
        mixed = mixer(tokens, ctx.but(grid=(), prefix=0), state).flatten(1, -2)
        return F.pad(mixed, (0, 0, ctx.prefix, 0))
    if x.dim() - 2 not in mixer.grids:
        grid = tuple(x.shape[1:-1])
        return mixer(x.flatten(1, -2), ctx.but(grid=grid), state).unflatten(1, grid)
    return mixer(x, ctx, state)
