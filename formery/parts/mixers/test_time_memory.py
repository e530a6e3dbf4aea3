"""Memories trained while they read: Titans (arXiv 2501.00663), OmegaNet, Atlas, DeepTransformers (arXiv 2505.23735)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, Slot, State
from ...errors import BadSpec
from ...ops import feature_maps
from ...ops import test_time_memory as rules
from ..dense import Dense
from ..part import idle
from ..widths import shared_width
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, normed, tap_macs, taps, unit, wide

Feature = Literal["identity", "polynomial", "exponential"]
STARTS = {"retain": 5.0, "rate": 0.0, "momentum": 1.0, "weight": 2.0}
"""What the gates' sigmoids are of, before anything is learned."""
DEEP_RETAIN = 7.0
"""The same of networks of layers: what decays to zero in all of them at once would not learn any more."""


class TestTimeMemory(Mixer):
    """A small network in each head whose weights are the state: each token trains it on the last pairs of key and
    value, then reads it with its query.

    `heads` heads with keys of `head_dim` and values of `value_dim` (both together the width unless given). The network
    has `layers` layers, GELU of `hidden` channels (4 value widths unless given) between them, and adds its input where
    keys and values have one width; `memory_norm` norms what its layers give. A single matrix starts from zero, all else
    from learned weights. Each step is taken on the last `window` pairs, for the `objective` |M(k) - v|^2 ("regression")
    or -M(k) . v ("dot": linear attention), with `momentum` and made `orthogonal` by Newton-Schulz where that is said;
    its gradient is taken at the weights before the `chunk` that the token is in, which is part of the definition.
    `feature` maps queries and keys to all monomials up to `degree`: with learned coefficients (polynomial), or with
    those of the exponential's series. How much is retained, the step (at most `rate`; unless given, small enough for a
    long run of one token), the momentum and each pair's weight are gates of the token. `conv` taps of a causal
    convolution and SiLU stand before q, k and v; keys and queries have length 1. Norm, gate, and output's projection;
    the norm's `eps` is small, as what is read is of the size of the steps.

    Titans: 2 layers, momentum. OmegaNet: a window, polynomial. Atlas: the same with momentum and orthogonal. Of
    DeepTransformers, DLA is dot of 2 layers, SWLA dot with a window, Deep Transformer dot and exponential of 2 layers,
    Dot regression, a window and exponential.
    """

    EXAMPLES = (
        {"heads": 2, "head_dim": 4, "value_dim": 4, "layers": 2, "hidden": 6, "momentum": True, "chunk": 5},
        {"heads": 2, "head_dim": 3, "value_dim": 5, "window": 3, "feature": "polynomial", "momentum": True,
         "orthogonal": True, "chunk": 4, "conv": 3},
        {"heads": 4, "objective": "dot", "window": 2, "feature": "exponential", "degree": 1, "memory_norm": True,
         "conv": None, "chunk": 7, "rate": 0.5},
    )  # fmt: skip
    unseen = ("heads", "window", "eps")
    grids = (1,)
    causal, streams, packs = "always", "any", True
    reads, writes = ("project",), ("out",)
    parents: Tensor
    factors: Tensor
    scales: Tensor
    coefficients: Tensor

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        value_dim: int | None = None,
        layers: int = 1,
        hidden: int | None = None,
        memory_norm: bool = False,
        objective: rules.Objective = "regression",
        window: int = 1,
        momentum: bool = False,
        orthogonal: bool = False,
        chunk: int = 16,
        feature: Feature = "identity",
        degree: int = 2,
        rate: float | None = None,
        conv: int | None = 4,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        head_dim = shared_width("head_dim", head_dim, dim, heads)
        value_dim = shared_width("value_dim", value_dim, dim, heads)
        inner = 4 * value_dim if hidden is None else hidden
        if min(layers, inner, window, chunk, degree) < 1 or (rate is not None and rate <= 0):
            raise BadSpec("layers, hidden, window, chunk and degree are at least 1, and rate is positive")
        if layers == 1:
            idle(TestTimeMemory, "on a memory of one layer", hidden=hidden)
        if feature == "identity":
            idle(TestTimeMemory, "on keys as they are", degree=degree)
        self.heads, self.head_dim, self.value_dim, self.eps = heads, head_dim, value_dim, eps
        self.feature, self.degree = feature, degree
        self.key = head_dim if feature == "identity" else feature_maps.width(head_dim, degree)
        self.rule = rules.Rule(
            objective, window, chunk, orthogonal, residual=layers > 1 and self.key == value_dim, norm=memory_norm
        )
        kept = {"retain": True, "rate": True, "momentum": momentum, "weight": window > 1}
        self.gates = [name for name, has in kept.items() if has]
        self.mixed_widths = (heads * head_dim, heads * head_dim, heads * value_dim)
        self.widths = (sum(self.mixed_widths), heads * value_dim, heads * len(self.gates))
        """Of the one projection: q, k and v together, the output's gate, the memory's gates."""
        self.project = Dense(dim, sum(self.widths), bias=False)
        self.conv = taps(self.widths[0], conv)
        starts = STARTS | ({"retain": DEEP_RETAIN} if layers > 1 else {})
        self.gate_bias = nn.Parameter(torch.tensor([starts[name] for name in self.gates]).repeat_interleave(heads))
        widths = [self.key, *[inner] * (layers - 1), value_dim]
        self.shapes = tuple(pairwise(widths))
        """Of the memory's matrices."""
        first = [2 / self._length() * torch.randn(heads, *shape) * shape[1] ** -0.5 for shape in self.shapes[:-1]]
        if first:
            first.append(torch.zeros(heads, *self.shapes[-1]))
        if memory_norm:
            first = first or [torch.zeros(heads, *self.shapes[0])]
            first.append(torch.zeros(heads, 1, value_dim))
        self.initial = nn.ParameterList(first)
        """First weights of the memory; none where it starts from zero. Inner layers give vectors of a length near 1, as
        keys have it, and the last one zeros: at first a memory answers by what it was told alone."""
        learned = nn.Parameter(torch.empty(degree + 1)) if feature == "polynomial" else None
        self.register_parameter("coefficients", learned)
        if learned is not None and not learned.is_meta:
            learned.data.copy_(feature_maps.taylor(degree))
        self.rate = self._most() if rate is None else rate
        self.norm = nn.Parameter(torch.ones(value_dim))
        self.out = Dense(heads * value_dim, dim, bias=False)
        self.reset_derived()

    def _most(self) -> float:
        """The largest step: 1 where nothing overshoots, a chunk's share of an orthogonal one; else what keeps the sum
        of a chunk's steps from overshooting even where all keys are the same, less for layers, which each have a share
        in the answer, and which for the objective "dot" grow by what the others have grown."""
        if self.rule.objective == "dot" and len(self.shapes) == 1:
            return 1.0
        if self.rule.orthogonal:
            return 1 / self.rule.chunk
        layers = len(self.shapes)
        share = 2 * layers if layers > 1 else 1
        return 1 / (self.rule.chunk * self.rule.window * self._length() ** 2 * share)

    def _length(self) -> float:
        """Of a key's features before their coefficients have learned."""
        start = {"polynomial": feature_maps.taylor, "exponential": feature_maps.exponential}.get(self.feature)
        return 1.0 if start is None else start(self.degree).square().sum().sqrt().item()

    def reset_derived(self) -> None:
        """The tables of the features, in float32 at least; they are not saved."""
        if self.feature == "identity":
            return
        like = self.project.weight
        dtype = wide(like.dtype)
        found: dict[str, Tensor] = dict(feature_maps.tables(self.head_dim, self.degree)._asdict())
        if self.feature == "exponential":
            found["coefficients"] = feature_maps.exponential(self.degree)
            self._parameters.pop("coefficients", None)
        for name, table in found.items():
            kind = dtype if table.is_floating_point() else table.dtype
            empty = torch.empty(table.shape, dtype=kind, device=like.device)
            self.register_buffer(name, empty if like.is_meta else empty.copy_(table), persistent=False)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed, gate, gates = self.project(x).split(self.widths, dim=-1)
        mixed = convolved(mixed, self.conv, state, lengths, F.silu)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.mixed_widths, dim=-1))
        if lengths is not None:  # what stands beyond a row is nobody's, and may be anything
            k, v = (part * real(x, lengths)[..., None, None] for part in (k, v))
        q, k = (self._features(unit(part)) for part in (q, k))
        o, memory = rules.trained_memory(q, k, v, self._gates(gates), self._memory(x, state), self.rule, lengths)
        if state is not None:
            for name, value in named(memory).items():
                state.slot(name).put(value)
        return self.out(normed(o, self.norm, gate, self.eps, x.dtype))

    def _features(self, x: Tensor) -> Tensor:
        if self.feature == "identity":
            return x
        tables = feature_maps.Tables(self.parents, self.factors, self.scales)
        return feature_maps.polynomial(x.to(wide(x.dtype)), self.coefficients.to(wide(x.dtype)), tables)

    def _gates(self, x: Tensor) -> rules.Gates:
        """Gates of raw ones (B, L, gates H). The step stands before the momentum (Titans), or behind what makes it
        orthogonal (Atlas). Before the momentum it is what this does not keep, 1 - momentum, of the step's own gate:
        each gradient is then spread over later tokens, and not enlarged."""
        dtype = wide(x.dtype)
        raw = dict(
            zip(self.gates, (x.to(dtype) + self.gate_bias.to(dtype)).chunk(len(self.gates), dim=-1), strict=True)
        )
        rate = self.rate * raw["rate"].sigmoid()
        momentum = F.logsigmoid(raw["momentum"]) if "momentum" in raw else None
        weight = raw["weight"].sigmoid() if "weight" in raw else None
        retain = F.logsigmoid(raw["retain"])
        if self.rule.orthogonal:
            return rules.Gates(retain, rate, momentum, None, weight)
        if "momentum" in raw:
            rate = rate * (-raw["momentum"]).sigmoid()
        return rules.Gates(retain, torch.ones_like(rate), momentum, rate, weight)

    def _first(self, like: Tensor) -> rules.Weights:
        """The memory's first weights (H, ...), float32 at least."""
        dtype = wide(like.dtype)
        if len(self.initial):
            return tuple(w.to(dtype) for w in self.initial)
        return (torch.zeros(self.heads, *self.shapes[0], dtype=dtype, device=like.device),)

    def _fresh(self, like: Tensor, batch: int) -> rules.Memory:
        momentum = "momentum" in self.gates
        return rules.fresh(self.rule, self._first(like), batch, self.key, self.value_dim, momentum=momentum)

    def _memory(self, x: Tensor, state: State | None) -> rules.Memory:
        if state is None:
            return self._fresh(x, x.shape[0])
        slots = {name: state.slot(name).value for name in state.entries if name != "tail"}
        weights, frozen, momentum = (tuple(v for n, v in slots.items() if n.startswith(f"{part}_")) for part in WEIGHTS)
        return rules.Memory(weights, frozen, momentum, *(slots[name] for name in ("keys", "values", "counts", "open")))

    def new_state(self, batch: int, capacity: int) -> State:
        weight = self.project.weight
        memory = self._fresh(weight, batch)._replace(open=torch.zeros(batch, dtype=torch.long, device=weight.device))
        slots = {name: Slot(value) for name, value in named(memory).items()}
        if self.conv is not None:
            slots["tail"] = Slot(weight.new_zeros(batch, self.conv.shape[1] - 1, self.widths[0]))
        return State(**slots)

    def macs(self, tokens: int, past: int = 0) -> int:
        features = 0 if self.feature == "identity" else tokens * 2 * self.heads * self.key
        return rules.macs(tokens, self.heads, self.shapes, self.rule) + tap_macs(self.conv, tokens) + features


WEIGHTS = ("weights", "frozen", "momentum")


def named(memory: rules.Memory) -> dict[str, Tensor]:
    """A memory's tensors by the names of their slots."""
    found = {f"{part}_{i}": w for part in WEIGHTS for i, w in enumerate(getattr(memory, part))}
    assert memory.open is not None
    return found | {"keys": memory.keys, "values": memory.values, "counts": memory.counts, "open": memory.open}
