"""What breaks claims about TNT."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest

from formery.bodies import nested
from formery.claims import tnt
from formery.claims.check import Check
from formery.parts.mixers.attention import Attention
from formery.parts.stems.pixel_words import PixelWords
from tests.unit.claims_broken import Break


def added_twice(patch: pytest.MonkeyPatch) -> None:
    """Something is added to the tokens of the second block beside what its words say."""
    whole = nested.Nested.step

    def step(self: nested.Nested, index: int, pair: nested.Pair, *rest: Any) -> nested.Pair:
        return whole(self, index, pair._replace(tokens=pair.tokens + 1e-6) if index else pair, *rest)

    patch.setattr(nested.Nested, "step", step)


def whole_image(patch: pytest.MonkeyPatch) -> None:
    """The convolution sees what is beyond the patch."""
    whole = PixelWords.__init__

    @wraps(whole)
    def init(self: PixelWords, **options: Any) -> None:
        whole(self, **options | {"across": True})

    patch.setattr(PixelWords, "__init__", init)


def nothing_told(patch: pytest.MonkeyPatch) -> None:
    """Tokens see neither their words nor each other."""
    patch.setattr(Attention, "forward", lambda self, x, *rest: x)


def many_words(patch: pytest.MonkeyPatch) -> None:
    whole = Attention.macs

    def macs(self: Attention, tokens: int, past: int = 0) -> int:
        return whole(self, tokens, past) * (16 if tokens == 16 else 1)

    patch.setattr(Attention, "macs", macs)


BROKEN: list[tuple[Check, Break]] = [
    (tnt.vit_inside, added_twice),
    (tnt.words_stay, whole_image),
    (tnt.words_stay, nothing_told),
    (tnt.small_cost, many_words),
]
