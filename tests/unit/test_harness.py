"""The tests' own instruments: goldens that can fail, poisoned memory, libraries that import."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import goldens


def outputs_of(name: str) -> dict[str, Tensor]:
    """The recorded outputs, as whole tensors."""
    return {key: torch.from_numpy(g["head"]).reshape(tuple(g["shape"])) for key, g in goldens.recorded(name).items()}


def test_every_golden_is_whole() -> None:
    assert len(goldens.names()) >= 19
    for name in goldens.names():
        facts, recorded = goldens.facts(name), goldens.recorded(name)
        assert facts["name"] == name
        assert facts["outputs"] == {key: golden["shape"].tolist() for key, golden in recorded.items()}
        statistics = ("running_mean", "running_var")
        parameters = {n: shape for n, shape in facts["tensors"] if not n.endswith(statistics)}
        assert sum(math.prod(shape) for shape in parameters.values()) == facts["params"]


def test_values_are_those_of_the_rule() -> None:
    draw = np.random.RandomState(0xF5FFBB35).standard_normal(3)  # CRC-32 of "norm.weight"
    assert goldens.fill_value("norm.weight", (3,)) == pytest.approx(1 + 0.1 * draw, rel=1e-6)
    state = goldens.state_from([("head.weight", (64, 400)), ("head.bias", (64,)), ("bn.running_var", (64,))])
    assert state["head.weight"].std() == pytest.approx(0.05, rel=0.02)
    assert state["head.bias"].abs().max() < 0.5
    assert state["bn.running_var"].min() >= 1
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


def test_inputs_are_those_of_the_rule() -> None:
    assert goldens.normal((2,), seed=0).tolist() == pytest.approx([1.7640524, 0.4001572])
    ids = goldens.tokens((2, 70), 64)
    assert ids.dtype == torch.int64
    assert 0 <= ids.min() <= ids.max() < 64


def test_worst_error_sees_what_it_should() -> None:
    outputs = outputs_of("linear_ops")
    assert goldens.worst_error("linear_ops", outputs) < 1e-6
    scale = outputs["gla"].abs().max()
    for wrong, error in ((1e-3 * scale, 1e-3), (math.nan, math.inf), (math.inf, math.inf)):
        altered = outputs["gla"].clone()
        altered[1, 5, 0, 2] += wrong
        assert goldens.worst_error("linear_ops", outputs | {"gla": altered}) == pytest.approx(error, rel=1e-3)
    with pytest.raises(ValueError, match="shape"):
        goldens.worst_error("linear_ops", outputs | {"gla": outputs["gla"][:1]})
    with pytest.raises(KeyError):
        goldens.worst_error("linear_ops", {"gla": outputs["gla"]})


def test_worst_error_sees_beyond_the_recorded_values() -> None:
    golden = goldens.recorded("poolformer_s12")["net0"]
    shape = tuple(golden["shape"])
    assert math.prod(shape) > golden["head"].size
    whole = torch.zeros(shape).reshape(-1)
    whole[: golden["head"].size] = torch.from_numpy(golden["head"])
    others = {key: torch.zeros(tuple(g["shape"])) for key, g in goldens.recorded("poolformer_s12").items()}
    assert goldens.worst_error("poolformer_s12", others | {"net0": whole.reshape(shape)}) > 0.01


@pytest.mark.usefixtures("poisoned")
def test_fresh_memory_is_poisoned() -> None:
    like = torch.zeros(3)
    for fresh in (torch.empty(3), torch.empty_like(like), like.new_empty(3), torch.empty_strided((3,), (1,))):
        assert fresh.isnan().all()
    assert torch.empty(3, dtype=torch.int64).dtype == torch.int64
    assert torch.nn.Linear(3, 3)(like).isfinite().all()
    assert torch.compile(lambda x: torch.empty_like(x) + x, fullgraph=True, backend="eager")(like).isnan().all()
    with torch.device("meta"):
        assert torch.empty(3).is_meta


def test_poisoned_memory_leaves_nothing_behind() -> None:
    with torch.device("meta"):
        assert torch.empty(3).is_meta
        assert torch.nn.Linear(3, 3).weight.is_meta


def test_peers_can_be_imported() -> None:
    import tests.tvshim

    import timm
    from transformers.models.convnext import ConvNextForImageClassification

    assert timm.is_model("poolformer_s12")
    assert issubclass(ConvNextForImageClassification, torch.nn.Module)
    assert tests.tvshim.declare_missing_operators() == []
