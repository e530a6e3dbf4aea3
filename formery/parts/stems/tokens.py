"""Token numbers to vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Context
from ...errors import CannotRun
from .stem import Stem


class Tokens(Stem):
    """A learned vector for each of `vocab` tokens, times `scale`. (B, L) whole numbers in, or vectors (B, L, dim) that
    stand for the learned ones.

    `length` is the longest sequence that parts bound to one may be asked for; 0 where nothing is bound.
    """

    EXAMPLES = ({"dim": 8, "vocab": 16},)
    unseen = ("scale",)
    modality = "text"
    undecayed = ("embed.weight",)
    first, table = None, "embed"
    writes = ("embed",)

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        vocab: Annotated[int, Field(gt=0)],
        length: Annotated[int, Field(ge=0)] = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.vocab, self.scale = dim, vocab, scale
        self.grid = (length,)
        self.embed = nn.Embedding(vocab, dim)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        if inputs.is_floating_point() and inputs.dim() == 3 and inputs.shape[-1] == self.dim:
            return inputs if self.scale == 1.0 else inputs * self.scale, ctx
        x = looked_up(inputs, self.vocab, lambda ids: F.embedding(ids, self.embed.weight))
        return x if self.scale == 1.0 else x * self.scale, ctx


def looked_up(tokens: Tensor, vocab: int, table: Callable[[Tensor], Tensor]) -> Tensor:
    """`table` of tokens (B, L); CannotRun where they are none of its `vocab`."""
    if tokens.dtype not in (torch.int64, torch.int32):
        raise CannotRun(f"tokens are whole numbers (int64), got {tokens.dtype}")
    if tokens.dim() != 2:
        raise CannotRun(f"tokens are (batch, length), got {tuple(tokens.shape)}")
    try:
        return table(tokens)
    except IndexError:
        raise CannotRun(f"tokens are 0 to {vocab - 1} here, got {int(tokens.min())} to {int(tokens.max())}") from None
