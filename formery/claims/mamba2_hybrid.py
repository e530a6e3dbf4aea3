"""Claims of Mamba-2-Hybrid that need no training; `mamba2_hybrid_learning` has the others."""

from __future__ import annotations

import time
from collections import Counter
from statistics import median

import torch

from ..bodies.blocks.base import BaseBlock
from ..context import Cache
from ..layout import parse
from ..measure.inputs import as_model
from ..model import Model
from ..systems.language import mamba2_hybrid as system
from .check import Measured, Progress, check
from .figures import counted
from .mamba2_hybrid_learning import length_without_positions, phonebook

__all__ = ["allocation", "cache", "decode_slope", "figures", "length_without_positions", "phonebook"]

SYMBOLS = {"mamba2": "M", "attention": "*", "mlp": "-"}
PUBLISHED = {
    "allocate(56, attention=.08, mlp=.5)": "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-",
    "allocate(24, attention=.08, mlp=.5)": "M-M-M--*M-M-M-M-*M--M-M-",
    "allocate(10, attention=.2, mlp=.2)": "MMM*-M*MM-",
}
"""Orders that the published algorithm gives for these shares."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("mamba2_hybrid", progress)


@check
def allocation(seed: int, progress: Progress) -> Measured:
    """Layouts written out beside the published orders, and the layers of the 8B counted."""
    found = {text: "".join(SYMBOLS[word] for word in parse(text).words()) for text in PUBLISHED}
    model = _eight_billion()
    layers = [block for block in model.modules() if isinstance(block, BaseBlock)]
    kinds = Counter(type(part).__name__ for layer in layers for _, _, part in layer.steps())
    same = [text for text, order in PUBLISHED.items() if found[text] == order]
    passed = len(same) == len(PUBLISHED) and kinds == {"Mamba2": 24, "Attention": 4, "MLP": 28}
    said = f"{len(same)} of {len(PUBLISHED)} orders are the published ones; the 8B has {dict(sorted(kinds.items()))}"
    return Measured({"orders": found, "layers": dict(kinds)}, passed, said)


def _eight_billion(layout: str = f"allocate(56, {system.SHARES})") -> Model:
    """The 8B's sizes in any order, without values."""
    spec = system.variant("mamba2_hybrid_8b")
    spec["body"]["layout"] = layout
    model = as_model(spec)
    assert isinstance(model, Model)
    return model


@check
def cache(seed: int, progress: Progress) -> Measured:
    """Bytes of keys and values a token, in bfloat16, of the hybrid and of 32 attention and 32 MLP layers."""
    found = {}
    for name, layout in (("hybrid", f"allocate(56, {system.SHARES})"), ("transformer", "(attention mlp)*32")):
        progress(name)
        model = _eight_billion(layout).to(torch.bfloat16)
        sizes = [
            sum(leaf.nbytes() for _, leaf in model.new_state(1, tokens).parts.leaves() if isinstance(leaf, Cache))
            for tokens in (1024, 2048)
        ]
        found[name] = (sizes[1] - sizes[0]) // 1024
    said = f"{found['hybrid'] / 1024:.0f} KiB a token against {found['transformer'] / 1024:.0f} KiB in bfloat16"
    passed = found["hybrid"] == 16 * 1024 and 32 * found["hybrid"] == 4 * found["transformer"]
    return Measured(found, passed, said, "4 layers of attention against 32")


CONTEXTS = (2048, 8192, 16384)
STEPS = 12


@check
def decode_slope(seed: int, progress: Progress) -> Measured:
    """A token at 2K, 8K and 16K tokens of context: 56 layers of the hybrid, 32 of attention and 32 MLPs, 256 wide.

    The contexts are drawn, not read: what keys and values hold does not change what looking at them costs.
    """
    layouts = {"hybrid": f"allocate(56, {system.SHARES})", "transformer": "(attention mlp)*32"}
    found: dict[str, dict[str, float]] = {}
    for name, layout in layouts.items():
        mamba = {"heads": 8, "head_dim": 64, "groups": 1, "state": 64}
        attention = {"heads": 4, "kv_heads": 4, "head_dim": 64}
        spec = system.spec(dim=256, vocab=256, layout=layout, mamba=mamba, attention=attention, mlp={"hidden": 1024})
        model = Model(spec).eval()
        for context in CONTEXTS:
            progress(f"{name} at {context}")
            found.setdefault(name, {})[str(context)] = 1e3 * _seconds_a_token(model, context)
    slopes = {name: row[str(CONTEXTS[-1])] - row[str(CONTEXTS[0])] for name, row in found.items()}
    ratio = slopes["transformer"] / max(slopes["hybrid"], 1e-9)
    said = "; ".join(f"{n} {' / '.join(f'{v:.1f}' for v in row.values())} ms" for n, row in found.items())
    note = "" if ratio >= 4 else "Another program may have taken part of the machine's time."
    said = f"at 2K / 8K / 16K tokens: {said}; the slope is {ratio:.1f} times as steep"
    return Measured({"ms": found, "ratio of slopes": ratio}, ratio >= 4, said, "up to 8 times faster generation", note)


@torch.inference_mode()
def _seconds_a_token(model: Model, context: int) -> float:
    stream = model.new_state(1, context + STEPS + 2)
    for _, leaf in stream.parts.leaves():
        if isinstance(leaf, Cache):
            drawn = torch.randn(leaf.keys.shape[0], leaf.keys.shape[1], context, leaf.keys.shape[3])
            leaf.append(drawn, drawn)
    stream.seen, stream.total = stream.seen + context, context
    token = torch.zeros(1, 1, dtype=torch.long)
    model(token, state=stream)
    times: list[float] = []
    for _ in range(STEPS):
        start = time.perf_counter()
        model(token, state=stream)
        times.append(time.perf_counter() - start)
    return median(times)
