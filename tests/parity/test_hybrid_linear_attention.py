"""Linear mixers of flash-linear-attention under its names: recorded outputs, whole and streamed, float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from formery.context import NOTHING
from formery.model import Model
from formery.parts.mixers.forget import forget, log_forget, written
from formery.published import recognise
from formery.spec import build, resolve_part
from formery.systems.language import hybrid_linear_attention as system
from formery.weights import Dialect, to_ours, to_theirs
from tests import goldens
from tests.parity.agreement import assert_same

WANTED = 1e-5
"""Of the output's scale."""

LAYERS: dict[str, tuple[dict[str, Any], bool]] = {  # golden: (spec of a layer of width 32, whether it has a bound)
    "mixer_retnet": ({"kind": "retention", "heads": 4}, False),
    "mixer_gla": ({"kind": "gla", "heads": 2}, False),
    "mixer_hgrn": ({"kind": "hgrn"}, True),
    "mixer_hgrn2": ({"kind": "hgrn2", "head_dim": 8}, True),
    "mixer_deltanet": ({"kind": "deltanet", "heads": 2}, False),
    "mixer_gated_deltanet": ({"kind": "gated_deltanet", "heads": 3, "head_dim": 8}, False),
}


@pytest.mark.parametrize("golden", LAYERS)
def test_layers(golden: str) -> None:
    spec, bounded = LAYERS[golden]
    node, facts = resolve_part("mixer", spec), goldens.facts(golden)
    mixer = build("mixer", node, 32).eval()
    assert sum(p.numel() for p in mixer.parameters()) == facts["params"]
    theirs = goldens.state_from(facts["tensors"])
    dialect = Dialect("fla", tuple(system.of_mixer("", "", node, 32)))
    state, wrong = to_ours(theirs, {name: tensor.shape for name, tensor in mixer.state_dict().items()}, dialect)
    assert wrong == []
    mixer.load_state_dict(state)
    assert_same(to_theirs(mixer.state_dict(), dialect), theirs)

    x, memory = goldens.normal((2, 20, 32), 1), mixer.new_state(2, 20)
    bound = goldens.normal((32,), 9).sigmoid().log() if bounded else None
    places = torch.arange(20).split([7, 1, 12])
    chunks = zip(x.split([7, 1, 12], dim=1), places, strict=True)
    with torch.no_grad():
        y = mixer(x, NOTHING.but(lower_bound=bound))
        parts = [mixer(part, NOTHING.but(lower_bound=bound, positions=at), memory) for part, at in chunks]
    outputs = {"y": y, "final_state": memory.slot("memory").value}
    assert goldens.worst_error(golden, outputs) < WANTED
    assert goldens.worst_error(golden, outputs | {"y": torch.cat(parts, dim=1)}) < WANTED


def small(mixer: str, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"dim": 64, "depth": 4, "ratio": 3, "heads": 4, "vocab": 50} | more
    return {"name": "hybrid_linear_attention", **system.spec(mixer, **given)}


@pytest.mark.parametrize("mixer", system.MIXERS)
def test_names_of_models_go_both_ways(mixer: str) -> None:
    """Every tensor of a hybrid has one published name, and the weights come back bit for bit."""
    model = Model(small(mixer)).eval()
    theirs = model.to_published("fla")
    assert {"model.embeddings.weight", "model.layers.0.attn.o_proj.weight", "lm_head.weight"} <= theirs.keys()
    assert "model.layers.3.attn.k_proj.weight" in theirs
    assert ("model.lower_bounds" in theirs) is (mixer in ("hgrn", "hgrn2"))
    other = Model(small(mixer)).eval()
    assert recognise(other, theirs).name == "fla"
    assert other.load_published(theirs) == []
    ids = goldens.tokens((2, 20), 50)
    assert torch.equal(other(ids), model(ids))


@pytest.mark.parametrize("mixer", ["hgrn", "hgrn2"])
def test_bounds_rise_with_depth(mixer: str) -> None:
    """The first layer's gates have no bound, later ones' are sums of the softmax over layers, as published."""
    model = Model(small(mixer, ratio=None)).double().eval()
    table = model.get_parameter("body.lower_bounds")
    torch.nn.init.normal_(table)
    published = table.softmax(0)
    expected = published.cumsum(0) - published[0]
    seen: list[Tensor | None] = []
    for block in model.body.blocks:  # type: ignore[union-attr]
        block.mixer.register_forward_pre_hook(lambda module, args: seen.append(args[1].lower_bound))
    model(goldens.tokens((1, 5), 50))
    assert seen[0] is None
    for got, bound in zip(seen[1:], expected[1:], strict=True):
        assert got is not None
        torch.testing.assert_close(got.exp(), bound)
    for deep in ([300.0, 0.0, -300.0, 0.0], [-300.0, 0.0, -300.0, 300.0]):  # bounds of nothing, and of all
        table.data.copy_(table.new_tensor(deep)[:, None].expand_as(table))
        scores = model.float()(goldens.tokens((1, 5), 50))
        (gradient,) = torch.autograd.grad(scores.square().sum(), table)
        assert scores.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("mixer", system.MIXERS)
def test_hybrids_stream(mixer: str) -> None:
    model = Model(small(mixer)).double().eval()
    ids, state = goldens.tokens((2, 40), 50), model.new_state(2, 40)
    with torch.no_grad():
        whole = model(ids)
        parts = torch.cat([model(part, state=state) for part in ids.split([17, 1, 22], dim=1)], dim=1)
    torch.testing.assert_close(parts, whole)


def test_layouts_of_ratios() -> None:
    """One attention layer behind every `ratio` linear ones; the last layer where the model has no more of them."""
    for name, layers in {
        "pure": [],
        "24_1": [23],
        "12_1": [12],
        "6_1": [6, 13, 20],
        "3_1": [3, 7, 11, 15, 19, 23],
    }.items():
        words = system.variant(f"hla_340m_gla_{name}")["body"]["layout"].split()
        assert [i for i, word in enumerate(words) if word == "full"] == layers
        assert len(words) == 24


def test_gates_keep_their_digits_at_both_ends() -> None:
    """Logs of forget gates and what is written, in float32, beside float64: near 0, near 1, with and without bound."""
    raw = torch.cat([torch.linspace(-90, 90, 181), torch.tensor([-1e4, 1e4])])
    for bound in (None, torch.tensor(-30.0), torch.tensor(-0.1), torch.tensor(-1e-4)):
        exact = None if bound is None else bound.double()
        for function in (log_forget, forget, written):
            got, wanted = function(raw, bound), function(raw.double(), exact)
            assert got.isfinite().all()
            torch.testing.assert_close(got.double(), wanted, rtol=2e-6, atol=1e-7)
        leaf = raw.clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_forget(leaf, bound).sum(), leaf)
        assert slope.isfinite().all()
        torch.testing.assert_close(1 - wanted, forget(raw.double(), exact))
