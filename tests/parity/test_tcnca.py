"""Mega's moving average and gated attention under its names, which TCNCA builds on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from formery.context import Context, Slot, State
from formery.model import Model
from formery.ops.damped_average import kernel
from formery.spec import build
from formery.systems.language import tcnca
from formery.weights import Dialect, Rule, to_ours, to_theirs
from tests import goldens

WANTED = 1e-5
"""Of the output's scale."""


def loaded(kind: dict[str, Any], dim: int, golden: str, rules: list[Rule]) -> Any:
    """The part with the recorded weights, which come back out of it under their names."""
    part = build("mixer", kind, dim).eval()
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    dialect = Dialect("mega", tuple(rules))
    state, wrong = to_ours(theirs, {name: t.shape for name, t in part.state_dict().items()}, dialect)
    assert wrong == []
    part.load_state_dict(state)
    assert sum(p.numel() for p in part.parameters()) == goldens.facts(golden)["params"]
    again = to_theirs(part.state_dict(), dialect)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)
    return part


def test_the_moving_average() -> None:
    golden = "mega_ema"
    part = loaded({"kind": "damped_average", "dims": 4}, 12, golden, tcnca.average("", ""))
    x = goldens.normal((23, 2, 12)).transpose(0, 1)
    for split in ([23], [1] * 23, [5, 1, 17]):
        state = part.new_state(2, 23)
        keep, write, read = part.rates()
        with torch.no_grad():
            y = torch.cat([part(chunk, state=state) for chunk in x.split(split, dim=1)], dim=1)
            outputs = {
                "y": y.transpose(0, 1),
                "state": state.slot("average").value,
                "kernel": kernel(keep, write, read, 23),
            }
        assert goldens.worst_error(golden, outputs) < WANTED


def test_the_gated_attention() -> None:
    golden = "mega_block"
    move = {"kind": "damped_average", "dims": 4}
    options = {"shared": 8, "values": 24, "chunk": 6, "move": move, "norm": {"kind": "layer", "eps": 1e-5}}
    part = loaded({"kind": "gated_chunk_attention", **options}, 16, golden, tcnca.attention("", ""))
    x = goldens.normal((18, 2, 16)).transpose(0, 1)
    with torch.no_grad():
        whole = x + part(x, Context(causal=True))
        state = part.new_state(2, 18)
        pieces = x + torch.cat([part(chunk, state=state) for chunk in x.split([4, 1, 1, 9, 3], dim=1)], dim=1)
    for y in (whole, pieces):
        assert goldens.worst_error(golden, {"y": y.transpose(0, 1)}) < WANTED


def test_ring_buffers() -> None:
    """The convolution network streams with (width - 1) times the dilation inputs a layer, whatever the length."""
    part = build("mixer", {"kind": "temporal_convolution", "width": 5, "factor": 3, "layers": 3}, 6)
    state = part.new_state(1, 1000)
    assert [leaf.value.shape[1] for _, leaf in state.leaves() if isinstance(leaf, Slot)] == [4, 12, 36]
    assert part.reach == 1 + 4 * (27 - 1) // 2
    x = torch.randn(1, 90, 6)
    with torch.no_grad():
        steps = torch.cat([part(step, state=state) for step in x.split(1, dim=1)], dim=1)
        torch.testing.assert_close(steps, part(x), rtol=0, atol=1e-6)


def by_the_text(x: Tensor, part: Any, chunk: int) -> Tensor:
    """Mega's layer with rotary bias and Laplace's function, no mask: token by token, chunk by chunk."""
    n = part.norm(x)
    v, m = torch.nn.functional.silu(part.value(n)), part.move(n)
    z, h = part.gain.shape[1], part.value.out_features
    u, shared, r, c = part.project(m).split((len(x[0, 0]), z, h, len(x[0, 0])), dim=-1)
    shared = torch.nn.functional.silu(shared)
    q, k = (shared * part.gain[n] + part.offset[n] for n in range(2))
    averaged = torch.zeros_like(v)
    half = z // 2

    def turned(vector: Tensor, place: int) -> Tensor:
        angles = torch.tensor([place * 10000.0 ** (-2 * i / z) for i in range(half)], dtype=torch.float64)
        a, b = vector[:half], vector[half:]
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()])

    for i in range(x.shape[1]):
        first = i // chunk * chunk
        members = range(first, min(first + chunk, x.shape[1]))
        for j in members:
            bias = turned(part.turned_alpha, i - first) @ turned(part.turned_beta, j - first)
            score = (q[:, i] * k[:, j]).sum(-1) / len(members) + bias
            weight = 0.5 * (1 + torch.erf((score - 0.707107) / (0.282095 * 2**0.5)))
            averaged[:, i] += weight[:, None] * v[:, j]
    hidden = torch.nn.functional.silu(c + part.out(torch.nn.functional.silu(r) * averaged))
    return u.sigmoid() * (hidden - x)


def test_laplace_with_rotary_bias() -> None:
    torch.manual_seed(0)
    options = {"shared": 6, "values": 10, "chunk": 4, "function": "laplace", "rotary": True, "norm": "layer"}
    move = {"kind": "damped_average", "dims": 2, "bidirectional": True}
    part = build("mixer", {"kind": "gated_chunk_attention", "move": move, **options}, 8).double().eval()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        x = torch.randn(2, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(part(x), by_the_text(x, part, 4), rtol=1e-6, atol=1e-7)


def test_a_whole_mega_both_ways() -> None:
    sizes: dict[str, Any] = {"dim": 16, "depth": 2, "shared": 8, "values": 24, "hidden": 20, "chunk": 6, "vocab": 11}
    for move in (tcnca.AVERAGE, tcnca.CONVOLUTIONS):
        spec = {"name": "tcnca", **tcnca.spec(**sizes, move=move)}
        model, other = Model(spec), Model(spec)
        theirs = model.to_published("mega")
        assert "decoder.layers.1.mega_layer.mx_proj.weight" in theirs
        assert other.load_published(theirs) == []
        ids = torch.randint(0, 11, (2, 20))
        assert torch.equal(other.eval()(ids), model.eval()(ids))
        state = model.new_state(2, 20)
        with torch.no_grad():
            steps = torch.cat([model(chunk, state=state) for chunk in ids.split([7, 1, 12], dim=1)], dim=1)
            torch.testing.assert_close(steps, model(ids), rtol=0, atol=1e-5)
        assert isinstance(state.parts, State)
