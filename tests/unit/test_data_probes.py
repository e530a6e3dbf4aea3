"""Every probe: answers that stand in the sequence, batches that are pure functions of their step, and recordings."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from formery import registry
from formery.data.probes.listops import CLOSE, DIGIT, OPERATORS, expressions, tree
from formery.data.probes.pathfinder import ARENA, Drawing, picture
from formery.data.probes.probe import IGNORED, JUDGED, Probe, ProbeData
from formery.data.probes.recall import ASK, MARK, QUESTION, SEPARATOR, mqar, mqar_as_released, needle, phonebook
from formery.errors import BadSpec
from tests import goldens

NAMES = sorted(registry.index("probe"))
QUICK = {"listops": 32, "pathfinder": 16}


def made(name: str) -> Probe:
    probe: Probe = registry.find("probe", name)()
    return probe


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_keeps_what_it_says(name: str) -> None:
    probe = made(name)
    size = QUICK.get(name, probe.trained[0])
    ids, targets = probe.draw(3, 5, 4, size)
    assert probe.name == name
    assert ids.shape == targets.shape == (4, probe.tokens(size))
    assert ids.dtype == targets.dtype == torch.long
    counted = targets[targets != IGNORED]
    assert len(counted)
    for tokens in (ids, counted):
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < probe.vocab
    again, other, judged = (probe.draw(3, step, 4, size)[0] for step in (5, 6, JUDGED))
    assert torch.equal(ids, again)
    assert not any(torch.equal(ids, different) for different in (other, judged))
    assert not torch.equal(ids, probe.draw(4, 5, 4, size)[0])


def test_sizes_rise_with_the_steps() -> None:
    data = ProbeData(mqar(trained=(2, 4)), steps=10)
    assert [data.size_at(step) for step in (0, 4, 5, 9, 99)] == [2, 2, 4, 4, 4]
    assert data.train_batch(0, 3, 77)[0].shape == (3, 32)
    assert data.digest != ProbeData(mqar(trained=(2, 4), vocab=128), steps=10).digest


def test_mqar_equals_the_released_generator() -> None:
    found = mqar_as_released(256, 16, 64, 4)
    outputs = dict(zip(("inputs", "labels"), map(torch.from_numpy, found), strict=True))
    assert goldens.worst_error("mqar", outputs) == 0


def test_mqar_answers_are_the_values_of_the_keys() -> None:
    ids, targets = mqar().draw(0, 0, 8, 8)
    for row, answers in zip(ids.tolist(), targets.tolist(), strict=True):
        values = dict(zip(row[0:16:2], row[1:16:2], strict=True))
        assert len(values) == 8
        asked = {row[i]: answer for i, answer in enumerate(answers) if answer != IGNORED}
        assert asked == values


def test_a_small_power_asks_soon() -> None:
    def gap(power: float) -> float:
        targets = mqar(power=power, spread=8).draw(0, 0, 64, 4)[1]
        return float((targets != IGNORED).nonzero()[:, 1].float().median())

    assert gap(0.01) < gap(1.0)


@pytest.mark.parametrize("mode", ["standard", "reversed"])
def test_phonebook_numbers_are_those_listed(mode: str) -> None:
    ids, targets = phonebook(mode=mode, digits=3).draw(0, 0, 6, 5)  # type: ignore[arg-type]
    for row, answers in zip(ids.tolist(), targets.tolist(), strict=True):
        body = row[2:] if mode == "reversed" else row
        entries = [body[i : i + 5] for i in range(0, 25, 5)]
        assert all(entry[-1] == SEPARATOR for entry in entries)
        assert body[25] == QUESTION
        assert mode == "standard" or row[:2] == body[25:27]
        listed = {entry[0]: entry[1:4] for entry in entries}
        assert answers[-3:] == listed[body[26]]
        assert answers[:-3] == [IGNORED] * (len(row) - 3)


def test_needles_lie_where_they_are_asked_for() -> None:
    for depth, where in ((0.0, 0), (1.0, None)):
        ids, targets = needle(depth=depth, digits=2).draw(0, 0, 5, 64)
        at = (ids == MARK).nonzero()[:, 1]
        hay = int((ids == ASK).nonzero()[0, 1])
        assert (at == (0 if where == 0 else hay - 4)).all()
        for row, answers, place in zip(ids.tolist(), targets.tolist(), at.tolist(), strict=True):
            assert row[place + 1] == row[hay + 1]
            assert answers[-2:] == row[place + 2 : place + 4]
    with pytest.raises(BadSpec, match=r"0\.\.1"):
        needle(depth=2)


def _evaluated(ids: list[int]) -> int:
    """An independent evaluator: a stack instead of a tree."""
    stack: list[list[int]] = [[]]
    for token in ids:
        if token < len(OPERATORS):
            stack.append([token])
        elif token == CLOSE:
            operator, *values = stack.pop()
            middle = sorted(values)
            half = len(middle) // 2
            median = middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) // 2
            stack[-1].append([min(values), max(values), median, sum(values) % 10][operator])
        else:
            stack[-1].append(token - DIGIT)
    return stack[0][0]


def test_listops_values() -> None:
    draw = random.Random(7)
    for _ in range(10_000):
        ids, value = tree(draw, 4, 5)
        assert _evaluated(ids) == value


@pytest.mark.parametrize(
    ("golden", "seed", "num", "options"),
    [
        ("lra_listops_default", 0, 3, {}),
        ("lra_listops_small", 1, 40, {"max_depth": 5, "max_args": 5, "shortest": 5, "longest": 60}),
    ],
)
def test_listops_equals_the_released_generator(golden: str, seed: int, num: int, options: dict[str, int]) -> None:
    source = expressions(random.Random(seed), **options)  # type: ignore[arg-type]
    found = [next(source) for _ in range(num)]
    outputs = {
        "tokens": torch.tensor([token for ids, _ in found for token in ids]),
        "values": torch.tensor([value for _, value in found]),
        "lengths": torch.tensor([len(ids) for ids, _ in found]),
    }
    assert goldens.worst_error(golden, outputs) == 0


def test_pathfinder_tells_nothing_by_its_ink() -> None:
    draw, small = random.Random(0), Drawing(16, 4, 2, 2, apart=5.0)
    ink: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(120):
        image, joined = picture(draw, small)
        assert image.shape == (16, 16)
        ink[joined].append(float(image.mean()))
    means, spread = [np.mean(values) for values in ink.values()], np.std(ink[0] + ink[1])
    assert min(map(len, ink.values())) > 30
    assert abs(means[0] - means[1]) < 0.5 * spread
    assert picture(draw, ARENA)[0].shape == (32, 32)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("mqar", {"vocab": 16}, "vocab=16 has 7 keys for 32 pairs"),
        ("mqar", {"power": 0}, r"mqar\.power: input should be greater than 0, got 0"),
        ("mqar", {"power": float("nan")}, r"mqar\.power: .*nan"),
        ("mqar", {"spread": 0}, r"mqar\.spread: "),
        ("mqar", {"sizes": []}, r"mqar\.sizes: "),
        ("mqar", {"sizes": 4}, r"mqar\.sizes: "),
        ("mqar", {"trained": [0]}, r"mqar\.trained\.0: "),
        ("mqar", {"voca": 3}, "mqar takes no option 'voca'; did you mean vocab"),
        ("phonebook", {"names": 3}, "names=3 are too few"),
        ("phonebook", {"digits": 0}, r"phonebook\.digits: input should be greater than or equal to 1, got 0"),
        ("phonebook", {"mode": "x"}, r"phonebook\.mode: input should be 'standard' or 'reversed', got 'x'"),
        ("induction", {"vocab": 0}, r"induction\.vocab: "),
        ("induction", {"sizes": [3]}, "induction: two marks with tokens between them need sizes of at least 4, got 3"),
        ("needle", {"digits": 0}, r"needle\.digits: "),
        ("needle", {"digits": 2, "trained": [6]}, "of 2 digits and its question need sizes of at least 7, got 6"),
        ("copy", {"vocab": 0}, r"copy\.vocab: "),
        ("selective_copy", {"vocab": 0}, r"selective_copy\.vocab: "),
        ("selective_copy", {"remembered": 0}, r"selective_copy\.remembered: "),
        ("selective_copy", {"sizes": [7]}, "8 tokens to remember need sizes of at least 8, got 7"),
        ("permutations", {"things": 9}, "things is 2 to 5, got 9"),
        ("permutations", {"things": 3.5}, r"permutations\.things: "),
        ("parity", {"sizes": [2.5]}, r"parity\.sizes\.0: "),
        ("listops", {"max_depth": 1}, r"listops\.max_depth: "),
        ("listops", {"sizes": [4]}, "listops: .* need sizes of at least 5, got 4"),
        ("listops", {"max_depth": 2, "max_args": 2}, "they have 4 tokens at most, too few for 128"),
        ("pathfinder", {"sizes": [11]}, "pathfinder: paths need sizes of at least 12, got 11"),
        ("topics_text", {"sizes": [1]}, r"topics_text\.sizes\.0: "),
        ("topics_retrieval", {"trained": [1]}, r"topics_retrieval\.trained\.0: "),
        ("digits_pixels", {"sizes": [12]}, r"digits_pixels\.sizes\.0: input should be a multiple of 8, got \[12\]"),
        ("digits_pixels", {"trained": [4]}, r"digits_pixels\.trained\.0: input should be a multiple of 8, got \[4\]"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSpec, match=says) as caught:
        registry.find("probe", name)(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("induction", {"trained": [4]}),
        ("needle", {"digits": 2, "trained": [7]}),
        ("selective_copy", {"remembered": 3, "trained": [3]}),
        ("listops", {"trained": [5]}),
        ("digits_pixels", {"trained": [24]}),
        ("topics_text", {"trained": [2]}),
        ("topics_retrieval", {"trained": [2]}),
        ("copy", {"vocab": 2, "trained": [1]}),
        ("phonebook", {"digits": 1, "names": 32, "trained": [1]}),
    ],
)
def test_the_smallest_sizes_are_drawn_as_they_are(name: str, options: dict[str, Any]) -> None:
    probe = registry.find("probe", name)(**options)
    (size,) = probe.trained
    ids, targets = probe.draw(0, 0, 16, size)
    assert ids.shape == targets.shape == (16, probe.tokens(size))
    assert ((targets != IGNORED).sum(1) >= 1).all()
