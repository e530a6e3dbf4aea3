"""What is handed to generation, checked before anything is read: one line for each mistake."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ...errors import BadSpec, CannotRun
from ...model import Model
from ...registry import nearest
from .tokenizers import Tokenizer

LARGEST_SEED = 2**63 - 1
"""The largest that torch's generators take in both directions."""


def check_model(model: Any) -> None:
    """CannotRun unless it is a formery model, as it is or as `torch.compile` gives it back."""
    if not isinstance(getattr(model, "_orig_mod", model), Model):
        raise CannotRun(
            f"formery generates with its own models, got {type(model).__name__}; interop.transformers.load opens a "
            "folder of transformers"
        )


def check_options(given: Iterable[str], known: Iterable[str]) -> None:
    """BadSpec for a name that is no option."""
    names = set(known)
    for name in given:
        if name not in names:
            raise BadSpec(f"generation takes no option {name!r}; {nearest(name, names)}")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """`value` as an int; BadSpec where it is no whole number, or below `least`."""
    at_least = "" if least is None else f" of at least {least}"
    if not _is_whole(value):
        raise BadSpec(f"{name} is a whole number{at_least}, got {value!r}")
    if least is not None and operator.index(value) < least:
        raise BadSpec(f"{name} is at least {least}, got {value}")
    return operator.index(value)


def check_number(name: str, value: Any) -> None:
    """BadSpec where `value` is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise BadSpec(f"{name} is a number, got {value!r}")


def seed_of(value: Any) -> int:
    """A seed; BadSpec where no generator takes it."""
    found = whole("seed", value)
    if abs(found) > LARGEST_SEED:
        raise BadSpec(f"seed is at most {LARGEST_SEED}, got {found}")
    return found


def check_tokenizer(tokenizer: Any) -> None:
    """BadSpec unless it has what generation needs of a `Tokenizer`."""
    if not all(hasattr(tokenizer, name) for name in ("encode", "decode", "unfolding", "end")):
        raise BadSpec(
            f"tokenizer is one of formery's, got {type(tokenizer).__name__}; open_tokenizer(folder) reads a folder's"
        )


def ends_of(given: Any, vocab: int) -> frozenset[int]:
    """Tokens that end a row; BadSpec where they are none of the model's."""
    if not isinstance(given, Iterable):
        raise BadSpec(f"end is a list of token numbers, got {given!r}")
    return frozenset(_known([whole("a token of end", token) for token in given], vocab, "end"))


def prompts_of(given: Any) -> list[Any]:
    """Each prompt by itself, a text or what should be its token numbers; BadSpec where there is none."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, Tensor):
        if given.dim() != 2:
            raise BadSpec(f"prompts are tokens (batch, length), got {list(given.shape)}")
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise BadSpec(f"prompts are whole numbers of tokens, got {given.dtype}; give ids, not scores or embeddings")
        given = given.tolist()
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise BadSpec(f"prompts are a text, a list of prompts, or tokens (batch, length), got {type(given).__name__}")
    prompts = list(given)
    if not prompts:
        raise BadSpec("no prompt is given; give at least one")
    return prompts


def tokens_of(prompt: Any, tokenizer: Tokenizer | None, vocab: int) -> list[int]:
    """Token numbers of a prompt, at least one, all of them the model's; BadSpec otherwise."""
    if isinstance(prompt, str):
        assert tokenizer is not None
        tokens = tokenizer.encode(prompt)
    elif _is_whole(prompt):
        raise BadSpec("prompts are several; put the tokens of one into a list of their own")
    elif not isinstance(prompt, Iterable):
        raise BadSpec(f"a prompt is a text or a list of token numbers, got {prompt!r}")
    else:
        tokens = [whole("a token of a prompt", token) for token in prompt]
    if not tokens:
        raise BadSpec("a prompt is empty; give it at least one token to go on from")
    return _known(tokens, vocab, "a prompt")


def _known(tokens: list[int], vocab: int, where: str) -> list[int]:
    for token in tokens:
        if not 0 <= token < vocab:
            raise BadSpec(f"token {token} of {where} is none of the model's, which are 0 to {vocab - 1}")
    return tokens


def _is_whole(value: Any) -> bool:
    """Of any library's kind."""
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dim()):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
