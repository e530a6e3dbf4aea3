"""GTrXL and TrXL-I under the names of Transformers-RL: three segments with memory, and the gate alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from formery.context import NOTHING, State
from formery.model import Model
from formery.parts.schemes.gated import GRU
from formery.systems.language import gtrxl
from formery.weights import Dialect, Rule, to_ours, to_theirs
from tests import goldens
from tests.parity.agreement import assert_same

WANTED = 1e-5
"""Of the output's scale."""
SIZES: dict[str, Any] = {
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "head_dim": 8,
    "hidden": 24,
    "memory": 6,
    "segment": 5,
    "in_chans": 16,
}


def loaded(golden: str, gate: str) -> tuple[Model, list[str]]:
    """The paper's network, made the recorded one by its weights; and the names that had no use."""
    model = Model({"name": "gtrxl", **gtrxl.spec(**SIZES, num_classes=3, gate=gate)}).eval()
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    unused = model.load_published(theirs)
    assert_same(model.to_published("transformers_rl"), {name: theirs[name] for name in theirs.keys() - set(unused)})
    return model, unused


@pytest.mark.parametrize(("golden", "gate", "seed"), [("gtrxl_small", "gru", 0), ("trxl_i_small", "sum", 3)])
def test_three_segments(golden: str, gate: str, seed: int) -> None:
    model, unused = loaded(golden, gate)
    facts = goldens.facts(golden)
    dead = [name for name, _ in facts["tensors"] if ".gate" in name] if gate == "sum" else []
    assert sorted(unused) == sorted(dead)
    sizes = dict(facts["tensors"])
    without = sum(torch.Size(sizes[name]).numel() for name in dead)
    assert sum(p.numel() for p in model.parameters()) == facts["params"] - without
    segments = [goldens.normal((5, 2, 16), seed + i).transpose(0, 1) for i in range(3)]
    state, found = model.new_state(2, 15), []
    with torch.no_grad():
        for segment in segments:
            found.append(model(segment, state=state).transpose(0, 1))
        whole = model(torch.cat(segments, dim=1)).transpose(0, 1)
        steps = model.new_state(2, 15)
        one_by_one = [model(step, state=steps) for step in torch.cat(segments, dim=1).split(1, dim=1)]
    mixer = state.parts.under("blocks.0.mixer")
    assert isinstance(mixer, State)
    outputs = {f"y{i + 1}": y for i, y in enumerate(found)} | {
        "memory3_first": mixer.slot("past").value[:, -6:].transpose(0, 1),
        "memory3_last": torch.cat(found)[-6:],
    }
    assert goldens.worst_error(golden, outputs) < WANTED
    torch.testing.assert_close(whole, torch.cat(found), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(one_by_one, dim=1).transpose(0, 1), whole, rtol=0, atol=1e-5)


def test_the_gate() -> None:
    golden = "gtrxl_gru_gate"
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    gate = GRU(12, 2.0, learned=False, linear_bias=True)
    rules = (
        Rule("of_output", ("Wr", "Wz", "Wg")),
        Rule("of_stream", ("Ur", "Uz")),
        Rule("of_reset", "Ug"),
    )
    dialect = Dialect("transformers_rl", rules)
    state, wrong = to_ours(theirs, {name: t.shape for name, t in gate.state_dict().items()}, dialect)
    assert wrong == []
    gate.load_state_dict(state)
    assert sum(p.numel() for p in gate.parameters()) == goldens.facts(golden)["params"]
    with torch.no_grad():
        g = gate(goldens.normal((7, 12), 1), goldens.normal((7, 12), 2))
    assert goldens.worst_error(golden, {"g": g}) < WANTED
    again = to_theirs(gate.state_dict(), dialect)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


def by_the_paper(x: Tensor, memory: Tensor, block: Any) -> Tensor:
    """One layer of the paper's equations for a segment (L, C) behind a memory (M, C), with loops over pairs."""
    mixer, scheme = block.mixer, block.scheme
    together = mixer.norm(torch.cat([memory, x]))
    keys, values = (part.unflatten(-1, (2, 8)) for part in mixer.kv(together).chunk(2, dim=-1))
    queries = mixer.q(together[len(memory) :]).unflatten(-1, (2, 8))
    rows = []
    for i in range(len(x)):
        place = len(memory) + i
        heads = []
        for h in range(2):
            scores = []
            for j in range(place + 1):
                angles = (place - j) / 10000 ** (torch.arange(0, 16, 2, dtype=x.dtype) / 16)
                r = mixer.distance(torch.cat([angles.sin(), angles.cos()])).unflatten(-1, (2, 8))[h]
                q = queries[i, h]
                scores.append((q + mixer.content[h]) @ keys[j, h] + (q + mixer.place[h]) @ r)
            heads.append(torch.softmax(torch.stack(scores) / 8**0.5, 0) @ values[: place + 1, h])
        rows.append(torch.cat(heads))
    y = scheme.gates[0](x, torch.relu(mixer.out(torch.stack(rows))))
    return scheme.gates[1](y, torch.relu(block.channel(scheme.norms[1](y))))


def test_the_papers_equations() -> None:
    """Norm over memory and segment, ReLU behind sublayers, learned bias: no golden has these."""
    torch.manual_seed(0)
    model = Model(gtrxl.spec(**SIZES | {"depth": 1}, num_classes=0)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        x = torch.randn(1, 15, 16, dtype=torch.float64)
        tokens, _ = model.stem(x, NOTHING)
        whole = model(x)[0]
        for start in (0, 5, 10):
            memory = tokens[0, max(0, start - 6) : start]
            expected = by_the_paper(tokens[0, start : start + 5], memory, model.get_submodule("body.blocks.0"))
            torch.testing.assert_close(whole[start : start + 5], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("gate", ["gru", "input", "output", "highway", "sigtanh", "sum", None])
def test_rllibs_names_both_ways(gate: str | None) -> None:
    names = {value: key for key, value in gtrxl.GATES.items() if key != "gtrxl_rllib"}
    name = names[gate] if gate else "trxl"
    model = Model({"name": name, **gtrxl.spec(**SIZES, num_classes=3, gate=gate)})
    theirs = model.to_published("rllib")
    other = Model({"name": name, **gtrxl.spec(**SIZES, num_classes=3, gate=gate)})
    assert other.load_published(theirs) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    if gate == "gru":
        first = "gtrxl.attention_layers.0._fan_in_layer._w_r"
        assert torch.equal(theirs[first], model.get_parameter("body.blocks.0.scheme.gates.0.of_output.weight")[:16].T)
