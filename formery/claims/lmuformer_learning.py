"""Claims of LMUFormer that need a training, on drawn words of three tones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..model import Model
from ..parts.mixers.spiking import Neurons
from ..runtime.listening import beginnings
from ..systems.language import lmuformer as system
from .check import Measured, Progress, check
from .series import BANDS, FRAMES, JUDGED, WORDS, fitted, tone_words

DIM, STEPS = 32, 300
DELAY = 5
"""Frames by which an answer is late."""


def _spec(fires: str | None) -> dict[str, Any]:
    return system.spec(dim=DIM, in_chans=BANDS, num_classes=WORDS, fires=fires)


@check
def early_answers(seed: int, progress: Progress) -> Measured:
    """Accuracy on 1,000 fresh words by the share of the frames that have been heard; an answer waits for its frames."""
    draw = tone_words(seed)
    model = fitted(_spec(None), draw, steps=STEPS, seed=seed, progress=progress)
    x, words = draw(JUDGED, 1000)
    with torch.no_grad():
        right = (beginnings(model, x).argmax(-1) == words[:, None]).float().mean(0)
    shares = (0.25, 0.33, 0.5, 0.68, 1.0)
    found = {f"{share:g}": float(right[-1 if share == 1 else round(share * FRAMES) - 1 - DELAY]) for share in shares}
    lost = found["1"] - found["0.68"]
    passed = found["1"] >= 0.9 and lost < 0.01
    row = ", ".join(f"{100 * float(share):.0f} %: {100 * value:.1f}" for share, value in found.items())
    note = (
        "" if passed else "The words end in the first two thirds; the mean over all frames may still be swayed there."
    )
    published = "32 % shorter at negligible loss"
    return Measured(found, passed, f"accuracy by frames heard: {row} (chance 12.5)", published, note)


@check
def spikes(seed: int, progress: Progress) -> Measured:
    """Firing rates of a trained spiking version, and its synaptic operations against the other version's products.

    A layer behind neurons does its products for spikes only; the first convolution reads numbers and does all. The
    memory is counted as the convolution that it is: all later steps for each number, or spike, written into it.
    """
    draw = tone_words(seed)
    model = fitted(_spec("before"), draw, steps=STEPS, seed=seed, progress=progress)
    x, words = draw(JUDGED, 200)
    rates = _rates(model, x)
    with torch.no_grad():
        right = float((model(x).argmax(-1) == words).float().mean())
    operations, products = _operations(rates), _products()
    mean = sum(rates.values()) / len(rates)
    value = {"rates": rates, "mean": mean, "operations": operations, "products": products, "accuracy": right}
    passed = mean < 0.35 and operations < products and right >= 0.5
    said = f"mean rate {mean:.3f} over {len(rates)} layers of neurons, {operations:,} synaptic operations against "
    said += f"{products:,} multiply-accumulates a word, accuracy {100 * right:.1f} %"
    return Measured(value, passed, said, "65x fewer operations than a Transformer (abstract)")


def _rates(model: Model, x: Tensor) -> dict[str, float]:
    """Share of the steps at which the neurons of each layer fire."""
    found: dict[str, float] = {}

    def watch(path: str) -> Any:
        def after(module: Any, args: Any, output: Tensor) -> None:
            found[path] = float(output.mean())

        return after

    handles = [m.register_forward_hook(watch(path)) for path, m in model.named_modules() if isinstance(m, Neurons)]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _sizes(order: int) -> dict[str, int]:
    """Products a frame of each layer, under the name of what feeds it."""
    conv = 3 * DIM * DIM
    block = "body.blocks.0.sublayers"
    return {
        "stem.neurons.0": conv,
        "stem.neurons.1": conv,
        "stem.neurons.2": conv,
        "stem.neurons.3": conv,
        f"{block}.0.first": DIM + DIM * DIM,
        f"{block}.0.input_neurons": order * (FRAMES + 1) // 2,
        f"{block}.0.memory_neurons": order * DIM,
        f"{block}.0.hidden_neurons": DIM * DIM,
        f"{block}.1.first": 4 * DIM * DIM,
        f"{block}.1.second": 4 * DIM * DIM,
        "body.blocks.1.mixer.neurons": 0,
    }


def _operations(rates: dict[str, float]) -> int:
    sizes = _sizes(2 * DIM)
    assert sizes.keys() == rates.keys()
    head = DIM * WORDS
    return round(FRAMES * (3 * BANDS * DIM + sum(rates[name] * size for name, size in sizes.items()))) + head


def _products() -> int:
    return FRAMES * (3 * BANDS * DIM + sum(_sizes(DIM).values())) + DIM * WORDS
