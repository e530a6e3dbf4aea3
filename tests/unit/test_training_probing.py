"""Probing small models: equal sizes, answers counted right, and kept work not done again."""

from __future__ import annotations

import json

import pytest
import torch

from formery.create import create_model, model_spec
from formery.data.probes.probe import IGNORED, JUDGED, Probe, ProbeData
from formery.data.probes.recall import mqar
from formery.data.probes.tracking import parity
from formery.errors import BadSpec
from formery.training import probing

PROBE = mqar(vocab=16, sizes=(2,), trained=(2,))


def test_models_of_a_probe_have_equal_sizes() -> None:
    specs = probing.equal(["attention*2", "gated_deltanet*2", "gated_deltanet attention"], PROBE, width=32)
    sizes = [sum(p.numel() for p in create_model(spec).parameters()) for spec in specs.values()]
    assert max(sizes) < 1.01 * min(sizes)


def test_a_width_is_found_for_a_number_of_parameters() -> None:
    def make(hidden: int) -> dict[str, object]:
        return probing.small("attention*2", PROBE, width=32, hidden=hidden)

    for hidden in (40, 100, 333):
        wanted = sum(p.numel() for p in create_model(make(hidden)).parameters())
        assert probing.matched(make, wanted, 64) == make(hidden)


def test_a_rope_only_where_there_is_a_place_for_it() -> None:
    spec = probing.small("gated_deltanet attention", PROBE, position="rope")
    assert "position" not in spec["body"]["blocks"]["gated_deltanet"]["mixer"]
    assert spec["body"]["blocks"]["attention"]["mixer"]["position"] == "rope"


def test_accuracy_is_the_share_of_right_answers() -> None:
    class Knows(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(ids.cumsum(1) % 2, 2).float()

    probe = parity(sizes=(8,), trained=(8,))
    assert probing.accuracy(Knows(), probe, 8) == 1.0  # type: ignore[arg-type]


def test_judging_counts_the_last_answers_only_if_asked_to() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(ids, 2).float()

    asked: list[int] = []

    def draw(seed: int, step: int, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(step)
        ids = torch.zeros(batch, length, dtype=torch.long)
        targets = torch.ones_like(ids)
        targets[:, -2:] = 0
        targets[:, -1] = IGNORED
        return ids, targets

    probe = Probe("fixed", 2, draw, (10,), (10,), "tokens", 0.5)
    found = [probing.accuracy(Fixed(), probe, 10, last=last) for last in (1, 2, 4, None)]  # type: ignore[arg-type]
    assert found == [1.0, 0.5, 0.25, 1 / 9]
    probing.accuracy(Fixed(), probe, 10, start=JUDGED + 10)  # type: ignore[arg-type]
    assert asked == [JUDGED + 1] * 4 + [JUDGED + 10]


def test_the_learning_rate_rises_for_a_tenth_of_the_steps_unless_said() -> None:
    spec, data = probing.small("attention", PROBE, width=16), ProbeData(PROBE, 20)

    def weights(**options: int) -> torch.Tensor:
        model = probing.learned(spec, data, steps=20, seed=0, batch_size=4, **options)  # type: ignore[arg-type]
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    usual = weights()
    assert torch.equal(usual, weights(warmup=2))
    assert not torch.equal(usual, weights(warmup=10))


def test_a_probe_learns_and_keeps_what_is_done() -> None:
    kept: dict[str, object] = {}

    def once(name, make):  # type: ignore[no-untyped-def]
        if name not in kept:
            kept[name] = make()
        return kept[name]

    probe = parity(sizes=(4, 8), trained=(2, 4))
    spec = probing.small("gated_deltanet", probe, width=16)
    spec["body"]["blocks"]["gated_deltanet"]["mixer"] |= {"negative": True, "conv": 1}
    found = probing.run_probe(probe, {"delta": spec}, steps=150, batch_size=32, learning_rate=1e-2, once=once)
    assert json.loads(json.dumps(found)) == found
    (row,) = found["models"]
    assert row["accuracy"]["4"] > 0.8
    (key,) = kept
    kept[key]["accuracy"]["4"] = 0.123  # type: ignore[index]
    again = probing.run_probe(probe, {"delta": spec}, steps=150, once=once)
    assert again["models"][0]["accuracy"]["4"] == 0.123


def test_a_model_is_kept_under_its_spec_and_a_short_name() -> None:
    small, wide = (model_spec(probing.small("attention*2", PROBE, width=16, hidden=n)) for n in (32, 33))
    key = probing.trial_key("attention*2", small, 0)
    assert key.startswith("attentionx2-")
    assert key == probing.trial_key("attention*2", dict(reversed(small.items())), 0)
    assert len({key, probing.trial_key("attention*2", wide, 0), probing.trial_key("attention*2", small, 1)}) == 3
    long = probing.trial_key("../ä " * 200, small, 12)
    assert len(long.encode()) < 80
    assert "/" not in long


def test_what_cannot_be_probed() -> None:
    with pytest.raises(BadSpec, match="at least one"):
        probing.run_probe(PROBE, {})
    with pytest.raises(BadSpec, match="16 tokens"):
        probing.run_probe(PROBE, {"other": probing.small("attention", mqar(vocab=32, sizes=(2,), trained=(2,)))})
    with pytest.raises(BadSpec, match="next token"):
        probing.run_probe(PROBE, {"image": "vit_tiny"})  # type: ignore[dict-item]
