"""Slimming: the cheapest step first, importance accounted for, and designs that become models."""

from __future__ import annotations

import pytest

import formery
from formery.claims.efficientformer import milliseconds, planted
from formery.errors import BadSpec, CannotRun
from formery.search.slimming import Design, Slot, Stage, measured, slim


def design(*stages: tuple[int, str, list[float]]) -> Design:
    """Stages by width, kind of their blocks, importances."""
    return Design(tuple(Stage(w, tuple(Slot(k, {"maps": s, k: s}) for s in scores)) for w, k, scores in stages))  # type: ignore[arg-type, dict-item]


def flat(kind: str, stage: int, width: int) -> float:
    return width / 16


def test_the_least_important_block_goes_first() -> None:
    slimmed, steps = slim(design((32, "maps", [3.0, 0.1, 2.0]), (32, "maps", [4.0])), flat, 6.5)
    assert [(s.action, s.stage) for s in steps] == [("drop", 0)]
    assert [slot.score for slot in slimmed.stages[0].slots] == [3.0, 2.0]
    assert (steps[0].lost, steps[0].saved, steps[0].latency) == (pytest.approx(0.1), 2.0, 6.0)


def test_a_stage_is_narrowed_where_that_is_cheaper() -> None:
    """All blocks of a stage save time at once."""
    slimmed, steps = slim(design((64, "maps", [1.0, 1.0]), (64, "maps", [5.0, 5.0])), lambda k, i, w: (w / 16) ** 2, 55)
    assert (steps[0].action, steps[0].stage) == ("narrow", 0)
    assert slimmed.stages[0].width == 48
    assert steps[0].lost == pytest.approx(2 * 16 / 64)


def test_attention_is_converted_from_the_first_on() -> None:
    slots = tuple(Slot("tokens", {"maps": 1.0, "tokens": 1.01}) for _ in range(3))
    slimmed, steps = slim(Design((Stage(16, slots),)), lambda kind, *_: 2.0 if kind == "tokens" else 1.0, 4.5)
    assert [s.action for s in steps] == ["convert", "convert"]
    assert slimmed.options() == {"dims": [16], "layouts": ["maps maps tokens"]}


def test_importance_is_accounted_for() -> None:
    before = planted()
    after, steps = slim(before, milliseconds, 3.0)
    assert sum(step.lost for step in steps) == pytest.approx(before.score - after.score)
    assert sum(s.saved for s in steps) == pytest.approx(before.milliseconds(milliseconds) - steps[-1].latency)
    assert steps[-1].latency == pytest.approx(after.milliseconds(milliseconds))
    assert steps[-1].latency <= 3.0 < steps[-2].latency


def test_what_cannot_be() -> None:
    with pytest.raises(CannotRun, match=r"0\.5 ms are out of reach: what cannot be slimmed further takes 1 ms"):
        slim(design((32, "maps", [1.0, 1.0])), flat, 0.5)
    with pytest.raises(BadSpec, match="behind all blocks of maps"):
        design((16, "tokens", [1.0]), (16, "maps", [1.0]))
    with pytest.raises(BadSpec, match="multiple of 16, got 24"):
        design((24, "maps", [1.0]))
    with pytest.raises(BadSpec, match="importance of that kind"):
        Design((Stage(16, (Slot("maps", {"tokens": 1.0}),)),))


BLOCKS = {
    "maps": {"mixer": "pooling", "channel": {"kind": "normed_mlp", "last": None}},
    "tokens": {"mixer": {"kind": "biased_attention", "heads": 2, "key_dim": 8}},
}


def test_a_slim_design_is_a_model() -> None:
    """By a table of this machine's own times."""
    slots = tuple(Slot(kind, {"maps": 1.0, "tokens": 1.5}) for kind in ("maps", "maps", "tokens"))  # type: ignore[arg-type]
    table = measured(BLOCKS, (8, 4))  # type: ignore[arg-type]
    start = Design((Stage(32, slots[:2]), Stage(48, slots)))
    assert table("maps", 0, 32) == table("maps", 0, 32) > 0
    with pytest.raises(BadSpec):
        Design((Stage(32, slots), Stage(48, slots)))
    slimmed, _ = slim(start, table, 0.8 * start.milliseconds(table))
    assert slimmed.milliseconds(table) <= 0.8 * start.milliseconds(table)
    body = {"kind": "pyramid", "blocks": BLOCKS} | slimmed.options()
    spec = {"stem": {"kind": "convs", "widths": [16, slimmed.stages[0].width], "img_size": 32}, "body": body}
    assert formery.create_model(spec | {"head": "classes"}).body.num_blocks() <= 5
