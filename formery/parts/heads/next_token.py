"""Scores of the next token."""

from __future__ import annotations

from torch import Tensor, nn

from ...context import Context
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..dense import Dense
from .head import Features, Head


class NextToken(Head):
    """Norm, then scores over the vocabulary (the stem's unless given) for each token, (B, L, vocab).

    `tie` shares the stem's table as the weight of the scores. Where the context asks for the last tokens only, no
    others are scored.
    """

    EXAMPLES = ({"vocab": 16}, {"vocab": 16, "norm": "rms", "bias": True})
    unseen = ("tie",)
    scorers = ("scores",)
    causal = True

    def __init__(
        self,
        dim: int,
        *,
        vocab: int | None = None,
        norm: NormSpec | None = "rms",
        bias: bool = False,
        tie: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("head")
        self.tie = tie
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        if vocab is None:
            raise BadSpec("next_token needs a vocab: the stem has none to share")
        self.num_classes = vocab
        self.scores = Dense(dim, self.num_classes, bias=bias)
        nn.init.normal_(self.scores.weight, std=0.02)

    def tie_to(self, table: Tensor) -> None:
        """Share the stem's table (vocab, dim) as the scores' weight; BadSpec where the shapes differ."""
        if table.shape != self.scores.weight.shape:
            raise BadSpec(
                f"tie needs equal vocabularies and widths, got {list(table.shape)} of the stem and "
                f"{list(self.scores.weight.shape)} of the head"
            )
        self.scores.weight = table

    def finish(self, x: Tensor, ctx: Context) -> Tensor:
        if ctx.last is not None:
            x = x[:, max(0, x.shape[1] - ctx.last) :]
        return x if self.norm is None else self.norm(x, ctx)

    def forward(self, features: Features, ctx: Context) -> Tensor:
        return self.scores(features.x)
