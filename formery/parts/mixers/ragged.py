"""Rows of different lengths: padding moved out of the way, packed sequences laid out as rows, tails kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...context import Context, State
from ...ops.short_convolution import short_convolution


def compacted(x: Tensor, padding: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Each row's real tokens first, so that what runs along a row sees them as neighbours.

    x (B, L, C), padding (B, L). Returns the rows with zeros for padding, the lengths (B,), and what undoes the move.
    """
    order = padding.long().argsort(dim=1, stable=True)
    moved = torch.gather(x.masked_fill(padding[..., None], 0), 1, order[..., None].expand_as(x))
    back = order.argsort(dim=1)
    return moved, (~padding).sum(1), lambda y: torch.gather(y, 1, back[..., None].expand(-1, -1, y.shape[-1]))


def last_tokens(past: Tensor, x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last k tokens of past (B, k, C) and row together: x (B, L, C), of which the first `lengths` (B,) count."""
    keep = past.shape[1]
    together = torch.cat([past, x.to(past.dtype)], dim=1)
    if lengths is None:
        return together[:, together.shape[1] - keep :]
    index = lengths[:, None] + torch.arange(keep, device=x.device)
    return torch.gather(together, 1, index[..., None].expand(-1, -1, x.shape[-1]))


Rows = Callable[[Tensor, Context, State | None, Tensor | None], Tensor]
"""(x (B, L, C), ctx, state, lengths (B,) of the tokens that count or None for all of them) -> (B, L, C)."""


def along_rows(rows: Rows, x: Tensor, ctx: Context, state: State | None) -> Tensor:
    """What `rows` makes of x, which may be padded at either end or packed: its tokens stand first in rows of their own
    there, and the context says nothing of padding any more."""
    if ctx.bounds is not None:
        return by_sequence(lambda x, ctx: along_rows(rows, x, ctx, None), x, ctx)
    if ctx.padding is None:
        return rows(x, ctx, state, None)
    moved, lengths, undo = compacted(x, ctx.padding)
    places = ctx.positions
    if places is not None:  # they move with their tokens
        places = compacted(places.expand(x.shape[:2])[..., None], ctx.padding)[0][..., 0]
    return undo(rows(moved, ctx.but(padding=None, key_padding=None, positions=places, memo=None), state, lengths))


def real(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, L) True for the first `lengths` (B,) tokens of rows x (B, L, ...)."""
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def carried_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    state: State | None,
    lengths: Tensor | None,
    slot: str = "tail",
) -> Tensor:
    """`short_convolution` of rows x (B, L, C) whose last inputs stay in a slot of the state."""
    if state is None:
        return short_convolution(x, weight, bias)[0]
    tail = state.slot(slot)
    past = tail.value
    y, new = short_convolution(x, weight, bias, past)
    tail.put(new if lengths is None else last_tokens(past, x, lengths))
    return y


def by_sequence(mixer: Callable[[Tensor, Context], Tensor], x: Tensor, ctx: Context) -> Tensor:
    """Run a mixer over packed sequences (1, L, C) as over rows of their own: nothing passes from one to the next."""
    assert ctx.bounds is not None
    starts, lengths = ctx.bounds[:-1], ctx.bounds.diff()
    steps = torch.arange(int(lengths.max()), device=x.device)
    padding = steps >= lengths[:, None]
    index = (starts[:, None] + steps).clamp(max=x.shape[1] - 1)
    positions = None if ctx.positions is None else ctx.positions.reshape(-1)[index]
    rows = ctx.but(bounds=None, padding=padding, key_padding=padding, positions=positions, memo=None)
    return mixer(x[0][index], rows)[~padding][None]
