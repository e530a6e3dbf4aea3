"""Texts by a convolution over words: the tokens of padded rows, positions, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery.context import NOTHING, Context
from formery.errors import BadSpec, CannotRun
from formery.model import Model
from formery.parts.stems.word_convs import WordConvs

VOCAB = 40
TEXT: dict[str, Any] = {
    "stem": {"kind": "word_convs", "dim": 32, "vocab": VOCAB, "words": 12, "length": 20},
    "body": {
        "kind": "stack",
        "depth": 2,
        "mixer": {"kind": "attention", "heads": 2, "bias": False},
        "channel": {"kind": "mlp", "ratio": 1.0},
        "scheme": "between",
        "position": {"kind": "learned", "init": "sine", "frozen": True},
    },
    "head": {"kind": "classes", "pool": "sequence", "num_classes": 4},
}


def words(batch: int, length: int) -> Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_tokens_of_words(size: int) -> None:
    stem = WordConvs(dim=6, vocab=VOCAB, words=5, size=size).double()
    for length in (5, 8, 13):
        x, ctx = stem(words(2, length), NOTHING)
        y = F.relu(F.conv1d(stem.embed(words(2, length)).mT, stem.conv.weight, padding=size // 2))
        torch.testing.assert_close(x, F.max_pool1d(y, 2, 2, 1).mT)
        assert x.shape[1] == stem.tokens_of(length)
        assert ctx == NOTHING


@torch.no_grad()
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("position", ["learned", None])
def test_a_padded_row_is_its_words_alone(size: int, position: str | None) -> None:
    body = TEXT["body"] | ({} if position else {"position": None})
    model = Model({**TEXT, "stem": TEXT["stem"] | {"size": size}, "body": body}).double().eval()
    ids, padding = words(4, 20), torch.zeros(4, 20, dtype=torch.bool)
    for row, (first, last) in enumerate([(0, 20), (0, 13), (3, 17), (8, 20)]):
        padding[row, :first] = padding[row, last:] = True
    together = model(ids, ctx=Context(padding=padding))
    for row in range(4):
        torch.testing.assert_close(together[row : row + 1], model(ids[row][~padding[row]][None]))
    changed = ids.where(~padding, (ids + 7) % VOCAB)
    assert torch.equal(model(changed, ctx=Context(padding=padding)), together)


def test_what_words_cannot_do() -> None:
    model = Model(TEXT)
    with pytest.raises(CannotRun, match="packed texts have no borders between the tokens of this stem"):
        model(words(1, 12), ctx=Context(bounds=torch.tensor([0, 5, 12])))
    with pytest.raises(BadSpec, match="its tokens join neighbouring words, so they cannot predict the next one"):
        Model({**TEXT, "head": {"kind": "next_token", "vocab": VOCAB}})
    with pytest.raises(CannotRun, match="the learned positions end at 11 tokens, got 13"):
        model(words(1, 24))
