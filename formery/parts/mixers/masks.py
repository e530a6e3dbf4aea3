"""Which tokens an attention's queries may look at, as a mask of what fused attention takes."""

from __future__ import annotations

import torch
from torch import Tensor

from ...context import Context


def places_of(padding: Tensor, *, ranks: bool) -> Tensor:
    """(B, K) place of each token in its row, -1 for padding (B, K): its slot, or how many real tokens precede it."""
    slots = (~padding).cumsum(1) - 1 if ranks else torch.arange(padding.shape[1], device=padding.device)
    return torch.where(padding, -1, slots)


def mask_of(places: Tensor, length: int, *, causal: bool, window: int | None = None) -> Tensor:
    """(B or 1, 1, length, K) True where a query may look.

    `places` (B or 1, K) are those of the keys, of which the last `length` are the queries' own; -1 is no key. A causal
    query sees no later place, and with a `window` only that many, itself included. Padding sees itself, so that no row
    of the mask is empty and no NaN arises.
    """
    keys, queries = places[:, None], places[:, -length:, None]
    visible = keys >= 0
    if causal:
        visible = visible & (keys <= queries)
        if window is not None:
            visible = visible & (keys > queries - window)
    steps = torch.arange(places.shape[1], device=places.device)
    itself = steps == steps[-length:, None]
    return (visible | itself)[:, None]


def attention_mask(
    q: Tensor, k: Tensor, ctx: Context, places: Tensor | None = None, *, causal: bool, window: int | None = None
) -> tuple[Tensor | None, bool]:
    """(mask or None, whether `is_causal` says it all) for queries (B, H, L, D), the last of the keys (B, H, K, D).

    `places` are the keys' where a state knows them (`Seen`); else they follow from their order and from the padding of
    `ctx`. The mask is worked out once a forward.
    """
    length, total = q.shape[2], k.shape[2]
    padding = ctx.key_padding if ctx.key_padding is not None else ctx.padding
    if places is None and padding is None:
        if not causal or (length == 1 and total > 1):
            return None, False
        # The comparison with the window would tie an exported program to short sequences.
        if total == length and (window is None or (not torch.compiler.is_compiling() and total <= window)):
            return None, True

    def make() -> Tensor:
        if places is not None:
            known = places
        elif padding is not None:
            known = places_of(padding, ranks=window is not None)
        else:
            known = torch.arange(total, device=k.device)[None]
        return mask_of(known, length, causal=causal, window=window)

    return ctx.once(("attention mask", causal, window, length, total), make), False
