"""Claims of LLM-Drop that need a trained model: which layers can go at the least harm."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch

from ..data.pydoc import pydoc
from ..data.text import TextData
from ..model import Model
from ..rewrites.drop import Drop
from ..tasks import task_of
from ..training import train
from .check import Measured, Progress, check

LENGTH, JUDGED = 128, 8192
"""Bytes of a window, and of the parts that judge."""
COUNTS = (1, 2, 3)
SPEC: dict[str, Any] = {
    "stem": {"kind": "tokens", "dim": 64, "vocab": 256},
    "body": {
        "kind": "stack",
        "depth": 8,
        "mixer": {"kind": "attention", "heads": 4, "position": "rope", "bias": False, "out_bias": False},
        "channel": "swiglu",
        "scheme": {"kind": "pre", "norm": "rms"},
    },
    "head": {"kind": "next_token", "norm": "rms"},
}
WHY = (
    "Eight narrow layers trained for minutes on a small text have no layers to spare as large trained models do; the "
    "first attention layers bring the context in."
)


@check
def attention_first(seed: int, progress: Progress) -> Measured:
    """Perplexity after n attention layers, n MLPs or n blocks have gone."""
    found = _curves(seed, progress, ("mixer", "channel", "block"))
    passed = all(found["mixer"][i] < min(found["channel"][i], found["block"][i]) for i in range(len(COUNTS)))
    return Measured(found, passed, _in_words(found), note="" if passed else WHY)


@check
def joint(seed: int, progress: Progress) -> Measured:
    """Perplexity after n sublayers of both kinds have gone, ranked together."""
    found = _curves(seed, progress, ("mixer", "channel", "joint"))
    passed = all(found["joint"][i] <= min(found["mixer"][i], found["channel"][i]) for i in range(len(COUNTS)))
    return Measured(found, passed, _in_words(found), note="" if passed else WHY)


def _in_words(found: dict[str, list[float]]) -> str:
    names = {"mixer": "attention", "channel": "MLPs", "block": "blocks", "joint": "both together"}
    whole = f"whole model {found['whole'][0]:.2f}; n = {', '.join(map(str, COUNTS))}: "
    rest = (f"{names[n]} {' '.join(f'{v:.2f}' for v in values)}" for n, values in found.items() if n in names)
    return f"perplexity of a byte: {whole}{'; '.join(rest)}"


def _curves(seed: int, progress: Progress, units: tuple[str, ...]) -> dict[str, list[float]]:
    """Perplexities of the whole model, and by unit after each number of drops."""
    progress("training a decoder of eight layers")
    model, data = _trained(seed)
    calibration = data.sample(32, LENGTH)
    found = {"whole": [_perplexity(model, data)]}
    for unit in units:
        for count in COUNTS:
            progress(f"{unit}, {count} dropped")
            smaller = copy.deepcopy(model)
            Drop.perform(smaller, Drop.decide(smaller, calibration, unit=unit, count=count))  # type: ignore[arg-type]
            found.setdefault(unit, []).append(_perplexity(smaller, data))
    return found


@cache
def _trained(seed: int) -> tuple[Model, TextData]:
    """A decoder of eight layers, and the text that it has learned; 8 KiB of it are for validation, 8 for the test."""
    text = pydoc().part("train")
    data = TextData(text, seed=seed, bounds=(len(text) - 2 * JUDGED, len(text) - JUDGED))
    task = task_of({"kind": "language", "length": LENGTH})
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = Model(task.fit_spec(SPEC, data))
        model.init_weights(None)
    train(
        model, data, task, steps=600, batch_size=8, learning_rate=4e-3, eval_every=300, seed=seed, devices="cpu",
        quiet=True,
    )  # fmt: skip
    return model, data


def _perplexity(model: Model, data: TextData) -> float:
    """Of a byte of the test part."""
    metrics = task_of({"kind": "language", "length": LENGTH}).evaluate(model, data, "test")
    return float(metrics["perplexity"])
