"""Answers that stand in the context: multi-query associative recall, phonebook, induction, needles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...errors import BadSpec
from .. import chance
from .probe import IGNORED, Count, Kinds, Probe, Sizes, checked, integers, long_enough, nothing_counts, orders

if TYPE_CHECKING:
    from torch import Tensor


@checked
def mqar(
    *,
    vocab: int = 256,
    power: Annotated[float, Field(gt=0)] = 0.01,
    fillers: bool = False,
    spread: Count = 4,
    sizes: Sizes = (4, 8, 16, 32),
    trained: Sizes = (4, 8, 16),
) -> Probe:
    """Multi-query associative recall (Zoology, arXiv 2312.04927): pairs of keys and values, then the keys again.

    A size is a number of pairs; a sequence has `spread` times 4 tokens a pair at least. Keys are 1 to vocab/2 - 1,
    values from vocab/2 on, 0 is filler (with `fillers`, any token). Where a key comes again is drawn with a density
    that falls for `power` below 1. The answer to a key is due at the key itself.
    """
    most = max(*sizes, *trained)
    if vocab // 2 - 1 < most:
        raise BadSpec(f"vocab={vocab} has {vocab // 2 - 1} keys for {most} pairs; take a larger one")

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        half, length = vocab // 2, 4 * size * spread
        slots = (length - 2 * size) // 2
        keys = 1 + orders(seed, "mqar keys", step, batch, half - 1, most=size)
        values = half + orders(seed, "mqar values", step, batch, vocab - half, most=size)
        weights = np.log(power) + (power - 1) * np.log(np.arange(1, slots + 1))
        # The largest keys of log weights with Gumbel noise are a draw without replacement.
        noise = -np.log(-np.log(np.clip(chance.uniform(seed, "mqar slots", step, batch * slots), 1e-12, 1 - 1e-12)))
        chosen = torch.from_numpy(weights + noise.reshape(batch, slots)).argsort(dim=1, descending=True)[:, :size]
        ids = torch.zeros(batch, length, dtype=torch.long)
        if fillers:
            ids = integers(seed, "mqar fillers", step, (batch, length), vocab)
        ids[:, 0 : 2 * size : 2], ids[:, 1 : 2 * size : 2] = keys, values
        at = 2 * size + 2 * chosen
        targets = nothing_counts(ids).scatter(1, at, values)
        return ids.scatter(1, at, keys), targets

    options = {"vocab": vocab, "power": power, "fillers": fillers, "spread": spread}
    return Probe(
        "mqar", vocab, draw, tuple(sizes), tuple(trained), "pairs", 2 / vocab, lambda n: 4 * n * spread, options
    )


def mqar_as_released(
    vocab: int, num: int, length: int, pairs: int, *, seed: int = 0, power: float = 0.01
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(inputs, labels), each (num, length), of Zoology's own generator without random fillers, number for number.

    It draws from numpy's legacy generator: the keys of all rows, the values of all rows, then the slots of all rows.
    """
    if vocab <= length or 4 * pairs > length or length % 2:
        raise BadSpec(f"vocab > length >= 4 pairs and an even length, got {vocab}, {length}, {pairs}")
    random = np.random.RandomState(seed)
    half, slots = vocab // 2, (length - 2 * pairs) // 2
    choices = (np.arange(1, half), np.arange(half, vocab))
    keys, values = (np.stack([random.choice(c, size=pairs, replace=False) for _ in range(num)]) for c in choices)
    p = power * np.arange(1, slots + 1) ** (power - 1)
    gaps = np.stack([random.choice(np.arange(slots), size=pairs, replace=False, p=p / p.sum()) for _ in range(num)])
    ids, labels = np.zeros((num, length + 1), dtype=np.int64), np.full((num, length + 1), IGNORED, dtype=np.int64)
    ids[:, 0 : 2 * pairs : 2], ids[:, 1 : 2 * pairs : 2] = keys, values
    at = 2 * pairs + 2 * gaps
    np.put_along_axis(ids, at, keys, axis=1)
    np.put_along_axis(labels, at + 1, values, axis=1)
    return ids[:, :-1], labels[:, 1:]


DIGITS = 10
SEPARATOR, QUESTION = 10, 11


