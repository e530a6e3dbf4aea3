"""Reading prompts in chunks, then one token after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from ...context import NOTHING, Stream
from ...measure.running import evaluating
from ...model import Model
from ...tasks.language import known_ends
from .given import (
    check_model,
    check_options,
    check_tokenizer,
    ends_of,
    prompts_of,
    seed_of,
    tokens_of,
    whole,
)
from .sampling import Chooser, Sampling
from .stops import Stops
from .tokenizers import Tokenizer, Unfolding, tokenizer_of

Prompts = str | Sequence[str] | Sequence[Sequence[int]] | Tensor
"""One text, several, token numbers of several, or a tensor (B, L) of them."""
Finish = Literal["length", "stop", "end"]
"""Why a row is over: it has its tokens, a stop string came, or a token that ends texts did."""
CHUNK = 512
"""Tokens of a prompt that are read at a time."""


@dataclass(frozen=True)
class Piece:
    """What one step added to one row."""

    row: int
    token: int
    text: str
    """The letters that are certain now: none while a letter or a stop string may be under way, or without tokenizer."""
    finish: Finish | None = None
    """Why the row is over; None while it goes on."""


@dataclass(frozen=True)
class Generated:
    """What was generated for one prompt."""

    tokens: list[int]
    """The new tokens, the one that ended it included."""
    text: str
    """Their text, without stop string and end token; empty without tokenizer."""
    finish: Finish
    prompt: list[int] = field(repr=False)
    """The tokens of the prompt."""


class Options(TypedDict, total=False):
    """How `generate` and `stream` go on; everything may be left out."""

    max_new_tokens: int
    """At most so many new tokens a prompt; 128."""
    temperature: float
    """Divides the scores; 0, as by default, takes the likeliest token. This and the next three: see `Sampling`."""
    top_k: int | None
    """Keep so many of the likeliest tokens."""
    top_p: float | None
    """Keep the fewest of the likeliest tokens whose probabilities reach this."""
    min_p: float | None
    """Keep the tokens that are at least this times as likely as the likeliest."""
    stop: Sequence[str]
    """A row's text ends before the first of these strings."""
    end: Sequence[int] | None
    """Tokens that end a row; unless given the tokenizer's own, else those that a checkpoint of transformers named."""
    seed: int
    """Row i draws by `seed + i` and does not depend on its neighbours; 0."""
    chunk: int
    """Prompts are read so many tokens at a time, so that memory beside the state is that of a chunk, and of the mask
    between it and what came before; `CHUNK`."""
    tokenizer: Tokenizer | None
    """For texts and stop strings; the model's own unless given."""


def generate(model: Model, prompts: Prompts, **options: Unpack[Options]) -> list[Generated]:
    """Everything that `stream` gives for the same arguments: one `Generated` a prompt, in their order."""
    check_options(options, Options.__annotations__)
    run = _Run(model, prompts, **options)
    for _ in run:
        pass
    return run.results()


def stream(model: Model, prompts: Prompts, **options: Unpack[Options]) -> Iterator[Piece]:
    """New tokens of every prompt as they come, in steps: one piece for each row that is not over.

    The state, for the longest prompt and `max_new_tokens`, is taken at once. Prompts of different lengths stand in one
    batch with padding in front. CannotRun for a model that does not stream, whose positions end before the last token,
    or that has no tokenizer for texts, and for one that is not formery's; BadSpec for unknown options, and for options,
    prompts or tokens of another kind or out of range.
    """
    check_options(options, Options.__annotations__)
    return iter(_Run(model, prompts, **options))


class _Row:
    """One prompt and what has come of it."""

    def __init__(self, prompt: list[int], tokenizer: Tokenizer | None, stops: Sequence[str]) -> None:
        self.prompt, self.tokens, self.text = prompt, list[int](), ""
        self.finish: Finish | None = None
        self.stops = Stops(stops)
        self.unfolding: Unfolding | None = None if tokenizer is None else tokenizer.unfolding(prompt)

    def add(self, token: int, *, ends: bool, last: bool) -> str:
        """Take a token; the text that it makes certain."""
        self.tokens.append(token)
        new = ""
        if self.unfolding is not None and not ends:
            new = self.stops.feed(self.unfolding.add(token))
        if ends or (last and not self.stops.stopped):
            if self.unfolding is not None:
                new += self.stops.feed(self.unfolding.end()) + self.stops.end()
            self.finish = "end" if ends else "length"
        if self.stops.stopped:
            self.finish = "stop"
        self.text += new
        return new


