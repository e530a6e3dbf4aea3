"""A convolution over words, and every other of its outputs a token (CCT's text models, arXiv 2104.05704)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Context
from ...errors import CannotRun
from ..activations import ACTIVATIONS, Activation
from ..mixers.ragged import compacted, real
from .stem import Stem
from .tokens import looked_up


class WordConvs(Stem):
    """A vector of `words` channels for each of `vocab` words, a convolution of `size` words to the width, an
    activation, and the maximum of two neighbours with stride 2. Word numbers (B, L) in; the context that comes out is
    of tokens.

    `length` is the longest text. A padded row gives its words' tokens first, the same that its words alone give, and
    padding behind them (the authors' own masks fail in their code).
    """

    EXAMPLES = (
        {"dim": 8, "vocab": 16, "words": 6},
        {"dim": 8, "vocab": 16, "words": 6, "size": 3, "activation": "gelu"},
    )
    unseen = ("activation",)
    modality = "text"
    stride = 2
    first, table = None, "embed"
    undecayed = ("embed.weight",)

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        vocab: Annotated[int, Field(gt=0)],
        words: Annotated[int, Field(gt=0)] = 300,
        size: Annotated[int, Field(gt=0)] = 4,
        activation: Activation = "relu",
        length: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        self.dim, self.vocab, self.size = dim, vocab, size
        self.activation: Activation = activation
        self.grid = (self.tokens_of(length) if length else 0,)
        self.embed = nn.Embedding(vocab, words)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.conv = nn.Conv1d(words, dim, size, padding=size // 2, bias=False)

    def _outputs_of(self, length: int) -> int:
        """Of the convolution over so many words."""
        return length + 2 * (self.size // 2) - self.size + 1

    def tokens_of(self, length: int) -> int:
        """How many tokens so many words make."""
        return self._outputs_of(length) // 2 + 1

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        if ctx.bounds is not None:
            raise CannotRun("packed texts have no borders between the tokens of this stem; give each a row")
        x = looked_up(inputs, self.vocab, lambda ids: F.embedding(ids, self.embed.weight))
        lengths: Tensor | None = None
        if ctx.padding is not None:
            x, lengths, _ = compacted(x, ctx.padding)
        y = ACTIVATIONS[self.activation](self.conv(x.mT))  # (B, C, L')
        if lengths is not None:  # what a row alone does not have is no neighbour of its last words
            outside = ~real(y.mT, lengths + 2 * (self.size // 2) - self.size + 1)
            y = y.masked_fill(outside[:, None], -torch.inf)
        tokens = F.max_pool1d(y, 2, 2, 1).mT
        if lengths is None:
            return tokens, ctx.but(positions=None)
        padding = ~real(tokens, (lengths + 2 * (self.size // 2) - self.size + 1) // 2 + 1)
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand(padding.shape)
        positions = positions.masked_fill(padding, 0)
        tokens = tokens.masked_fill(padding[..., None], 0.0)
        return tokens, ctx.but(padding=padding, key_padding=padding, positions=positions)
