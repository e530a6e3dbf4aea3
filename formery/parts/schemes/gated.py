"""Gates in place of the residual sum (GTrXL, arXiv 1910.06764, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...context import Context
from ...spec import NormSpec, Place
from ..activations import ACTIVATIONS, Activation
from ..dense import Dense
from ..part import idle
from .scheme import Scheme, Sublayer, widths

Gate = Literal["gru", "input", "output", "highway", "sigtanh", "sum"]


class Gated(Scheme):
    """gate(x, f(sublayer(norm(x)))), with gates of their own for each sublayer.

    `gate` is a GRU's by default; `bias` is where the gates' bias begins: above 0 it keeps them near the identity, so
    that a policy starts as one without memory. It is learned unless `learned` is false (`input` and `sum` have none);
    the gates' linears have biases with `linear_bias` (`sum` has no linears). `activation` f (ReLU; none for null)
    stands between a sublayer and its gate. Layer scale and stochastic depth act on what a gate changes.
    """

    EXAMPLES = (
        {},
        {"gate": "gru", "linear_bias": True, "learned": False, "bias": 0.1, "activation": None},
        {"gate": "input"},
        {"gate": "output", "scale": 0.5},
        {"gate": "highway", "norm": "rms"},
        {"gate": "sigtanh", "bare": [0]},
        {"gate": "sum"},
    )
    unseen = ("activation",)
    norms_at = None  # a layer scale acts behind the gate, where no fold into the sublayer can go
    separable = True
    only_adds = False

    def __init__(
        self,
        dim: int | Sequence[int],
        num_sublayers: int,
        *,
        gate: Gate = "gru",
        bias: float = 2.0,
        learned: bool = True,
        linear_bias: bool = False,
        activation: Activation | None = "relu",
        norm: NormSpec | None = "layer",
        scale: float | None = None,
        drop_path: float = 0.0,
        bare: list[int] | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(dim, num_sublayers, norm=norm, scale=scale, drop_path=drop_path, bare=bare, place=place)
        self.activation = activation
        kind = GATES[gate]
        if not issubclass(kind, _Biased):
            idle(Gated, f"on gate {gate!r}", bias=bias, learned=learned)
        if kind is Sum:
            idle(Gated, "on gate 'sum'", linear_bias=linear_bias)
        self.gates = nn.ModuleList(kind(width, bias, learned, linear_bias) for width in widths(dim, num_sublayers))

    def step(self, stream: Tensor, index: int, sublayer: Sublayer, ctx: Context) -> Tensor:
        y = sublayer(self.normed(index, stream, ctx))
        new: Tensor = self.gates[index](stream, y if self.activation is None else ACTIVATIONS[self.activation](y))
        if isinstance(self.scales[index], nn.Identity) and not self.drops(index):
            return new
        return stream + self.branch(index, new - stream)


class _Biased(nn.Module):
    """What gates with a bias share: b (dim,), learned or a number."""

    def __init__(self, dim: int, bias: float, learned: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((dim,), bias)) if learned else bias


class GRU(_Biased):
    """r = s(W_r y + U_r x), z = s(W_z y + U_z x - b), h = tanh(W_h y + U_h (r x)): (1 - z) x + z h.

    `of_output` holds W_r, W_z and W_h, `of_stream` U_r and U_z, `of_reset` U_h.
    """

    def __init__(self, dim: int, bias: float, learned: bool, linear_bias: bool) -> None:
        super().__init__(dim, bias, learned)
        self.of_output = Dense(dim, 3 * dim, bias=linear_bias)
        self.of_stream = Dense(dim, 2 * dim, bias=linear_bias)
        self.of_reset = Dense(dim, dim, bias=linear_bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r_y, z_y, h_y = self.of_output(y).chunk(3, dim=-1)
        r_x, z_x = self.of_stream(x).chunk(2, dim=-1)
        z = torch.sigmoid(z_y + z_x - self.bias)
        h = torch.tanh(h_y + self.of_reset(torch.sigmoid(r_y + r_x) * x))
        return torch.lerp(x, h.to(x.dtype), z.to(x.dtype))


class Input(nn.Module):
    """s(W x) x + y."""

    def __init__(self, dim: int, bias: float, learned: bool, linear_bias: bool) -> None:
        super().__init__()
        self.of_stream = Dense(dim, dim, bias=linear_bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.sigmoid(self.of_stream(x)) * x + y


class Output(_Biased):
    """x + s(W x - b) y."""

    def __init__(self, dim: int, bias: float, learned: bool, linear_bias: bool) -> None:
        super().__init__(dim, bias, learned)
        self.of_stream = Dense(dim, dim, bias=linear_bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + torch.sigmoid(self.of_stream(x) - self.bias) * y


class Highway(_Biased):
    """c x + (1 - c) y with c = s(W x + b)."""

    def __init__(self, dim: int, bias: float, learned: bool, linear_bias: bool) -> None:
        super().__init__(dim, bias, learned)
        self.of_stream = Dense(dim, dim, bias=linear_bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        carried = torch.sigmoid(self.of_stream(x) + self.bias)
        return carried * x + (1 - carried) * y


class SigTanh(_Biased):
    """x + s(W y - b) tanh(U y); `of_output` holds W and U."""

    def __init__(self, dim: int, bias: float, learned: bool, linear_bias: bool) -> None:
        super().__init__(dim, bias, learned)
        self.of_output = Dense(dim, 2 * dim, bias=linear_bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        opened, written = self.of_output(y).chunk(2, dim=-1)
        return x + torch.sigmoid(opened - self.bias) * torch.tanh(written)


class Sum(nn.Module):
    """x + y: identity map reordering alone (TrXL-I)."""

    def __init__(self, dim: int, bias: float, learned: bool, linear_bias: bool) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


GATES: dict[str, type[nn.Module]] = {
    "gru": GRU, "input": Input, "output": Output, "highway": Highway, "sigtanh": SigTanh, "sum": Sum,
}  # fmt: skip
