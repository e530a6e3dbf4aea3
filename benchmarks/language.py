"""Reading prompts by language models of about 130 million parameters, against transformers with the same weights."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from formery.context import NOTHING
from formery.measure import Comparison, Work, peak_memory
from formery.measure.characterize import slope
from formery.measure.operators import operator_split, shares

from .record import Record, asked
from .small_models import DTYPES, MODELS, pair, prompt
from .streams import compared, fresh_cache, hush, work_of_prefill

LINEAR = ("mamba_130m", "mamba2_130m")
"""Those whose time should grow no faster than the text."""
LONG = 4096
"""Tokens of the prefill whose memory is told."""
CHUNK = 512
"""Tokens that `formery generate` reads at a time."""
GROWTH = (4096, 8192, 16384, 32768)
"""Tokens of the prefills whose growth is told."""
TASKS = (
    ("prefill 1024", "float32", 1024, None),
    ("prefill 4096", "float32", 4096, None),
    ("last 1024", "float32", 1024, 1),
    ("prefill 1024", "bfloat16", 1024, None),
)
"""Name, dtype, tokens, how many of the last are scored (None: all)."""

NOTES = """\
Random weights of transformers' models, read by `load_published`; batch 1. *Prefill* gives the scores of all tokens and
keeps the state, *last* those of the last token alone. transformers runs its own pure torch path, as it does without
compiled extras. Both agree before anything is timed; in bfloat16 both hold bfloat16 weights. Rounds go through both in
a random order; a ratio is that of the same round's times, above 1 is faster. *Of products* is the share of the
machine's best rate of matrix products in that dtype.

Further down: *memory* is what a prefill of 4,096 tokens, last scores only, holds at its peak beside the weights, the
state included, in one piece and by 512 tokens as `formery generate` reads; *operators* is where the time of a prefill
goes; *growth* the slope of the logarithm of time over that of length, last scores only.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model and task whose words contain one of `only`, separated by commas."""
    record = Record("language_transformers", "Reading prompts, formery and transformers", NOTES, threads)
    hush()
    torch.set_num_threads(threads)

    for name in MODELS:
        for task, dtype, length, last in TASKS:
            conditions = {"model": name, "task": task, "dtype": dtype}
            if asked(" ".join(conditions.values()), only):
                record.add(
                    conditions,
                    lambda n=name, d=dtype, t=length, k=last: prefill(n, d, t, k, threads, seconds),  # type: ignore[misc]
                )
    for name in MODELS:
        for words, tell in ((f"memory {LONG}", memory), ("operators 1024", operators)):
            if asked(f"{name} {words}", only):
                record.note(f"{name} {words}", lambda n=name, t=tell: t(n))  # type: ignore[misc]
        if name in LINEAR and asked(f"{name} growth", only):
            record.note(f"{name} growth", lambda n=name: growth(n))  # type: ignore[misc]
    return record


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