@checked
def phonebook(
    *,
    mode: Literal["standard", "reversed"] = "standard",
    names: Count = 64,
    digits: Count = 4,
    sizes: Sizes = (2, 4, 8, 16, 32),
    trained: Sizes = (2, 4, 8),
) -> Probe:
    """A list of names with numbers, and the number of one of them (arXiv 2406.07887, section 3.3.3).

    A size is a number of entries. `reversed` asks for the name before the list as well, so that a model knows what to
    keep. Every digit of the answer counts; the digits before it are given.
    """
    most = max(*sizes, *trained)
    if names < most:
        raise BadSpec(f"names={names} are too few for a list of {most}")
    ahead = 2 if mode == "reversed" else 0

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        who = 12 + orders(seed, "phonebook names", step, batch, names, most=size)
        numbers = integers(seed, "phonebook numbers", step, (batch, size, digits), DIGITS)
        separators = torch.full((batch, size, 1), SEPARATOR)
        listed = torch.cat([who[..., None], numbers, separators], dim=2).flatten(1)
        asked = integers(seed, "phonebook asked", step, (batch, 1), size)
        name = who.gather(1, asked)
        answer = numbers.gather(1, asked[..., None].expand(-1, -1, digits))[:, 0]
        question = torch.cat([torch.full_like(name, QUESTION), name], dim=1)
        ids = torch.cat([*([question] if ahead else []), listed, question, answer[:, :-1]], dim=1)
        targets = nothing_counts(ids)
        targets[:, -digits:] = answer
        return ids, targets

    return Probe(
        "phonebook", 12 + names, draw, tuple(sizes), tuple(trained), "entries", 1 / DIGITS,
        lambda n: n * (digits + 2) + ahead + 1 + digits, {"mode": mode, "names": names, "digits": digits},
    )  # fmt: skip


@checked
def induction(*, vocab: Kinds = 16, sizes: Sizes = (64, 128, 256, 512), trained: Sizes = (16, 32, 64)) -> Probe:
    """Induction heads (arXiv 2312.00752, section 4.1.2): noise, somewhere a mark and a token behind it, at the end the
    mark again; the answer is that token. A size is a length."""
    long_enough("induction", 4, sizes, trained, "two marks with tokens between them")

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        ids = 1 + integers(seed, "induction", step, (batch, size), vocab)
        at = integers(seed, "induction place", step, (batch, 1), size - 3)
        answer = ids.gather(1, at + 1)
        ids = ids.scatter(1, at, 0)
        ids[:, -1] = 0
        targets = nothing_counts(ids)
        targets[:, -1:] = answer
        return ids, targets

    return Probe("induction", vocab + 1, draw, tuple(sizes), tuple(trained), "tokens", 1 / vocab,
                 options={"vocab": vocab})  # fmt: skip


HAY, MARK, ASK = 16, 16, 17
KEYS = 16


@checked
def needle(
    *,
    digits: Count = 2,
    depth: float | None = None,
    sizes: Sizes = (64, 128, 256, 512),
    trained: Sizes = (24, 32, 64),
) -> Probe:
    """A needle in a haystack: hay from a Markov chain, a mark, a key and digits at `depth` of the length (0 the start,
    1 the end; anywhere unless given), and at the end a question with the key. A size is a length."""
    if depth is not None and not 0 <= depth <= 1:
        raise BadSpec(f"depth lies in 0..1, got {depth}")
    long_enough("needle", 2 * digits + 3, sizes, trained, f"a needle of {digits} digits and its question")

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        hay = size - (1 + digits)  # question, key and all but the last digit stand behind it
        steps = integers(seed, "needle hay", step, (batch, hay), 4)
        ids = (steps * steps + 1).cumsum(1) % HAY
        room = hay - (2 + digits)
        at = integers(seed, "needle place", step, (batch, 1), room + 1)
        if depth is not None:
            at = torch.full_like(at, round(depth * room))
        key = 18 + integers(seed, "needle key", step, (batch, 1), KEYS)
        answer = 18 + KEYS + integers(seed, "needle digits", step, (batch, digits), DIGITS)
        needle_tokens = torch.cat([torch.full_like(key, MARK), key, answer], dim=1)
        ids = ids.scatter(1, at + torch.arange(2 + digits), needle_tokens)
        ids = torch.cat([ids, torch.full_like(key, ASK), key, answer[:, :-1]], dim=1)
        targets = nothing_counts(ids)
        targets[:, -digits:] = answer
        return ids, targets

    return Probe("needle", 18 + KEYS + DIGITS, draw, tuple(sizes), tuple(trained), "tokens", 1 / DIGITS,
                 options={"digits": digits, "depth": depth})  # fmt: skip
