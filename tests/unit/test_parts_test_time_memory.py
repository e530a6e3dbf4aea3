"""The mixer whose memory is trained while it reads, against its equations written out token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery import registry
from formery.errors import BadSpec
from formery.ops.newton_schulz import newton_schulz
from formery.parts.mixers import test_time_memory as module
from formery.systems.language.atlas import MEMORIES

DIM = 12
KINDS: dict[str, dict[str, Any]] = {
    "titans": {"layers": 2, "hidden": 7, "momentum": True, "chunk": 3},
    "omega": {"window": 3, "feature": "polynomial", "chunk": 4, "conv": None},
    "atlas": {"window": 2, "feature": "polynomial", "degree": 3, "momentum": True, "orthogonal": True, "chunk": 5,
              "layers": 2, "hidden": 3},
    "deep linear": {"layers": 2, "objective": "dot", "chunk": 1, "memory_norm": True},
    "dot": {"window": 3, "feature": "exponential", "chunk": 4, "rate": 0.3},
}  # fmt: skip


def mixer_of(**options: Any) -> Any:
    mixer = registry.find("mixer", "test_time_memory")(DIM, heads=1, head_dim=4, value_dim=4, **options).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer.eval()


def written_out(mixer: Any, x: Tensor, kind: str) -> Tensor:
    """Tokens (L, C) through one head, by torch's gradients; the features are the mixer's own."""
    options = {"window": 1, "momentum": False, "orthogonal": False, "objective": "regression", "conv": 4,
               "degree": 2, "feature": "identity", "memory_norm": False, "layers": 1} | KINDS[kind]  # fmt: skip
    projected = x @ mixer.project.weight.T
    mixed, gate, gates = projected.split([12, 4, projected.shape[-1] - 16], dim=-1)
    if options["conv"]:
        past = F.pad(mixed, (0, 0, 3, 0)).unfold(0, 4, 1)
        mixed = F.silu((past * mixer.conv).sum(-1))
    q, k, v = mixed.split(4, dim=-1)
    q, k = (t / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt() for t in (q, k))
    gates = (gates + mixer.gate_bias).sigmoid().unbind(-1)
    named = dict(zip(mixer.gates, gates, strict=True))
    weights = [w[0] for w in mixer.initial] or [torch.zeros(mixer.key, 4, dtype=x.dtype)]
    speed = [torch.zeros_like(w) for w in weights]
    phi = (lambda t: t) if options["feature"] == "identity" else mixer._features
    num, outputs, frozen = options["layers"], [], weights

    def network(ws: list[Tensor], t: Tensor) -> Tensor:
        y = t
        for i in range(num):
            y = (F.gelu(y) if i else y) @ ws[i]
        if options["memory_norm"]:
            y = F.layer_norm(y, (4,)) * (1 + ws[-1])[0]
        return y + t if num > 1 and t.shape[-1] == 4 else y

    for t in range(len(x)):
        if t % options["chunk"] == 0:
            frozen = weights
        at = [w.detach().requires_grad_() for w in frozen]
        loss = torch.zeros((), dtype=x.dtype)
        for i in range(max(0, t - options["window"] + 1), t + 1):
            y = network(at, phi(k[i]))
            one = (y - v[i]).square().sum() if options["objective"] == "regression" else -(y * v[i]).sum()
            loss = loss + one * (named["weight"][i] if "weight" in named else 1)
        step = list(torch.autograd.grad(loss, at))
        rate = mixer.rate * named["rate"][t]
        if not options["orthogonal"]:
            rate = rate * (1 - named["momentum"][t]) if options["momentum"] else rate
            step = [rate * g for g in step]
        if options["momentum"]:
            step = speed = [named["momentum"][t] * s + g for s, g in zip(speed, step, strict=True)]
        if options["orthogonal"]:
            step = [rate * newton_schulz(g) for g in step]
        weights = [named["retain"][t] * w - s for w, s in zip(weights, step, strict=True)]
        outputs.append(network(weights, phi(q[t])))
    o = torch.stack(outputs)
    o = o * (o.square().mean(-1, keepdim=True) + 1e-8).rsqrt() * mixer.norm * F.silu(gate)
    return o @ mixer.out.weight.T


@pytest.mark.parametrize("kind", KINDS)
def test_the_equations(kind: str) -> None:
    mixer, x = mixer_of(**KINDS[kind]), torch.randn(1, 11, DIM, dtype=torch.float64)
    torch.testing.assert_close(mixer(x)[0], written_out(mixer, x[0], kind))


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"chunk": 8, "window": 2}, 1 / 16),
        ({"chunk": 8, "orthogonal": True}, 1 / 8),
        ({"objective": "dot", "chunk": 8}, 1.0),
        ({"feature": "polynomial", "chunk": 8}, 1 / (8 * 2.25)),
        ({"layers": 2, "chunk": 8}, 1 / 32),
        ({"layers": 2, "chunk": 8, "objective": "dot"}, 1 / 32),
        ({"rate": 0.7}, 0.7),
    ],
)
def test_the_largest_step(options: dict[str, Any], rate: float) -> None:
    assert mixer_of(**options).rate == pytest.approx(rate)


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("name", MEMORIES)
def test_a_long_run_of_one_token(name: str, largest: bool) -> None:
    """With the gates that learning starts from, and with the largest steps and nothing forgotten, memories stay small
    and networks of layers do not die; where nothing is forgotten, "dot" grows on, as it has no minimum."""
    mixer = registry.find("mixer", "test_time_memory")(64, heads=2, chunk=32, **MEMORIES[name])
    with torch.no_grad():
        if largest:
            mixer.gate_bias.fill_(50.0)
        if largest and "momentum" in mixer.gates:
            mixer.gate_bias.view(len(mixer.gates), -1)[mixer.gates.index("momentum")] = 2.0
        state = mixer.new_state(1, 1024)
        y = mixer(torch.randn(1, 1, 64).expand(1, 1024, 64), state=state)
    assert y.isfinite().all()
    weights = [value.value.abs().max() for name, value in state.leaves() if name.startswith("weights")]
    grows = mixer.rule.objective == "dot" and (largest or len(weights) == 1)
    assert all(0.01 < w < (10_000 if grows else 10) for w in weights), weights


def test_a_chunk_of_one_key_does_not_overshoot() -> None:
    """With the largest step at every token and the same key in all, errors shrink from chunk to chunk."""
    mixer = mixer_of(chunk=8, window=3, feature="polynomial")
    with torch.no_grad():
        mixer.coefficients.copy_(torch.tensor([1.0, 1.0, 0.5]))
        mixer.gate_bias.fill_(50.0)
        mixer.conv.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    state, x = mixer.new_state(1, 400), torch.randn(1, 1, DIM, dtype=torch.float64).expand(1, 400, DIM)
    mixer(x, state=state)
    assert state.slot("weights_0").value.abs().max() < 10
    assert len(module.named(mixer._memory(x, state))) == len(state.entries) - 1


@pytest.mark.parametrize("options", [{"layers": 0}, {"rate": 0.0}, {"chunk": 0}, {"degree": 0}])
def test_refused_options(options: dict[str, Any]) -> None:
    with pytest.raises(BadSpec, match="at least 1, and rate is positive"):
        mixer_of(**options)
