"""Language models of about 130 million parameters against transformers, with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
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
from formery.measure import Comparison, Work, compare, peak_memory
from formery.measure.characterize import slope
from formery.measure.operators import operator_split, shares

from . import streams
from .record import Record
from .streams import SPECIAL, Ours, Theirs, bytes_read, compared, fresh_cache, hush, work_of_prefill, work_of_token

SCALED: dict[str, Any] = {"rescale_prenorm_residual": True, "initializer_range": 0.02}
"""As the authors draw them; without it random weights of 24 layers multiply the last digit's rounding by thousands."""
WIDE: dict[str, Any] = {"hidden_size": 768, **SPECIAL}
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
LINEAR = ("mamba_130m", "mamba2_130m")
"""Those whose time should grow no faster than the text."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STEPS = 64
"""Tokens decoded after a prompt before it starts anew."""
LONG = 4096
"""Tokens of the prefill whose memory is told."""
CHUNK = 512
"""Tokens that `formery generate` reads at a time."""
GROWTH = (4096, 8192, 16384, 32768)
"""Tokens of the prefills whose growth is told."""
PROMPT = 256
"""Tokens read before decoding."""
INT8 = 0.2
"""What whole numbers for weights may change scores by, of the largest: random weights give flat scores."""

NOTES = """\
Random weights of transformers' models, read by `load_published`; batch 1. *Prefill* gives the scores of all tokens and
keeps the state, *last* those of the last token alone; *decode* is one token after 256. transformers runs its own pure
torch path, as it does without compiled extras. All agree before anything is timed; in bfloat16 all hold bfloat16
weights. *packed* and *int8* are `accelerate(model, pack=True)` and `int8=True`. Rounds go through all of them in a
random order; a ratio is that of the same round's times, above 1 is faster. *of products* is the share of the machine's
best rate of matrix products, *of memory* that of its rate of reading, which the weights of a token take. *own decode*
compares formery with itself.

Further down: *memory* is what a prefill of 4,096 tokens, last scores only, holds at its peak beside the weights, the
state included, in one piece and by 512 tokens as `formery generate` reads; *operators* is where the time of a prefill
goes; *growth* the slope of the logarithm of time over that of length, last scores only; *agreement* how often int8
weights and the model's own choose the same next token.
"""

Task = tuple[str, str, Callable[[str, str, float], tuple[Comparison, dict[str, float]]]]


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model and task whose words contain one of `only`, separated by commas."""
    record = Record("language_transformers", "Language models, formery and transformers", NOTES, threads)
    hush()
    torch.set_num_threads(threads)

    def asked(words: str) -> bool:
        return any(part in words for part in only.split(","))

    for name in MODELS:
        for task, dtype, measure in _tasks(threads):
            conditions = {"model": name, "task": task, "dtype": dtype}
            if asked(" ".join(conditions.values())):
                record.add(conditions, lambda n=name, d=dtype, m=measure: m(n, d, seconds))  # type: ignore[misc]
    for name in MODELS:
        for words, tell in ((f"memory {LONG}", memory), ("operators 1024", operators), ("agreement", agreement)):
            if asked(f"{name} {words}"):
                record.note(f"{name} {words}", lambda n=name, t=tell: t(n))  # type: ignore[misc]
        if name in LINEAR and asked(f"{name} growth"):
            record.note(f"{name} growth", lambda n=name: growth(n))  # type: ignore[misc]
    return record


def _tasks(threads: int) -> list[Task]:
    return [
        ("prefill 1024", "float32", lambda n, d, s: prefill(n, d, 1024, None, threads, s)),
        ("prefill 4096", "float32", lambda n, d, s: prefill(n, d, 4096, None, threads, s)),
        ("last 1024", "float32", lambda n, d, s: prefill(n, d, 1024, 1, threads, s)),
        ("prefill 1024", "bfloat16", lambda n, d, s: prefill(n, d, 1024, None, threads, s)),
        ("decode", "float32", lambda n, d, s: decode(n, d, threads, s)),
        ("decode", "bfloat16", lambda n, d, s: decode(n, d, threads, s)),
        ("own decode", "float32 to others", lambda n, _, s: own_decode(n, threads, s)),
    ]


@lru_cache(maxsize=1)
def pair(name: str, dtype: str) -> tuple[Any, formery.Model]:
    """transformers' model and ours with its weights."""
    kind, config = MODELS[name]
    theirs, ours = streams.pair(kind, config())
    return theirs.to(DTYPES[dtype]), ours.to(DTYPES[dtype])


def prompt(length: int) -> Tensor:
    return streams.tokens(1, length, 32000)


def fast(model: formery.Model, **how: bool) -> formery.Model:
    """A copy that keeps its weights in another form beside them."""
    return formery.accelerate(copy.deepcopy(model), **how)


def prefill(
    name: str, dtype: str, length: int, last: int | None, threads: int, seconds: float
) -> tuple[Comparison, dict[str, float]]:
    """Reading a prompt from nothing."""
    theirs, ours = pair(name, dtype)
    ids, keep = prompt(length), {"logits_to_keep": last} if last else {}
    ctx, macs, kind = NOTHING.but(last=last), work_of_prefill(ours, ids, last), DTYPES[dtype]
    works = {
        "transformers": Work(
            lambda: theirs(ids, use_cache=True, **fresh_cache(theirs), **keep).logits, macs, dtype=kind
        ),
        "formery": Work(lambda: ours(ids, state=ours.new_state(1, length + 1), ctx=ctx), macs, dtype=kind),
    }
    return compared(works, kind, threads, seconds)


