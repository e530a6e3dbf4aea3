"""Linear attention (arXiv 2006.16236), by random features too (Performer, arXiv 2009.14794)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import gated_linear_attention as rule
from ...ops import linear_attention as whole
from ...ops.random_features import gaussian_rows, positive_features
from ..dense import Dense
from ..part import idle
from ..widths import shared_width
from .mixer import Causality, Mixer, Splits
from .ragged import along_rows, real
from .recurrent import convolved, fresh_state, memory_of, remember, tap_macs, taps, unit

Feature = Literal["elu", "relu", "unit", "identity", "random"]
TINY = 1e-6


def features(x: Tensor, feature: Feature) -> Tensor:
    """phi(x) of queries and keys."""
    if feature == "elu":
        return F.elu(x) + 1
    if feature == "relu":
        return F.relu(x)
    return unit(x) if feature == "unit" else x


class LinearAttention(Mixer):
    """Attention whose weights are products of features of queries and keys, summed into a memory of constant size.

    `heads` heads with keys of `head_dim` and values of `value_dim` (both together the width unless given). `feature`
    maps queries and keys: elu(x) + 1 as in the paper, relu, to length 1 (unit), not at all, or by `draws` random rows
    to positive features (random), whose products are softmax attention's weights on average (the rows are saved, never
    learned; `redraw` makes others). `normalise` divides by the sum of the weights, which takes features that are not
    negative; otherwise queries are divided by sqrt(head_dim). `conv` taps of a causal convolution and SiLU may stand
    before q, k and v. Nothing is forgotten. Where `causal` is false every token sees all, in both directions.
    """

    EXAMPLES = (
        {"heads": 4},
        {"heads": 3, "head_dim": 4, "value_dim": 5, "feature": "unit", "normalise": False, "conv": 3},
        {"heads": 2, "feature": "identity", "normalise": False},
        {"heads": 2, "feature": "random", "draws": 12},
        {"heads": 2, "causal": False},
        {"heads": 2, "feature": "random", "draws": 12, "causal": False},
    )
    unseen = ("heads",)
    grids = (1,)
    causal: Causality = "always"
    streams: Splits = "any"
    packs = True
    reads, writes = ("project",), ("out",)

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        value_dim: int | None = None,
        feature: Feature = "elu",
        normalise: bool = True,
        conv: int | None = None,
        draws: Annotated[int, Field(gt=0)] = 64,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if feature != "random":
            idle(LinearAttention, f"on feature {feature!r}", draws=draws)
        if not causal and not normalise:
            raise BadSpec("where every token sees all, weights are divided by their sum; set normalise to true")
        if not causal and conv is not None:
            raise BadSpec("conv looks back alone, and here every token sees all; leave it out")
        if normalise and feature not in ("elu", "relu", "random"):
            raise BadSpec(f"normalise divides by sums of features, which {feature!r} may make 0; set it to false")
        head_dim = shared_width("head_dim", head_dim, dim, heads)
        value_dim = shared_width("value_dim", value_dim, dim, heads)
        self.heads, self.head_dim, self.value_dim = heads, head_dim, value_dim
        self.feature, self.normalise = feature, normalise
        keys, values = heads * head_dim, heads * value_dim
        self.widths = (keys, keys, values)
        self.project = Dense(dim, sum(self.widths), bias=False)
        """q, k and v."""
        self.conv = taps(sum(self.widths), conv)
        self.out = Dense(values, dim, bias=False)
        self.draws = nn.Parameter(torch.empty(draws, head_dim), requires_grad=False) if feature == "random" else None
        if self.draws is not None:
            self.frozen = ("draws",)
            self.redraw()
        if not causal:
            self.causal, self.streams = "never", "no"

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Other random rows, orthogonal and each standard normal."""
        if self.draws is not None and not self.draws.is_meta:
            self.draws.copy_(gaussian_rows(self.draws.shape[0], self.draws.shape[1], generator))

    @property
    def _memory(self) -> tuple[int, int, int]:
        features = self.head_dim if self.draws is None else len(self.draws)
        return self.heads, features, self.value_dim + self.normalise

    def _features(self, x: Tensor, *, padding: Tensor | None = None, keys: bool = False) -> Tensor:
        """phi of queries or keys (B, L, H, D); random ones are guarded from overflow where all tokens are at hand."""
        if self.draws is None:
            y = features(x, self.feature)
            return y if padding is None else y.masked_fill(padding, 0.0)
        within = () if self.causal == "always" else (1, -1) if keys else (-1,)
        return positive_features(x * self.head_dim**-0.25, self.draws, within=within, padding=padding)[0]

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed = convolved(self.project(x), self.conv, state, lengths, F.silu)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.widths, dim=-1))
        padding = None if lengths is None else ~real(x, lengths)[..., None, None]  # writes nothing
        q, k = self._features(q), self._features(k, padding=padding, keys=True)
        if self.causal == "never":
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            return self.out(whole.linear_attention(q, k, v, TINY).transpose(1, 2).flatten(2))
        if self.normalise:  # one value more, always 1, sums the weights
            v = F.pad(v, (0, 1), value=1.0)
        else:
            q = q * self.head_dim**-0.5
        o, memory = rule.gated_linear_attention(q, k, v, None, memory_of(state, x.shape[0], self._memory, x))
        remember(state, memory)
        if self.normalise:
            o = o[..., :-1] / (o[..., -1:] + TINY)
        return self.out(o.flatten(2))

    def new_state(self, batch: int, capacity: int) -> State | None:
        if self.streams == "no":
            return None
        return fresh_state(self.project.weight, batch, self._memory, self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        drawn = 0 if self.draws is None else 2 * tokens * self.heads * self.draws.numel()
        if self.causal == "never":
            heads, width, _ = self._memory
            return drawn + heads * whole.macs(tokens, width, self.value_dim)
        return drawn + rule.macs(1, tokens, *self._memory) + tap_macs(self.conv, tokens)
