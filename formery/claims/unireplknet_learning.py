"""The claim of UniRepLKNet that needs trainings: one trunk for images, sounds and series."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..data.arrays import ArrayData
from .check import Measured, Progress, check, silent
from .trials import in_words, trained

NORM = {"kind": "layer", "eps": 1e-6}
SIDE, CLASSES, NUM = 32, 4, 1200
KINDS = tuple(str(i) for i in range(CLASSES))


@check
def universality(seed: int, progress: Progress) -> Measured:
    """One trunk of one channel in, learning digits, tones in noise, and what comes next in a folded series."""
    found: dict[str, list[float]] = {}
    bars: dict[str, float] = {}
    for name, data in {"digits": digits(seed), "tones": tones(seed), "series": series(seed)}.items():
        progress(name)
        trial = trained(trunk(), data, steps=160, seed=seed, progress=silent)
        found[name] = [trial.accuracy]
        bars[name] = 2 / len(data.classes)  # twice chance
    passed = all(values[0] > bars[name] for name, values in found.items())
    note = "Small drawn tasks and a trunk of width 16: they show that it learns from each, not how well it compares."
    return Measured({"accuracy": found, "bars": bars}, passed, f"accuracy {in_words(found)}", "", note)


def trunk() -> dict[str, Any]:
    """Two stages: large kernels with branches, then large and small ones in turn."""
    blocks = {
        "large": {"mixer": {"kind": "large_kernel", "size": 7}},
        "small": {"mixer": {"kind": "large_kernel", "size": 3, "dilated": False}},
    }
    return {
        "stem": {"kind": "convs", "widths": [8, 16], "norm": NORM, "activation": "gelu", "last_activation": False,
                 "strides": [2, 1], "in_chans": 1, "img_size": SIDE},
        "body": {
            "kind": "pyramid",
            "dims": [16, 24],
            "layouts": ["large", "large small"],
            "blocks": blocks,
            "channel": {"kind": "grn_mlp", "norm": "batch"},
            "scheme": {"kind": "single", "norm": None, "scale": 0.1},
            "merge": {"kind": "conv", "out_norm": NORM},
        },
        "head": {"kind": "classes", "norm": NORM, "order": "pool_norm"},
    }  # fmt: skip


def _data(maps: torch.Tensor, labels: torch.Tensor, name: str, classes: tuple[str, ...], seed: int) -> ArrayData:
    """Maps (N, SIDE, SIDE) of one channel, scaled to bytes, as images are."""
    low, high = maps.amin(), maps.amax()
    pixels = ((maps - low) / (high - low) * 255).round().to(torch.uint8)[..., None]
    return ArrayData(
        pixels.numpy(), labels.numpy(), classes, name=name, layout="NHWC", shifts=0, splits=(0.6, 0.2, 0.2), seed=seed
    )


def digits(seed: int) -> ArrayData:
    """Scikit-learn's handwritten digits, enlarged to the trunk's map."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = torch.from_numpy(loaded.images).float().repeat_interleave(4, 1).repeat_interleave(4, 2)
    return _data(images, torch.from_numpy(loaded.target), "digits", tuple(map(str, range(10))), seed)


def tones(seed: int) -> ArrayData:
    """Spectrograms (time x frequency) of tones in noise: steady, rising, falling, or beating, at any pitch."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, NUM)
    length, hop = 64, 16
    samples = np.arange(length + hop * (SIDE - 1))
    rows = []
    for label in labels:
        pitch, drift = draw.uniform(0.15, 0.3), draw.uniform(0.06, 0.12) / len(samples)
        slope = (0.0, drift, -drift, 0.0)[label]
        wave = np.sin(2 * np.pi * (pitch + slope * samples / 2) * samples + draw.uniform(0, 2 * np.pi))
        if label == 3:
            wave *= np.sin(2 * np.pi * draw.uniform(3, 6) * samples / len(samples)) > 0
        rows.append(wave + 0.7 * draw.standard_normal(len(samples)))
    waves = torch.from_numpy(np.stack(rows)).float()
    windows = waves.unfold(-1, length, hop) * torch.hann_window(length)
    power = torch.fft.rfft(windows).abs()[..., :SIDE].clamp(min=1e-3).log()
    return _data(power, torch.from_numpy(labels), "tones", KINDS, seed)


def series(seed: int) -> ArrayData:
    """A window of two sines and noise, folded row by row into a map; the class is the quarter in which the mean of the
    next values falls."""
    draw = np.random.default_rng(seed + 1)
    window, ahead = SIDE * SIDE, 64
    steps = np.arange(window + ahead)
    rows = []
    for _ in range(NUM):
        periods = draw.uniform(150, 400), draw.uniform(500, 1500)
        phases = draw.uniform(0, 2 * np.pi, 2)
        wave = sum(np.sin(2 * np.pi * steps / p + phase) for p, phase in zip(periods, phases, strict=True))
        rows.append(wave + 0.1 * draw.standard_normal(len(steps)))
    values = torch.from_numpy(np.stack(rows)).float()
    target = values[:, window:].mean(1)
    bounds = target.quantile(torch.tensor([0.25, 0.5, 0.75]))
    return _data(values[:, :window].view(NUM, SIDE, SIDE), torch.bucketize(target, bounds), "series", KINDS, seed)
