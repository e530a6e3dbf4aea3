"""Claims about series and chunks: their drawn data, and that what breaks a mechanism breaks its claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from formery.claims import gtrxl, gtrxl_learning, lmuformer, series, tcnca, tcnca_learning
from formery.claims.check import Check
from formery.ops import legendre_memory as rule
from formery.ops.temporal_convolution import temporal_convolution
from formery.parts.mixers import segment_attention
from formery.parts.schemes import gated

Break = Callable[[pytest.MonkeyPatch], None]


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


def other_window(patch: pytest.MonkeyPatch) -> None:
    whole = rule.readout
    patch.setattr(rule, "readout", lambda order, delays: whole(order, 1 - delays))


def forgetful_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rule, "trajectory", lambda memory, tables, length: 0 * memory[:, :, None])


def late_gates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gated.GRU, "forward", lambda self, x, y: x + y)


def past_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(segment_attention, "last_tokens", lambda past, x, lengths: torch.zeros_like(past))


def one_tap_more(patch: pytest.MonkeyPatch) -> None:
    def shifted(x: Tensor, *args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        y, tail = temporal_convolution(x, *args, **more)
        return y.roll(1, dims=1), tail

    patch.setattr("formery.parts.mixers.temporal_convolution.temporal_convolution", shifted)


def chunks_elsewhere(patch: pytest.MonkeyPatch) -> None:
    module = "formery.parts.mixers.gated_chunk_attention"
    patch.setattr(f"{module}.along_rows", lambda rows, x, ctx, state: rows(x.roll(3, dims=1), ctx, state, None))


BREAKS: list[tuple[Check, Break]] = [
    (lmuformer.window, other_window),
    (lmuformer.recurrence, forgetful_memory),
    (gtrxl.identity, late_gates),
    (gtrxl.segments, past_forgotten),
    (tcnca.reach, one_tap_more),
    (tcnca.ring_buffers, one_tap_more),
    (tcnca.chunks, chunks_elsewhere),
]


@pytest.mark.parametrize(("check", "broken"), BREAKS, ids=[f"{c.__name__}-{b.__name__}" for c, b in BREAKS])
def test_a_broken_claim_is_found(check: Check, broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    found = check()
    assert not found.passed
    assert found.said
