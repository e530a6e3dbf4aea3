"""Language models of about 130 million parameters against transformers, with the same weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tests.tvshim  # noqa: F401

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OlmoHybridConfig,
    OlmoHybridForCausalLM,
)

import formery
from formery.context import NOTHING
from formery.interop.transformers import spec_from_config
from formery.measure import Comparison, Work, compare, count_macs, peak_memory
from formery.measure.inputs import without_values

from .record import Record

SPECIAL = dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id"))
SCALED = {"rescale_prenorm_residual": True, "initializer_range": 0.02}
"""As the authors draw them; without it random weights of 24 layers multiply the last digit's rounding by thousands."""
WIDE = {"hidden_size": 768, **SPECIAL}
MODELS: dict[str, tuple[Any, Any]] = {
    "mamba_130m": (MambaForCausalLM, lambda: MambaConfig(vocab_size=50280, num_hidden_layers=24, **WIDE, **SCALED)),
    "mamba2_130m": (
        Mamba2ForCausalLM,
        lambda: Mamba2Config(
            vocab_size=50288, num_hidden_layers=24, state_size=128, num_heads=24, head_dim=64, n_groups=1,
            tie_word_embeddings=True, **WIDE, **SCALED,
        ),
    ),
    "olmo_hybrid_134m": (
        OlmoHybridForCausalLM,
        lambda: OlmoHybridConfig(
            vocab_size=32000, num_hidden_layers=12, num_attention_heads=6, intermediate_size=2048,
            rope_parameters={"rope_type": "default", "rope_theta": None}, **WIDE,
        ),
    ),
    "llama_134m": (
        LlamaForCausalLM,
        lambda: LlamaConfig(
            vocab_size=32000, num_hidden_layers=12, num_attention_heads=12, intermediate_size=2048, **WIDE
        ),
    ),
}  # fmt: skip
"""Name -> transformers' class and config."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STEPS = 64
"""Tokens decoded after a prompt before it starts anew."""
LONG = 4096
"""Tokens of the prefill whose memory is told."""
PROMPT = 256
"""Tokens read before decoding."""
CLOSE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference of scores, in units of the largest."""

NOTES = """\
Random weights of transformers' models, read by `load_published`; batch 1. *Prefill* gives the scores of all tokens and
keeps the state, *last* those of the last token alone; *decode* is one token after 256. transformers runs its own pure
torch path, as it does without compiled extras. Both agree before anything is timed; in bfloat16 both hold bfloat16
weights. Rounds go through all of them in a random order; a ratio is that of the same round's times, above 1 is faster.
*memory* is what a prefill of 4,096 tokens holds at its peak above weights and scores.
*fp32 to bf16* compares formery's own decoding in the two dtypes.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model and task whose words contain `only`."""
    record = Record("language_transformers", "Language models, formery and transformers", NOTES, threads)
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tasks: list[tuple[str, str, Callable[..., Any]]] = [
        ("prefill 1024", "float32", lambda n, d, s: prefill(n, d, 1024, None, threads, s)),
        ("prefill 4096", "float32", lambda n, d, s: prefill(n, d, 4096, None, threads, s)),
        ("last 1024", "float32", lambda n, d, s: prefill(n, d, 1024, 1, threads, s)),
        ("prefill 1024", "bfloat16", lambda n, d, s: prefill(n, d, 1024, None, threads, s)),
        ("decode", "float32", lambda n, d, s: decode(n, d, threads, s)),
        ("decode", "bfloat16", lambda n, d, s: decode(n, d, threads, s)),
        ("decode", "fp32 to bf16", lambda n, _, s: own_decode(n, threads, s)),
    ]
    for name in MODELS:
        for task, dtype, measure in tasks:
            conditions = {"model": name, "task": task, "dtype": dtype}
            if any(part in " ".join(conditions.values()) for part in only.split(",")):
                record.add(conditions, lambda n=name, d=dtype, m=measure: m(n, d, seconds))  # type: ignore[misc]
    for name in MODELS:
        words = f"{name} memory {LONG}"
        if any(part in words for part in only.split(",")):
            record.note(words, lambda n=name: in_words(memory(n, LONG)))  # type: ignore[misc]
    return record


def in_words(held: dict[str, int]) -> str:
    """Both peaks, and ours as a part of theirs."""
    theirs, ours = held["transformers"], held["formery"]
    return f"transformers {theirs / 2**20:,.0f} MiB, formery {ours / 2**20:,.0f} MiB: {ours / theirs:.0%}"


