"""Drawn sequences that tell what a mixer can remember and track, and the accuracy of a model trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..create import create_model
from ..data import chance
from ..data.drawn import parity as parity
from ..model import Model
from ..tasks.language import IGNORED
from ..training import train
from .check import Progress

PERMUTATIONS = ((0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1))
"""Of three things: nothing, the three exchanges of two, the two turns."""
KEYS, NEEDLES, VALUES = 8, 4, 8
"""Keys there are, of which a haystack holds some with a value each."""
HAY = 8
"""Kinds of hay."""
Draw = Callable[[int, int, int, int], tuple[Tensor, Tensor]]
"""(seed, step, batch, length) -> ids, targets (B, L), int64; targets that do not count are `IGNORED`."""
JUDGED = 10**6
"""Steps from here on are drawn for judging, so that nothing learned is judged by."""


@dataclass(frozen=True)
class Drawn:
    """Sequences as data of the language task: every batch fresh, of the length that `length_at(step)` says."""

    draw: Draw
    vocab: int
    length_at: Callable[[int], int]
    seed: int = 0
    name: str = "drawn"
    modality: str = "text"
    task: str = "language"

    @property
    def digest(self) -> str:
        """Of the generator's name: the content is endless."""
        return hashlib.sha256(f"{self.draw!r} {self.seed}".encode()).hexdigest()

    def train_batch(self, step: int, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
        """A batch of the length that belongs to this step; the task's own length is not asked."""
        return self.draw(self.seed, step, batch_size, self.length_at(step))

    def windows(self, split: str, length: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch of the last length."""
        yield self.draw(self.seed, JUDGED, 128, self.length_at(JUDGED))


def learned(
    spec: Mapping[str, Any],
    data: Drawn,
    *,
    steps: int,
    seed: int,
    progress: Progress,
    learning_rate: float = 5e-3,
    batch_size: int = 64,
) -> Model:
    """The model of `spec` after a training, in evaluation."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = create_model(spec)
        model.init_weights(None)  # by fan-in: these models are narrow
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}

    def tell(now: Any) -> None:
        progress(f"step {now.step} of {now.steps}, loss {now.loss:.3f}")

    train(
        model, data, None, options, warmup=steps // 4, weight_decay=0.01, betas=(0.9, 0.999), eval_every=steps // 4,
        devices="cpu", quiet=True, on_progress=tell,
    )  # fmt: skip
    return model.eval()


@torch.no_grad()
def accuracy(model: Model, draw: Draw, length: int, *, seed: int, last: int = 8, batch: int = 256) -> float:
    """Share of right answers among the last `last` ones of fresh sequences of `length`."""
    ids, targets = draw(seed, JUDGED + length, batch, length)
    right = (model(ids).argmax(-1) == targets).float()
    counts = targets != IGNORED
    late = counts & (counts.flip(1).cumsum(1).flip(1) <= last)
    return float(right[late].mean())


def table() -> Tensor:
    """(6, 6) number of the permutation that is the row's after the column's."""
    after = [[PERMUTATIONS.index(tuple(a[b[i]] for i in range(3))) for b in PERMUTATIONS] for a in PERMUTATIONS]
    return torch.tensor(after)


def composed(numbers: Tensor) -> Tensor:
    """(B, L) numbers of permutations -> (B, L) numbers of what they compose to, from the first to each."""
    after, now, found = table(), torch.zeros(len(numbers), dtype=torch.long), []
    for column in numbers.T:
        now = after[column, now]
        found.append(now)
    return torch.stack(found, dim=1)


def exchanges(seed: int, step: int, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Exchanges of two of three things (ids 1 to 3), and the permutation that they compose to (0 to 5)."""
    numbers = 1 + _integers(seed, "exchanges", step, (batch, length), 3)
    return numbers, composed(numbers)


def recalled(seed: int, step: int, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """A list of all keys (ids from 6 on), each followed by an exchange (1 to 3); then `length` keys, and the
    permutation that the exchanges of these compose to, from the first key to each."""
    order = _order(seed, "recalled order", step, batch, KEYS)
    exchange = 1 + _integers(seed, "recalled exchanges", step, (batch, KEYS), 3)
    listed = torch.stack([6 + order, exchange], dim=2).flatten(1)
    of_key = torch.zeros_like(exchange).scatter(1, order, exchange)
    asked = _integers(seed, "recalled asked", step, (batch, length), KEYS)
    targets = torch.cat([torch.full_like(listed, IGNORED), composed(of_key.gather(1, asked))], dim=1)
    return torch.cat([listed, 6 + asked], dim=1), targets


def needle(seed: int, step: int, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Hay with needles, a key and its value each; the last tokens are those keys in another order, the targets there
    their values. Ids: hay, then keys, then values."""
    places = 2 * _order(seed, "needle places", step, batch, (length - NEEDLES) // 2)[:, :NEEDLES]
    keys = HAY + _order(seed, "needle keys", step, batch, KEYS)[:, :NEEDLES]
    values = HAY + KEYS + _integers(seed, "needle values", step, (batch, NEEDLES), VALUES)
    ids = _integers(seed, "needle hay", step, (batch, length), HAY)
    ids.scatter_(1, places, keys).scatter_(1, places + 1, values)
    asked = _order(seed, "needle asked", step, batch, NEEDLES)
    ids[:, -NEEDLES:] = keys.gather(1, asked)
    targets = torch.full_like(ids, IGNORED)
    targets[:, -NEEDLES:] = values.gather(1, asked)
    return ids, targets


def _integers(seed: int, stream: str, step: int, shape: tuple[int, int], below: int) -> Tensor:
    return torch.from_numpy(chance.integers(seed, stream, step, shape[0] * shape[1], below)).view(shape)


def _order(seed: int, stream: str, step: int, batch: int, num: int) -> Tensor:
    """(batch, num): a permutation of 0 to num - 1 in every row."""
    return torch.from_numpy(chance.uniform(seed, stream, step, batch * num)).view(batch, num).argsort(dim=1)
