"""Linear attention (arXiv 2006.16236)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import gated_linear_attention as rule
from ..dense import Dense
from ..widths import shared_width
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, fresh_state, memory_of, remember, tap_macs, taps, unit

Feature = Literal["elu", "relu", "unit", "identity"]
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
    maps queries and keys: elu(x) + 1 as in the paper, relu, to length 1 (unit), or not at all. `normalise` divides by
    the sum of the weights, which takes features that are not negative; otherwise queries are divided by
    sqrt(head_dim). `conv` taps of a causal convolution and SiLU may stand before q, k and v. Nothing is forgotten.
    """

    EXAMPLES = (
        {"heads": 4},
        {"heads": 3, "head_dim": 4, "value_dim": 5, "feature": "unit", "normalise": False, "conv": 3},
        {"heads": 2, "feature": "identity", "normalise": False},
    )
    grids = (1,)
    causal, streams, packs = "always", "any", True
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
    ) -> None:
        super().__init__()
        if normalise and feature not in ("elu", "relu"):
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

    @property
    def _memory(self) -> tuple[int, int, int]:
        return self.heads, self.head_dim, self.value_dim + self.normalise

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed = convolved(self.project(x), self.conv, state, lengths, F.silu)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.widths, dim=-1))
        q, k = (features(part, self.feature) for part in (q, k))
        if lengths is not None:  # padding writes nothing
            k = k * real(x, lengths)[..., None, None]
        if self.normalise:  # one value more, always 1, sums the weights
            v = F.pad(v, (0, 1), value=1.0)
        else:
            q = q * self.head_dim**-0.5
        o, memory = rule.gated_linear_attention(q, k, v, None, memory_of(state, x.shape[0], self._memory, x))
        remember(state, memory)
        if self.normalise:
            o = o[..., :-1] / (o[..., -1:] + TINY)
        return self.out(o.flatten(2))

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, self._memory, self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, *self._memory) + tap_macs(self.conv, tokens)