def decode(name: str, dtype: str, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One more token."""
    theirs, ours = pair(name, dtype)
    ids, kind = prompt(PROMPT), DTYPES[dtype]
    macs, read = work_of_token(ours, ids), bytes_read(ours)
    works = {
        "transformers": Work(Theirs(theirs, ids, STEPS), macs, read, kind),
        "formery": Work(Ours(ours, ids, STEPS), macs, read, kind),
        "formery, int8": Work(Ours(fast(ours, int8=True), ids, STEPS), macs, bytes_read(ours, each=1), kind),
    }
    if dtype == "bfloat16":
        works["formery, packed"] = Work(Ours(fast(ours, pack=True), ids, STEPS), macs, read, kind)
    return compared(works, kind, threads, seconds, {"formery, int8": INT8})


def own_decode(name: str, threads: int, seconds: float) -> tuple[Comparison, dict[str, float]]:
    """One more token in float32 and in what takes less memory."""
    _, wide = pair(name, "float32")
    narrow = copy.deepcopy(wide).bfloat16()
    models = {
        "float32": wide,
        "bfloat16": narrow,
        "bfloat16, packed": fast(narrow, pack=True),
        "bfloat16, int8": fast(narrow, int8=True),
    }
    works = {words: Work(Ours(model, prompt(PROMPT), STEPS)) for words, model in models.items()}
    return compare(works, threads=threads, seconds=seconds / 2, least=10), {}


def memory(name: str) -> str:
    """Bytes held at the peak of a long prefill beside the weights and the scores of all tokens but the last."""
    theirs, ours = pair(name, "float32")
    ctx = NOTHING.but(last=1)

    class LastScores(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return theirs(ids, use_cache=True, logits_to_keep=1, **fresh_cache(theirs)).logits

    class Whole(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ours(ids, state=ours.new_state(1, LONG), ctx=ctx)

    class InChunks(nn.Module):
        def forward(self, ids: Tensor) -> None:
            state = ours.new_state(1, LONG)
            for chunk in ids.split(CHUNK, dim=1):
                ours(chunk, state=state, ctx=ctx)

    models = {"transformers": LastScores(), "formery": Whole(), f"formery by {CHUNK} tokens": InChunks()}
    held = {who: peak_memory(model, prompt(LONG), warmup=False).activations for who, model in models.items()}
    told = [f"{who} {n / 2**20:,.0f} MiB ({n / held['transformers']:.0%})" for who, n in held.items()]
    return f"{', '.join(told)}; the state alone is {ours.new_state(1, LONG).nbytes() / 2**20:,.0f} MiB"


def operators(name: str) -> str:
    """Shares of a prefill's time by class of operator."""
    _, ours = pair(name, "float32")
    with torch.inference_mode():
        found = operator_split(lambda: ours(prompt(1024), state=ours.new_state(1, 1025)))
    falling = sorted(shares(found).items(), key=lambda item: -item[1])
    told = ", ".join(f"{kind} {of_all:.0%}" for kind, of_all in falling if of_all > 1 / 200)
    return f"{sum(found.values()):.2f} s: {told}"


def agreement(name: str) -> str:
    """Of 64 tokens drawn, after each of which both choose the likeliest next one."""
    _, ours = pair(name, "float32")
    same, worst, ids = 0, 0.0, prompt(PROMPT + STEPS)
    states = [(model, model.new_state(1, PROMPT + STEPS)) for model in (ours, fast(ours, int8=True))]
    with torch.inference_mode():
        for model, state in states:
            model(ids[:, :PROMPT], state=state)
        for t in range(PROMPT, PROMPT + STEPS):
            plain, int8 = (model(ids[:, t : t + 1], state=state)[0, -1] for model, state in states)
            same += int(plain.argmax() == int8.argmax())
            worst = max(worst, float((plain - int8).abs().max() / plain.abs().max()))
    return f"{same} of {STEPS} next tokens are the same, scores differ by {worst:.1%} of the largest at most"


def growth(name: str) -> str:
    """Slopes of the time of a prefill and of a token after it, and the state's bytes, from 4k to 32k tokens."""
    _, ours = pair(name, "float32")
    ctx, times, after, states = NOTHING.but(last=1), [], [], []
    with torch.inference_mode():
        ours(prompt(1024), state=ours.new_state(1, 1024), ctx=ctx)
        for length in GROWTH:
            ids, state = prompt(length), ours.new_state(1, length + 16)
            begun = perf_counter()
            ours(ids, state=state, ctx=ctx)
            times.append((length, perf_counter() - begun))
            steps = []
            for _ in range(16):
                begun = perf_counter()
                ours(ids[:, :1], state=state, ctx=ctx)
                steps.append(perf_counter() - begun)
            after.append((length, median(steps)))
            states.append(state.nbytes())
    lines = ", ".join(f"{length:,} in {spent:.1f} s" for length, spent in times)
    slopes = [slope(points) or 0.0 for points in (times, after)]
    return (
        f"{lines}: exponent {slopes[0]:.2f}; the next token {1e3 * after[0][1]:.0f} to {1e3 * after[-1][1]:.0f} ms "
        f"(exponent {slopes[1]:.2f}); state {states[0] / 2**20:.1f} to {states[-1] / 2**20:.1f} MiB"
    )
