"""Claims about series and chunks: their drawn data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from formery.claims import gtrxl_learning, series, tcnca_costs, tcnca_learning
from formery.parts.mixers.temporal_convolution import TemporalConvolution


def test_words_are_three_tones_in_the_first_half() -> None:
    x, words = series.tone_words(0)(3, 64)
    assert x.shape == (64, series.FRAMES, series.BANDS)
    assert set(words.tolist()) == set(range(series.WORDS))
    again, _ = series.tone_words(0)(3, 64)
    assert torch.equal(x, again)
    loud = x.amax(-1) > 1.7
    assert loud[:, 40].float().mean() > 0.6
    assert loud[:, 76:].float().mean() < 0.05


def test_the_cue_is_at_the_entrance_alone() -> None:
    x, cues = gtrxl_learning.delayed(1, 20)(0, 32)
    assert torch.equal(x[:, 0, : gtrxl_learning.CUES].argmax(-1), cues)
    assert (x[:, -1, gtrxl_learning.CUES] == 1).all()


def test_what_is_asked_was_listed() -> None:
    ids, answers = tcnca_learning.asked(2)(0, 16)
    pairs, num = 2 * tcnca_learning.PAIRS, tcnca_learning.PAIRS
    for row, wanted in zip(ids.tolist(), answers.tolist(), strict=True):
        book = dict(zip(row[:pairs:2], row[1:pairs:2], strict=True))
        assert len(book) == num
        assert [book[key] for key in row[-num:]] == wanted
        assert set(row[pairs:-num]) == {tcnca_learning.VOCAB - 1}
    assert pairs < tcnca_learning.LENGTH - tcnca_learning.CHUNK


@pytest.mark.parametrize(("bend", "passes"), [(1, True), (5, False)])
def test_costs_are_told_as_the_clock_has_them(bend: int, passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions that are linear, and `bend` times as slow from 8,192 tokens on."""

    def clock(part: object, x: Tensor) -> float:
        slower = bend if x.shape[1] >= 8192 else 1
        return 1e-6 * x.shape[1] * (slower if isinstance(part, TemporalConvolution) else 100)

    monkeypatch.setattr(tcnca_costs, "_seconds", clock)
    found = tcnca_costs.costs()
    assert found.passed is passes
    assert found.value["slopes"]["average"] == pytest.approx(1)
    said = "grows 10.0-fold from 4,096 to 8,192 tokens; the slope is 1.00 before and 1.00 after" in found.note
    assert said is not passes