class _Run:
    """Checked arguments, and the loop over them."""

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: Sequence[str] = (),
        end: Sequence[int] | None = None,
        seed: int = 0,
        chunk: int = CHUNK,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        check_model(model)
        self.model, self.chunk = model, whole("chunk", chunk, 1)
        self.length = whole("max_new_tokens", max_new_tokens, 1)
        given, vocab = prompts_of(prompts), model.num_classes
        if tokenizer is not None:
            check_tokenizer(tokenizer)
        elif stop or any(isinstance(prompt, str) for prompt in given):
            tokenizer = tokenizer_of(model)
        rows = [tokens_of(prompt, tokenizer, vocab) for prompt in given]
        self.rows = [_Row(prompt, tokenizer, stop) for prompt in rows]
        own = frozenset[int]() if tokenizer is None else tokenizer.end
        self.ends = own or known_ends(model) if end is None else ends_of(end, vocab)
        self.choose = Chooser(Sampling(temperature, top_k, top_p, min_p), seed_of(seed), len(rows))
        self.longest = max(map(len, rows))
        self.state = model.new_state(len(rows), self.longest + self.length - 1)

    def results(self) -> list[Generated]:
        """What has come of every row that is over."""
        return [Generated(r.tokens, r.text, r.finish, r.prompt) for r in self.rows if r.finish is not None]

    def __iter__(self) -> Iterator[Piece]:
        scores, state = self._prefill(), self.state
        alive = list(range(len(self.rows)))  # the row of each line of the batch
        for step in range(1, self.length + 1):
            tokens = self.choose(scores, alive)
            for at, (index, token) in enumerate(zip(alive, tokens, strict=True)):
                row = self.rows[index]
                if row.finish is None:
                    text = row.add(token, ends=token in self.ends, last=step == self.length)
                    yield Piece(index, token, text, row.finish)
                else:
                    tokens[at] = row.tokens[-1]  # over, but not yet out of the batch
            going = [at for at, index in enumerate(alive) if self.rows[index].finish is None]
            if not going:
                return
            if 2 * len(going) <= len(alive):  # as long as more are going, moving their state costs more than it saves
                state = state.select(torch.tensor(going, device=state.seen.device))
                alive, tokens = [alive[at] for at in going], [tokens[at] for at in going]
            scores = self._read(torch.tensor(tokens)[:, None], state)

    def _prefill(self) -> Tensor:
        """Read the prompts; scores (B, V) of the token behind them."""
        prompts = [row.prompt for row in self.rows]
        ids = torch.zeros(len(prompts), self.longest, dtype=torch.long)
        padding = torch.ones_like(ids, dtype=torch.bool)
        for at, prompt in enumerate(prompts):
            ids[at, self.longest - len(prompt) :] = torch.tensor(prompt)
            padding[at, self.longest - len(prompt) :] = False
        even = not padding.any()
        for start in range(0, self.longest, self.chunk):
            part = slice(start, start + self.chunk)
            last = start + self.chunk >= self.longest
            scores = self._read(ids[:, part], self.state, None if even else padding[:, part], last=last)
        return scores

    def _read(self, ids: Tensor, state: Stream, padding: Tensor | None = None, *, last: bool = True) -> Tensor:
        """Scores (B, V) behind these tokens, or none where they are not the `last` of the prompts."""
        device = state.seen.device
        padding = None if padding is None else padding.to(device)
        with evaluating(self.model), torch.inference_mode():
            scores: Tensor = self.model(ids.to(device), ctx=NOTHING.but(padding=padding, last=int(last)), state=state)
        return scores[:, -1] if last else scores
