"""The next token by language models of about 130 million parameters, against transformers with the same weights."""

from __future__ import annotations

import copy

import torch

import formery
from formery.measure import Comparison, Work, compare

from .record import Record, asked
from .small_models import DTYPES, MODELS, pair, prompt
from .streams import Ours, Theirs, bytes_read, compared, hush, work_of_token

STEPS = 64
"""Tokens decoded after a prompt before it starts anew."""
PROMPT = 256
"""Tokens read before decoding."""
INT8 = 0.2
"""What whole numbers for weights may change scores by, of the largest: random weights give flat scores."""

NOTES = """\
Random weights of transformers' models, read by `load_published`; batch 1, one token after 256. transformers runs its
own pure torch path, as it does without compiled extras. All agree before anything is timed; in bfloat16 all hold
bfloat16 weights. *packed* and *int8* are `accelerate(model, pack=True)` and `int8=True`. Rounds go through all of them
in a random order; a ratio is that of the same round's times, above 1 is faster. *Of memory* is the share of the
machine's rate of reading that the weights of a token take. *Own decode* compares formery with itself; *agreement* is
how often int8 weights and the model's own choose the same next token.
"""


def table(threads: int, seconds: float, only: str = "") -> Record:
    """Every model and task whose words contain one of `only`, separated by commas."""
    record = Record("decoding_transformers", "The next token, formery and transformers", NOTES, threads)
    hush()
    torch.set_num_threads(threads)

    for name in MODELS:
        for dtype in DTYPES:
            conditions = {"model": name, "task": "decode", "dtype": dtype}
            if asked(" ".join(conditions.values()), only):
                record.add(conditions, lambda n=name, d=dtype: decode(n, d, threads, seconds))  # type: ignore[misc]
        conditions = {"model": name, "task": "own decode", "dtype": "float32 to others"}
        if asked(" ".join(conditions.values()), only):
            record.add(conditions, lambda n=name: own_decode(n, threads, seconds))  # type: ignore[misc]
    for name in MODELS:
        if asked(f"{name} agreement", only):
            record.note(f"{name} agreement", lambda n=name: agreement(n))  # type: ignore[misc]
    return record


def fast(model: formery.Model, **how: bool) -> formery.Model:
    """A copy that keeps its weights in another form beside them."""
    return formery.accelerate(copy.deepcopy(model), **how)


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
