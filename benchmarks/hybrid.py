"""Olmo Hybrid against transformers, with the same weights: reading a prompt, and the next token after it."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import OlmoHybridConfig, OlmoHybridForCausalLM

import formery
from formery.measure import Comparison, Work

from .record import Record
from .streams import SPECIAL, Ours, Theirs, compared, fresh_cache, hush, pair, tokens, work_of_prefill, work_of_token

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    "small": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
}
VOCAB = 4096
PROMPT, STEPS = 512, 256
"""Tokens read, and decoded after them before it starts anew."""

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
    hush()
    for size in SIZES:
        for task, measure in (("prefill", prefill), ("decode", decode)):
            for batch in (1, 4):
                conditions = {"model": f"olmo_hybrid {size}", "task": task, "batch": f"batch {batch}"}
                if only in " ".join(conditions.values()):
                    record.add(conditions, lambda s=size, m=measure, b=batch: m(s, b, threads, seconds))  # type: ignore[misc]
    return record


@cache
def models(size: str) -> tuple[Any, formery.Model]:
    # An explicit object with a null base is what switches rotary positions off in transformers 5.23.
    positions = {"rope_type": "default", "rope_theta": None}
    return pair(
        OlmoHybridForCausalLM, OlmoHybridConfig(**SIZES[size], vocab_size=VOCAB, rope_parameters=positions, **SPECIAL)
    )


def prefill(size: str, batch: int, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """Reading a prompt from nothing."""
    theirs, ours = models(size)
    ids = tokens(batch, PROMPT, VOCAB)
    macs = work_of_prefill(ours, ids)
    works = {
        "transformers": Work(lambda: theirs(ids, use_cache=True, **fresh_cache(theirs)).logits, macs),
        "formery": Work(lambda: ours(ids, state=ours.new_state(batch, PROMPT)), macs),
    }
    return compared(works, next(ours.parameters()).dtype, threads, seconds)


def decode(size: str, batch: int, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One more token."""
    theirs, ours = models(size)
    ids = tokens(batch, PROMPT, VOCAB)
    macs = work_of_token(ours, ids)
    works = {
        "transformers": Work(Theirs(theirs, ids, STEPS), macs),
        "formery": Work(Ours(ours, ids, STEPS), macs),
    }
    return compared(works, next(ours.parameters()).dtype, threads, seconds)
