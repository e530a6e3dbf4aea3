"""The quick claims, each run once; and the machinery of the slow ones, for a few steps."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from formery import create_model
from formery.claims import olmo_hybrid_learning, sequences, trials, verify
from formery.claims.check import silent
from formery.claims.verifying import chosen
from formery.data.probes.probe import IGNORED, Probe
from formery.data.probes.tracking import parity

QUICK = [(card.name, claim["id"]) for card, claim in chosen() if not claim.get("slow")]
CLOCKED = {("pre_rmsnorm", "cost")}
"""Claims about time, which a busy machine may decide either way."""


@pytest.mark.parametrize(("system", "claim"), QUICK, ids=[f"{system}:{claim}" for system, claim in QUICK])
def test_quick_claim(system: str, claim: str) -> None:
    (result,) = verify([system], claims=[claim])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["said"]
    assert result["value"]
    if (system, claim) in CLOCKED:
        assert result["verdict"] == "passed" or (result["verdict"] == "failed" and result["note"])
    else:
        assert result["verdict"] == "passed", (result["said"], result["note"])


# ------------------------------------------------------------------------------------------------ sequences


def test_permutations_compose() -> None:
    """By the table as by matrices."""
    matrices = torch.eye(3)[torch.tensor(sequences.PERMUTATIONS)]
    table = torch.tensor(sequences.AFTER)
    for a in range(6):
        for b in range(6):
            # row i of matrix p has its one at p[i]: (P_b P_a)[i] = a[b[i]]
            assert torch.equal(matrices[b] @ matrices[a], matrices[table[a, b]])
    ids, targets = sequences.exchanges().draw(0, 3, 5, 20)
    assert set(ids.unique().tolist()) == {1, 2, 3}
    now = torch.zeros(5, dtype=torch.long)
    for column, wanted in zip(ids.T, targets.T, strict=True):
        now = table[column, now]
        assert torch.equal(now, wanted)
    assert targets[:, ::2].lt(4).logical_and(targets[:, ::2] > 0).all(), "an odd number of exchanges is an exchange"


def test_recalled_asks_for_what_was_listed() -> None:
    ids, targets = sequences.recalled().draw(1, 0, 6, 5)
    listed = 2 * sequences.KEYS
    assert ids.shape == targets.shape == (6, listed + 5)
    assert (targets[:, :listed] == IGNORED).all()
    table = sequences.AFTER
    for row, answers in zip(ids.tolist(), targets.tolist(), strict=True):
        book = dict(zip(row[:listed:2], row[1:listed:2], strict=True))
        assert len(book) == sequences.KEYS
        now = 0
        for key, answer in zip(row[listed:], answers[listed:], strict=True):
            now = table[book[key]][now]
            assert now == answer


def test_needles_are_in_the_hay_once() -> None:
    num, hay = sequences.NEEDLES, sequences.HAY
    for length in (16, 33):
        ids, targets = sequences.needles().draw(2, 0, 8, length)
        assert ids.shape == (8, length)
        for row, answers in zip(ids.tolist(), targets.tolist(), strict=True):
            body, asked = row[:-num], row[-num:]
            assert len(set(asked)) == num
            assert [body[body.index(key) + 1] for key in asked] == answers[-num:]
            assert sum(token >= hay for token in body) == 2 * num
            assert all(answer == IGNORED for answer in answers[:-num])


def test_competitors_have_equal_parameters() -> None:
    hybrid = create_model(olmo_hybrid_learning._three("recurrence attention recurrence"))
    wanted = sum(p.numel() for p in hybrid.parameters())
    for layout in ("recurrence*3", "rotary*3"):
        model = create_model(olmo_hybrid_learning._matched(layout, wanted))
        assert abs(sum(p.numel() for p in model.parameters()) - wanted) < 0.01 * wanted


# ------------------------------------------------------------------------------------------------ trainings


LEARNED: list[tuple[Probe, dict[str, Any]]] = [
    (parity(sizes=(12,), trained=(12,)), olmo_hybrid_learning._recurrent(True, 2)),
    (sequences.exchanges(sizes=(12,), trained=(12,)), olmo_hybrid_learning._recurrent(False, 6)),
    (sequences.recalled(sizes=(12,), trained=(12,)), olmo_hybrid_learning._three("recurrence attention recurrence")),
    (sequences.needles(sizes=(12,), trained=(12,)), olmo_hybrid_learning._two("rope")),
]


@pytest.mark.parametrize(("probe", "spec"), LEARNED, ids=[probe.name for probe, _ in LEARNED])
def test_sequences_can_be_learned_from(probe: Probe, spec: dict[str, Any]) -> None:
    assert spec["stem"]["vocab"] == probe.vocab
    assert probe.draw(0, 0, 2, 12)[0].shape == (2, probe.tokens(12))
    told: list[str] = []
    model = olmo_hybrid_learning._trained(spec, probe, 4, 0, told.append)
    assert told[-1].startswith("step 4 of 4")
    assert 0 <= olmo_hybrid_learning._judged(model, probe, 0)["12"] <= 1
    again = olmo_hybrid_learning._trained(spec, probe, 4, 0, silent)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_trial_follows_its_seed() -> None:
    data = trials.relations_data(num=80)
    spec = trials.without_overlap(["pooling", "pooling", {"kind": "attention", "heads": 2}, "identity"], position=2)
    found = [trials.trained(spec, data, steps=4, seed=seed, progress=silent, batch_size=8) for seed in (3, 3)]
    assert found[0] == found[1]
    assert found[0].loss > 0


def test_cut_residuals_leaves_the_branch_alone() -> None:
    from formery.claims.metaformer_learning import _pyramid, cut_residuals

    model = create_model(_pyramid([1], [8], "identity", None), img_size=4).eval()
    whole = model.body.stages[0].blocks[0]  # type: ignore[index, union-attr]
    x = torch.randn(1, 4, 4, 8)
    with torch.no_grad():
        mixed = x + x
        kept = whole(x)
        torch.testing.assert_close(kept, mixed + whole.channel(mixed))
        cut_residuals(model)
        torch.testing.assert_close(whole(x), whole.channel(x))