def pair(name: str, dtype: str) -> tuple[nn.Module, formery.Model]:
    """transformers' model and ours with its weights."""
    torch.manual_seed(0)
    kind, config = MODELS[name]
    theirs = kind(config()).eval()
    ours = formery.Model(spec_from_config(theirs.config.to_dict())).eval()
    if unplaced := ours.load_published(theirs.state_dict()):
        raise AssertionError(f"transformers' {unplaced} found no place")
    return theirs.to(DTYPES[dtype]), ours.to(DTYPES[dtype])


def prompt(length: int) -> Tensor:
    return torch.randint(0, 32000, (1, length), generator=torch.Generator().manual_seed(0))


def prefill(
    name: str, dtype: str, length: int, last: int | None, threads: int, seconds: float
) -> tuple[Comparison, dict[str, float]]:
    """Reading a prompt from nothing."""
    theirs, ours = pair(name, dtype)
    ids, keep = prompt(length), {"logits_to_keep": last} if last else {}
    ctx = NOTHING.but(last=last)
    calls: dict[str, Callable[[], Tensor]] = {
        "transformers": lambda: theirs(ids, use_cache=True, **keep).logits,
        "formery": lambda: ours(ids, state=ours.new_state(1, length + 1), ctx=ctx),
    }
    return compared(calls, count_macs(ours, ids).total, dtype, threads, seconds)


def memory(name: str, length: int) -> dict[str, int]:
    """Bytes held at the peak of a prefill, weights and scores left out."""
    theirs, ours = pair(name, "float32")

    class Reads(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ours(ids, state=ours.new_state(1, length + 1))

    class Theirs(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return theirs(ids, use_cache=True).logits

    ids, who = prompt(length), {"transformers": Theirs(), "formery": Reads()}
    scores = length * ours.num_classes * 4
    return {name: peak_memory(model, ids).activations - scores for name, model in who.items()}


def decode(name: str, dtype: str, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One more token."""
    theirs, ours = pair(name, dtype)
    calls = {"transformers": Theirs(theirs), "formery": Ours(ours)}
    return compared(calls, _macs_of_a_token(ours), dtype, threads, seconds)


def own_decode(name: str, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One more token in float32 and in bfloat16."""
    _, wide = pair(name, "float32")
    _, narrow = pair(name, "bfloat16")
    works = {"formery, float32": Work(Ours(wide)), "formery, bfloat16": Work(Ours(narrow))}
    return compare(works, threads=threads, seconds=seconds / 2, least=10), {}


def _macs_of_a_token(model: formery.Model) -> int:
    hollow = without_values(model)
    state = hollow.new_state(1, PROMPT + 1)
    ids = torch.zeros(1, PROMPT, dtype=torch.long, device="meta")
    with torch.no_grad():
        hollow(ids, state=state)
    return count_macs(hollow, ids[:, :1], state=state).total


def compared(
    calls: dict[str, Callable[[], Tensor]], macs: int, dtype: str, threads: int, seconds: float
) -> tuple[Comparison, dict[str, float]]:
    """The comparison, once both agree."""
    with torch.inference_mode():
        expected, got = (call().float() for call in calls.values())
    error = float((got - expected).abs().max() / expected.abs().max())
    if error > CLOSE[dtype]:
        raise AssertionError(f"formery differs from transformers by {error:.1e}, allowed is {CLOSE[dtype]:.1e}")
    works = {name: Work(call, macs=macs, dtype=DTYPES[dtype]) for name, call in calls.items()}
    return compare(works, threads=threads, seconds=seconds / 2, least=3, warmup=1), {"formery": error}


class Ours:
    """A formery stream that starts anew when it has gone far enough."""

    def __init__(self, model: formery.Model) -> None:
        self.model, self.left = model, 0

    def __call__(self) -> Tensor:
        if not self.left:
            self.state = self.model.new_state(1, PROMPT + STEPS)
            self.model(prompt(PROMPT), state=self.state)
            self.left = STEPS
        self.left -= 1
        return self.model(prompt(1), state=self.state)


class Theirs:
    """The same with transformers' cache, under the name that the model has for it."""

    def __init__(self, model: Any) -> None:
        self.model, self.left = model, 0
        self.word = "cache_params" if "mamba" in model.config.model_type else "past_key_values"

    def __call__(self) -> Tensor:
        if not self.left:
            given = {self.word: DynamicCache(config=self.model.config)} if self.word == "past_key_values" else {}
            out = self.model(prompt(PROMPT), use_cache=True, **given)
            self.cache, self.left = getattr(out, self.word), STEPS
        self.left -= 1
        out = self.model(prompt(1), use_cache=True, **{self.word: self.cache})
        return out.logits
