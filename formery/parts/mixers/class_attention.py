"""Attention that only class tokens ask for (CaiT, arXiv 2103.17239, section 2.2; CrossViT, arXiv 2103.14899,
equation 5)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...ops.softmax_attention import softmax_attention
from ..attention_heads import join_heads, split_heads
from ..dense import Dense
from ..widths import shared_width
from .mixer import Mixer

WEIGHTS = "class_attention"
"""Entry of `ctx.record`, a list: each class attention adds its weights (B, heads, queries, N), a map of what the class
token looks at."""


class ClassAttention(Mixer):
    """Softmax attention whose only queries are the first `queries` tokens: all tokens give keys and values, all others
    get nothing (zeros). Its cost is linear in the number of tokens. `bias` is that of queries, keys and values.
    """

    EXAMPLES = ({"heads": 4}, {"heads": 2, "queries": 3, "bias": False})
    unseen = ("heads",)
    grids = (1,)
    partial = True
    reads, writes = ("q", "kv"), ("out",)

    def __init__(
        self,
        dim: int,
        *,
        heads: Annotated[int, Field(gt=0)] = 8,
        queries: Annotated[int, Field(gt=0)] = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim, self.queries = heads, shared_width("head_dim", None, dim, heads), queries
        self.q, self.kv = Dense(dim, dim, bias=bias), Dense(dim, 2 * dim, bias=bias)
        self.out = Dense(dim, dim)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        q = split_heads(self.q(x[:, : self.queries]), self.heads)
        k, v = (split_heads(t, self.heads) for t in self.kv(x).chunk(2, dim=-1))
        if ctx.record is not None and WEIGHTS in ctx.record:
            ctx.record[WEIGHTS].append((q @ k.mT * self.head_dim**-0.5).softmax(-1))
        y = join_heads(softmax_attention(q, k, v, None, self.head_dim**-0.5))
        return F.pad(self.out(y), (0, 0, 0, x.shape[1] - q.shape[2]))

    def macs(self, tokens: int, past: int = 0) -> int:
        return 2 * self.heads * self.head_dim * tokens * min(self.queries, tokens)
