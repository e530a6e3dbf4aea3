"""Gates by their formulas, parts that share, stems that look ahead, and what listening refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from formery.context import NOTHING, Context
from formery.errors import BadSpec, CannotRun
from formery.model import Model
from formery.parts.schemes.gated import GATES
from formery.runtime.listening import Listening
from formery.spec import build
from formery.systems.language import gtrxl, lmuformer


def by_hand(kind: str, gate: Any, x: Tensor, y: Tensor) -> Tensor:
    """Each gate as the paper writes it."""
    s, n = torch.sigmoid, x.shape[-1]
    if kind == "gru":
        w_r, w_z, w_h = gate.of_output.weight.split(n)
        u_r, u_z = gate.of_stream.weight.split(n)
        r = s(y @ w_r.T + x @ u_r.T)
        z = s(y @ w_z.T + x @ u_z.T - gate.bias)
        return (1 - z) * x + z * torch.tanh(y @ w_h.T + (r * x) @ gate.of_reset.weight.T)
    if kind == "sigtanh":
        w, u = gate.of_output.weight.split(n)
        return x + s(y @ w.T - gate.bias) * torch.tanh(y @ u.T)
    if kind == "sum":
        return x + y
    of_x = x @ gate.of_stream.weight.T
    if kind == "input":
        return s(of_x) * x + y
    if kind == "output":
        return x + s(of_x - gate.bias) * y
    return s(of_x + gate.bias) * x + (1 - s(of_x + gate.bias)) * y


@pytest.mark.parametrize("kind", sorted(GATES))
def test_gates_by_their_formulas(kind: str) -> None:
    gate = GATES[kind](6, 0.5, True, False).double()
    x, y = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(gate(x, y), by_hand(kind, gate, x, y))
    if hasattr(gate, "bias"):
        assert gate.get_parameter("bias").tolist() == [0.5] * 6


def test_a_large_bias_is_the_identity() -> None:
    x, y = torch.randn(4, 8), torch.randn(4, 8)
    for kind in ("gru", "output", "highway", "sigtanh"):
        gate = GATES[kind](8, 60.0, False, True)
        torch.testing.assert_close(gate(x, y), x)


SIZES: dict[str, Any] = {"dim": 8, "depth": 3, "heads": 2, "head_dim": 4, "hidden": 8, "memory": 4, "segment": 4}


def test_parts_of_a_stack_share_what_they_say() -> None:
    spec = gtrxl.spec(**SIZES, in_chans=8, num_classes=2)
    own, shared = (
        Model(spec),
        Model({**spec, "body": {**spec["body"], "mixer": {**spec["body"]["mixer"], "shared": True}}}),
    )
    counts = [sum(p.numel() for p in model.parameters()) for model in (own, shared)]
    assert counts[0] - counts[1] == 2 * 2 * 2 * 4  # two vectors of two heads, in two of three layers
    mixers = [mixer for _, mixer in shared.mixers()]
    assert all(mixer.content is mixers[0].content for mixer in mixers)
    shared.double().float()
    assert all(mixer.place is mixers[0].place for mixer in mixers)


def test_sublayers_without_a_norm_of_the_scheme() -> None:
    model = Model(gtrxl.spec(**SIZES, in_chans=8, num_classes=2))
    norms = model.get_submodule("body.blocks.0.scheme.norms")
    assert [type(norm).__name__ for norm in norms.children()] == ["Identity", "Layer"]


def test_stems_that_look_ahead_stay_out_of_streams() -> None:
    stem = build("stem", {"kind": "frame_convolutions", "dim": 8, "in_chans": 5})
    assert stem.delay == 5
    x = torch.randn(1, 9, 5)
    for ctx in (Context(causal=True), Context(padding=torch.zeros(1, 9, dtype=torch.bool))):
        with pytest.raises(CannotRun):
            stem(x, ctx)
    changed = x.clone()
    changed[:, 8] += 1.0
    stem.eval()
    y, other = (stem(t, NOTHING)[0] for t in (x, changed))
    assert torch.equal(y[:, :3], other[:, :3])
    assert not torch.equal(y[:, 3], other[:, 3])
    with pytest.raises(BadSpec, match="odd"):
        build("stem", {"kind": "frame_convolutions", "dim": 8, "size": 4})
    with pytest.raises(BadSpec, match="projection"):
        build("stem", {"kind": "frames", "dim": 8, "in_chans": 5, "project": False})


def test_listening_refuses_what_it_cannot_do() -> None:
    model = Model(lmuformer.spec(dim=8, in_chans=4, num_classes=3))
    with pytest.raises(CannotRun, match="eval"):
        Listening(model.train(), 1)
    listening = Listening(model.eval(), 1)
    assert listening.hear(torch.randn(1, 3, 4)).shape == (1, 0, 3)
    assert listening.hear(torch.randn(1, 4, 4), last=True).shape == (1, 7, 3)
    with pytest.raises(CannotRun, match="ended"):
        listening.hear(torch.randn(1, 1, 4))
    with pytest.raises(CannotRun, match="mean"):
        Listening(Model(gtrxl.spec(**SIZES, in_chans=8, num_classes=2)).eval(), 1)
    spec = lmuformer.spec(dim=8, in_chans=4, num_classes=3)
    centred = {"kind": "temporal_convolution", "width": 3, "centred": True}
    pooled = {**spec, "body": {"kind": "stack", "depth": 1, "mixer": centred}}
    with pytest.raises(CannotRun, match="does not stream"):
        Listening(Model(pooled).eval(), 1)
