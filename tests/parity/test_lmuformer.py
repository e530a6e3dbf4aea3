"""LMUFormer under published weights: recorded outputs, whole and heard piece by piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from formery.model import Model
from formery.ops import legendre_memory as rule
from formery.parts.norms.batch import Batch
from formery.runtime.listening import Listening, beginnings
from formery.systems.language import lmuformer
from tests import goldens
from tests.parity.agreement import assert_same

WANTED = 1e-5
"""Of the output's scale."""


def small(fires: str | None, seed: int) -> tuple[Model, dict[str, Tensor], Tensor]:
    """The recorded network with the published weights, those weights, and the recorded input."""
    model = Model({"name": "lmuformer", **lmuformer.spec(dim=16, in_chans=20, num_classes=7, fires=fires)}).eval()
    golden = "lmuformer_tiny" if fires is None else "lmuformer_spiking_tiny"
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == goldens.facts(golden)["params"]
    assert_same(model.to_published("authors"), theirs)
    return model, theirs, goldens.normal((2, 128, 20), seed)


def test_the_memory() -> None:
    """A, B, the impulse response, the cell's output by Fourier transform, and the last memory by recurrence."""
    tables = rule.Tables(*(table.float() for table in rule.tables(8, 24.0)))
    theirs = goldens.state_from(goldens.facts("lmu_cell")["tensors"])
    x = goldens.normal((2, 24, 6))
    u = torch.relu(x @ theirs["W_u.weight"].T + theirs["W_u.bias"])
    m, _ = rule.legendre_memory(u, tables)
    h = torch.relu(torch.cat([m[:, :, 0], x], dim=-1) @ theirs["W_h.weight"].T + theirs["W_h.bias"])
    outputs = {
        "A": tables.powers[0],
        "B": tables.impulse[:1].T,
        "H": tables.impulse[:24].T,
        "h": h,
        "memory_last": rule.reference(u, tables)[1][:, 0],
    }
    assert goldens.worst_error("lmu_cell", outputs) < 2e-6


@pytest.mark.parametrize("fires", [None, "before"])
def test_recorded_outputs(fires: str | None) -> None:
    model, _, x = small(fires, seed=0 if fires is None else 1)
    with torch.no_grad():
        features = model.forward_intermediates(x, indices=[0], output_fmt="NLC", intermediates_only=True)[0]
        prefixes = beginnings(model, x)
        outputs = {"logits": model(x), "features": features.mT, "logits_prefix": prefixes.transpose(0, 1)}
    golden = "lmuformer_tiny" if fires is None else "lmuformer_spiking_tiny"
    assert goldens.worst_error(golden, outputs) < WANTED


@pytest.mark.parametrize("fires", [None, "before", "after"])
@pytest.mark.parametrize("split", [[1] * 40, [7, 1, 2, 3, 27], [40]])
def test_heard_piece_by_piece(fires: str | None, split: list[int]) -> None:
    """Each answer comes five frames late and is that of the whole; the last five come when the series ends."""
    torch.manual_seed(0)
    model = Model(lmuformer.spec(dim=12, in_chans=6, num_classes=5, fires=fires)).double()
    model.init_weights(0.5)
    for module in model.modules():
        if isinstance(module, Batch):
            module.momentum = 1.0
    model(torch.randn(8, 30, 6, dtype=torch.float64))  # statistics under which neurons fire
    model.eval()
    x = torch.randn(2, 40, 6, dtype=torch.float64)
    whole = beginnings(model, x)
    assert whole.std(1).min() > 1e-3  # a silent net would be equal to itself as well
    torch.testing.assert_close(whole[:, -1], model(x))
    listening, heard = Listening(model, 2), []
    assert listening.delay == 5
    for number, chunk in enumerate(x.split(split, dim=1)):
        last = number == len(split) - 1
        heard.append(listening.hear(chunk, last=last))
        frames = sum(split[: number + 1])
        assert sum(part.shape[1] for part in heard) == (frames if last else max(0, frames - 5))
    torch.testing.assert_close(torch.cat(heard, dim=1), whole)
