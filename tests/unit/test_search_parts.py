"""The pieces of a fit: candidates that build, a race that halves, a journal that repeats nothing, budgets in steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from formery.context import Context
from formery.data import ArrayData, open_data
from formery.data.text import TextData
from formery.errors import BadSpec, Unwritable
from formery.model import Model
from formery.search import budget
from formery.search.candidates import propose
from formery.search.journal import Journal
from formery.search.race import race, ranking
from formery.search.settings import Settings
from formery.tasks import task_of


def images(side: int) -> ArrayData:
    pixels = torch.rand(60, 3, side, side)
    return ArrayData(pixels, torch.arange(60) % 3)


@pytest.mark.parametrize("side", [8, 9, 28, 32, 64, 75])
def test_candidates_for_images_of_any_size_build_and_run(side: int) -> None:
    data = images(side)
    task, found = task_of("classify"), propose(data)
    assert len(found) >= 6
    assert {c.pure for c in found} == {True, False}
    assert len({c.name for c in found}) == len(found)
    for candidate in found:
        model = Model(task.fit_spec(candidate.spec, data))
        assert task.loss(model, data.train_batch(0, 4)).isfinite(), candidate.name


@pytest.mark.parametrize("num_bytes", [3_000, 300_000])
def test_candidates_for_text_are_causal_and_stream(num_bytes: int) -> None:
    data = TextData(bytes(range(32, 127)) * (num_bytes // 95))
    recipe = budget.habits(data)
    task = task_of(recipe.task("language"))
    found = propose(data)
    assert len(found) >= 6
    for candidate in found:
        with torch.device("meta"):
            assert Model(task.fit_spec(candidate.spec, data)).streams, candidate.name


def test_a_pure_candidate_has_one_kind_of_mixer_and_a_mixed_one_several() -> None:
    from formery.spec import resolve, walk

    for source in (images(32), open_data("pydoc")):
        for candidate in propose(source):
            nodes = [node for _, role, node in walk(resolve(candidate.spec)) if role == "mixer"]
            mixers = {(node["kind"], node.get("window")) for node in nodes}
            assert (len(mixers) == 1) is candidate.pure, (candidate.name, mixers)


def test_a_race_halves_its_field_and_settles_ties_without_a_clock() -> None:
    seen: list[tuple[str, int]] = []

    def train(name: str, steps: int, rung: int) -> dict[str, Any]:
        seen.append((name, steps))
        scores = {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.2, "e": 0.1}
        return {"score": scores[name], "params": {"a": 9, "b": 3}.get(name, 5)}

    rounds = race(["a", "b", "c", "d", "e"], [10, 20, 40], train)
    assert [r.steps for r in rounds] == [10, 20, 40]
    assert [len(r.results) for r in rounds] == [5, 3, 2]
    assert rounds[-1].kept == ["b", "a"]
    assert seen.count(("e", 10)) == 1
    assert ("e", 20) not in seen


def test_equal_models_keep_the_order_of_their_names() -> None:
    results = {name: {"score": 1.0, "params": 1} for name in "zyx"}
    assert ranking(["z", "y", "x"], results) == ["z", "y", "x"]


def test_a_journal_makes_each_result_once(tmp_path: Any) -> None:
    journal, calls = Journal(tmp_path / "work" / "journal"), []
    with pytest.raises(UnicodeEncodeError):
        journal.begin({"data": "\udce9"}, resume=False)
    assert not journal.folder.exists()

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"pair": (1, 2)}

    assert journal.once("a/b", make) == journal.once("a/b", make) == {"pair": [1, 2]}
    assert len(calls) == 1


def test_a_folder_with_a_fit_is_not_taken_over_by_another(tmp_path: Any) -> None:
    journal = Journal(tmp_path / "work" / "journal")
    journal.begin({"data": {"digest": "x"}}, resume=False)
    with pytest.raises(Unwritable, match="--resume"):
        journal.begin({"data": {"digest": "x"}}, resume=False)
    journal.begin({"data": {"digest": "x"}}, resume=True)
    with pytest.raises(BadSpec, match="other data: digest 'x', now 'y'"):
        journal.begin({"data": {"digest": "y"}}, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_latency": 0.0}, "max-latency"),
        ({"max_latency": float("nan")}, "max-latency"),
        ({"max_params": 0}, "max-params"),
        ({"minutes": -1.0}, "minutes"),
        ({"effort": 0.0}, "effort"),
        ({"max_drop": -0.1}, "max-drop"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        Settings(**options)


def test_budgets_follow_from_data_or_from_minutes() -> None:
    data = images(8)
    by_data = budget.final_steps(None, Settings(), data)
    assert by_data == budget.final_steps(None, Settings(), data)
    assert budget.final_steps(None, Settings(effort=2.0), data) == 2 * by_data
    assert budget.final_steps(0.1, Settings(minutes=1.0), data) == int(budget.FINAL_SHARE * 600)
    seconds = {"a": 0.1, "b": 0.3}
    last = budget.race_steps(2, seconds, Settings(minutes=10.0), data)
    marks = budget.rungs(last, budget.NUM_RUNGS)
    assert marks == sorted(marks)
    spent = 0.2 * (2 * marks[0] + 1 * (marks[-1] - marks[0]))
    assert 0.5 < spent / (budget.RACE_SHARE * 600) < 1.2


def test_streaming_candidates_agree_with_their_whole() -> None:
    data = TextData(bytes(range(32, 127)) * 50)
    task = task_of(budget.habits(data).task("language"))
    candidate = next(c for c in propose(data) if c.name == "delta3_attention")
    model = Model(task.fit_spec(candidate.spec, data)).eval()
    ids = torch.randint(0, 256, (2, 12))
    with torch.no_grad():
        whole = model(ids, ctx=Context())
        state = model.new_state(2, 12)
        parts = torch.cat([model(ids[:, :5], state=state), model(ids[:, 5:], state=state)], dim=1)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)
