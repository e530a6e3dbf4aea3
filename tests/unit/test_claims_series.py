"""Claims about series and chunks: their drawn data."""

from __future__ import annotations

import torch

from formery.claims import gtrxl_learning, series, tcnca_learning


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
