"""Olmo Hybrid against transformers, with the same weights: reading a prompt, and the next token after it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import tests.tvshim  # noqa: F401

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, OlmoHybridConfig, OlmoHybridForCausalLM

import formery
from formery.interop.transformers import spec_from_config
from formery.measure import Comparison, Work, compare, count_macs
from formery.measure.inputs import without_values

from .record import Record

SIZES = {
    "tiny": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    "small": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
}
VOCAB = 4096
PROMPT, STEPS = 512, 256
"""Tokens read, and decoded after them before it starts anew."""
CLOSE = 1e-4

NOTES = """\
Random weights of transformers' `OlmoHybridForCausalLM` in the default layout (three recurrent layers, one of
attention), read by `load_published`, float32, no position encoding, as in the released checkpoints. *Prefill* reads
512 tokens and keeps the state; *decode* is one token after them, by formery's stream and transformers'
`DynamicCache`. Both agree before anything is timed. Rounds go through all of them in a random order; a ratio is that
of the same round's times, above 1 is faster.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every size and task whose words contain `only`."""
    record = Record("olmo_hybrid_transformers", "Olmo Hybrid, formery and transformers", NOTES, threads)
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for size in SIZES:
        for task, measure in (("prefill", prefill), ("decode", decode)):
            for batch in (1, 4):
                conditions = {"model": f"olmo_hybrid {size}", "task": task, "batch": f"batch {batch}"}
                if only in " ".join(conditions.values()):
                    record.add(conditions, lambda s=size, m=measure, b=batch: m(s, b, threads, seconds))  # type: ignore[misc]
    return record


def pair(size: str) -> tuple[OlmoHybridForCausalLM, formery.Model]:
    """transformers' model and ours with its weights."""
    torch.manual_seed(0)
    # An explicit object with a null base is what switches rotary positions off in transformers 5.23.
    positions = {"rope_type": "default", "rope_theta": None}
    special = dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id"))
    config = OlmoHybridConfig(**SIZES[size], vocab_size=VOCAB, rope_parameters=positions, **special)
    theirs = OlmoHybridForCausalLM(config).eval()
    ours = formery.Model(spec_from_config(config.to_dict())).eval()
    if unplaced := ours.load_published(theirs.state_dict()):
        raise AssertionError(f"transformers' {unplaced} found no place")
    return theirs, ours


def prefill(size: str, batch: int, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """Reading a prompt from nothing."""
    theirs, ours = pair(size)
    ids = prompt(batch)
    calls: dict[str, Callable[[], Tensor]] = {
        "transformers": lambda: theirs(ids, past_key_values=DynamicCache(config=theirs.config), use_cache=True).logits,
        "formery": lambda: ours(ids, state=ours.new_state(batch, PROMPT)),
    }
    macs = count_macs(ours, ids).total
    return compared(calls, macs, threads, seconds)


def decode(size: str, batch: int, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One more token."""
    theirs, ours = pair(size)
    ids, token = prompt(batch), prompt(batch)[:, :1]
    calls = {"transformers": Theirs(theirs, ids, token), "formery": Ours(ours, ids, token)}
    hollow = without_values(ours)
    state = hollow.new_state(batch, PROMPT + 1)
    with torch.no_grad():
        hollow(ids.to("meta"), state=state)
    macs = count_macs(hollow, token.to("meta"), state=state).total
    return compared(calls, macs, threads, seconds)


def prompt(batch: int) -> Tensor:
    return torch.randint(0, VOCAB, (batch, PROMPT), generator=torch.Generator().manual_seed(0))


def compared(
    calls: dict[str, Callable[[], Tensor]], macs: int, threads: int, seconds: float
) -> tuple[Comparison, dict[str, float]]:
    """The comparison, once both agree."""
    with torch.inference_mode():
        expected, got = (call() for call in calls.values())
    error = float((got - expected).abs().max() / expected.abs().max())
    if error > CLOSE:
        raise AssertionError(f"formery differs from transformers by {error:.1e}, allowed is {CLOSE:.1e}")
    works = {name: Work(call, macs=macs) for name, call in calls.items()}
    return compare(works, threads=threads, seconds=seconds / 2, least=3), {"formery": error}


class Ours:
    """A formery stream that starts anew when it has gone far enough."""

    def __init__(self, model: formery.Model, ids: Tensor, token: Tensor) -> None:
        self.model, self.ids, self.token, self.left = model, ids, token, 0

    def __call__(self) -> Tensor:
        if not self.left:
            self.state = self.model.new_state(len(self.ids), PROMPT + STEPS)
            self.model(self.ids, state=self.state)
            self.left = STEPS
        self.left -= 1
        return self.model(self.token, state=self.state)


class Theirs:
    """The same with transformers' cache."""

    def __init__(self, model: OlmoHybridForCausalLM, ids: Tensor, token: Tensor) -> None:
        self.model, self.ids, self.token, self.left = model, ids, token, 0

    def __call__(self) -> Tensor:
        if not self.left:
            self.cache = DynamicCache(config=self.model.config)
            self.model(self.ids, past_key_values=self.cache, use_cache=True)
            self.left = STEPS
        self.left -= 1
        return self.model(self.token, past_key_values=self.cache, use_cache=True).logits
