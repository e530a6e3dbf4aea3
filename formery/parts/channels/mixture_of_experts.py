"""A sparse mixture of gated feed-forward networks (arXiv 2101.03961, 2401.06066), as in Qwen's models."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops.forms import watched, without_autocast
from ..dense import Dense
from .channel import Channel
from .swiglu import SwiGLU

BALANCE = "balance"
"""Entry of `ctx.record`, a list: each mixture adds its balance loss (arXiv 2101.03961, equation 4), 1 where tokens and
probabilities are spread evenly, at most the number of experts."""


class MixtureOfExperts(Channel):
    """Each token goes to the `top` likeliest of `experts` SwiGLUs of `hidden` channels, weighted by the router.

    Its softmax runs over all experts; with `renormalise` the chosen weights are scaled to sum 1. No expert has a limit,
    so that tokens do not depend on each other. `shared` channels make one more SwiGLU, which every token goes to,
    scaled by a sigmoid of the token where `shared_gate` says so. `expand` holds gate and up of every expert, in this
    order. The router works in float32 at least: rounding would send tokens elsewhere.
    """

    EXAMPLES = (
        {"experts": 3, "top": 2, "hidden": 8},
        {"experts": 4, "top": 1, "hidden": 8, "renormalise": False, "shared": 16, "shared_gate": True},
    )
    unseen = ("top", "renormalise")

    def __init__(
        self,
        dim: int,
        *,
        experts: int,
        top: int,
        hidden: int,
        renormalise: bool = True,
        shared: int | None = None,
        shared_gate: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= top <= experts or hidden < 1:
            raise BadSpec(f"top ({top}) is 1 to the number of experts ({experts}), and hidden ({hidden}) at least 1")
        if shared_gate and shared is None:
            raise BadSpec("shared_gate goes with shared channels; give their number, or leave the gate out")
        self.experts, self.top, self.renormalise = experts, top, renormalise
        self.router = Dense(dim, experts, bias=False)
        self.expand, self.reduce = (
            nn.Parameter(torch.empty(shape)) for shape in ((experts, 2 * hidden, dim), (experts, dim, hidden))
        )
        for parameter in (self.expand, self.reduce):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.shared = None if shared is None else SwiGLU(dim, hidden=shared)
        self.shared_gate = Dense(dim, 1, bias=False) if shared_gate else None

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        tokens = x.flatten(0, -2)
        shares = self._shares(tokens)
        weights, chosen = shares.topk(self.top, dim=-1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        if ctx.record is not None and BALANCE in ctx.record:
            ctx.record[BALANCE].append(self._balance(shares, chosen, ctx.padding))
        weights = weights.to(x.dtype)
        if watched():  # sizes may not depend on values
            y = self._by_all(tokens, weights, chosen)
        else:
            y = self._by_chosen(tokens, weights, chosen)
        if self.shared is not None:
            common = self.shared(tokens)
            y = y + (common if self.shared_gate is None else common * self.shared_gate(tokens).sigmoid())
        return y.view(x.shape)

    def _shares(self, tokens: Tensor) -> Tensor:
        """(T, experts) probabilities, in float32 at least, whatever autocast says."""
        wide = torch.promote_types(tokens.dtype, torch.float32)
        weight = self.router.weight.to(wide)
        return without_autocast(tokens, lambda: F.linear(tokens.to(wide), weight).softmax(-1))

    def _by_chosen(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Tokens sorted by expert: each expert is one product over its own, and the others do nothing."""
        order = chosen.flatten().argsort(stable=True)
        source = order // self.top
        rows = tokens[source]
        if tokens.is_meta:  # nobody knows who goes where: one expert for all does as much work
            counts = [len(rows)] + [0] * (self.experts - 1)
        else:
            counts = torch.bincount(chosen.flatten(), minlength=self.experts).tolist()
        parts: list[Tensor] = []
        start = 0
        for expert, count in enumerate(counts):
            if count or (not len(rows) and not parts):  # without tokens one does, so that there is something to join
                parts.append(self._expert(rows[start : start + count], expert))
                start += count
        y = torch.cat(parts) * weights.flatten()[order, None]
        return torch.zeros_like(tokens).index_add(0, source, y.to(tokens.dtype))

    def _expert(self, rows: Tensor, expert: int) -> Tensor:
        gate, up = F.linear(rows, self.expand[expert]).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.reduce[expert])

    def _by_all(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """The same with sizes that do not depend on values: every expert reads every token."""
        gate, up = torch.einsum("tc,ehc->teh", tokens, self.expand).chunk(2, dim=-1)
        y = torch.einsum("teh,ech->tec", F.silu(gate) * up, self.reduce)
        full = torch.zeros_like(y[..., 0]).scatter(1, chosen, weights.to(y.dtype))
        return (y * full[..., None]).sum(1)

    def _balance(self, shares: Tensor, chosen: Tensor, padding: Tensor | None) -> Tensor:
        """Experts * sum over experts of (part of the choices) * (mean probability), over real tokens."""
        if padding is not None:
            shares, chosen = shares[~padding.flatten()], chosen[~padding.flatten()]
        parts = F.one_hot(chosen, self.experts).to(shares.dtype).mean((0, 1))
        return self.experts * (parts * shares.mean(0)).sum()
