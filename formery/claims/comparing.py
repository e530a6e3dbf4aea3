"""What checks compare: tensors by their scale, a stream with the whole, a net with others of its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..create import create_model

BARS = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Differences of the scale that rounding explains, by what is computed in."""

CUTS = ([70], [64, 6], [1, 33, 36], [54, *[1] * 16])
"""Of 70 tokens: at the end of a recurrence's chunk of 64, amid it, and one by one."""


def relative(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, of the largest value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def scores_in_pieces(
    name: str, dtype: torch.dtype, cuts: Iterable[int | Sequence[int]] = CUTS, *, length: int = 70, noise: float = 0.02
) -> float:
    """How far the scores of a model over bytes, fed in pieces, are from those of the whole, at the worst of the cuts.

    A cut is the size of all pieces, or of each. Weights are moved by `noise` before, so that zeros hide nothing.
    """
    model = create_model(name).to(dtype).eval()
    ids = torch.randint(0, 256, (2, length))
    worst = 0.0
    with torch.no_grad():
        if noise:
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
        whole = model(ids)
        for cut in cuts:
            state = model.new_state(2, length)
            pieces = [model(piece, state=state) for piece in ids.split(cut, dim=1)]
            worst = max(worst, relative(torch.cat(pieces, dim=1), whole))
    return worst
