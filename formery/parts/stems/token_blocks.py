"""The small blocks between soft splits (T2T-ViT, arXiv 2101.11986, section 3.1): they narrow wide tokens.

Norm, one head of attention, norm, MLP. What comes out is narrower than what goes in, so the first residual is taken
from the values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Context
from ...ops.linear_attention import linear_attention
from ...ops.random_features import orthogonal_rows, positive_features
from ..channels.mlp import MLP
from ..dense import Dense
from ..norms.layer import Layer
from ..part import Part

EPS = 1e-8
"""Added to the sum of a query's weights."""


class TokenBlock(Part):
    """Tokens (B, N, wide) to (B, N, dim); with `dropout` on what attention and MLP add."""

    neighbours = (("norms.0", "qkv"), ("norms.1", "mlp.expand"))

    def __init__(self, wide: int, dim: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.dim, self.dropout = dim, dropout
        self.norms = nn.ModuleList([Layer(wide), Layer(dim)])
        self.qkv = Dense(wide, 3 * dim, bias=bias)
        self.out = Dense(dim, dim)
        self.mlp = MLP(dim, hidden=dim)

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What tokens get from all tokens, (B, N, dim)."""
        raise NotImplementedError

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x, ctx)).split(self.dim, dim=-1)
        y = v + self._dropped(self.out(self.attended(q, k, v)))
        return y + self._dropped(self.mlp(self.norms[1](y, ctx)))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class TokenTransformer(TokenBlock):
    """Softmax attention, quadratic in the tokens; its scores are scaled by the width of what comes in, as released."""

    def __init__(self, wide: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__(wide, dim, bias=False, dropout=dropout)
        self.scale = wide**-0.5

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x[:, None] for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)[:, 0]


class TokenPerformer(TokenBlock):
    """Attention by random features, linear in the tokens (arXiv 2009.14794); scores are not scaled.

    `draws` holds the random rows of the features: frozen, saved with the weights, drawn anew by `redraw` alone.
    `stabilise` keeps large exponents from overflowing, which changes nothing but rounding.
    """

    frozen = ("draws",)

    def __init__(
        self, wide: int, dim: int, *, features: int = 32, stabilise: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__(wide, dim, bias=True, dropout=dropout)
        self.stabilise = stabilise
        self.draws = nn.Parameter(torch.empty(features, dim), requires_grad=False)
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Other random rows: orthogonal, of length sqrt(features) as in the authors' code."""
        if not self.draws.is_meta:
            count, dim = self.draws.shape
            self.draws.copy_(orthogonal_rows(count, dim, generator) * count**0.5)

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, by_query = positive_features(q, self.draws, within=(-1,) if self.stabilise else ())
        keys, by_keys = positive_features(k, self.draws, within=(-2, -1) if self.stabilise else ())
        eps = EPS * (by_query + by_keys).clamp(min=-80).neg().exp() if self.stabilise else EPS
        return linear_attention(queries, keys, v, eps)
