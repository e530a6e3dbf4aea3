"""Claims of Olmo Hybrid that need no training; `olmo_hybrid_learning` has the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..context import Cache
from ..measure.inputs import as_model
from ..model import Model
from ..ops.gated_delta_rule import chunked, reference
from ..systems.language import olmo_hybrid as system
from .check import Measured, Progress, check
from .comparing import BARS, relative, scores_in_pieces
from .figures import counted
from .olmo_hybrid_learning import length_without_positions, parity_of_bits, permutations, recall_and_state

__all__ = [
    "cache", "chunks", "figures", "length_without_positions", "parity_of_bits", "permutations", "recall_and_state",
    "state",
]  # fmt: skip

TOKENS = 65536
"""The 7B's longest sequence."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("olmo_hybrid", progress)


@check
def chunks(seed: int, progress: Progress) -> Measured:
    """The operator in chunks against its definition, and the model's scores in pieces against the whole."""
    worst: dict[str, float] = {}
    for dtype in BARS:
        name = str(dtype).removeprefix("torch.")
        progress(name)
        for length in (1, 5, 64, 70, 131):
            inputs = _inputs(length, dtype)
            wanted = reference(*inputs)
            for chunk in (1, 3, 16, 64, 200):
                found = chunked(*inputs, chunk=chunk)
                error = max(relative(a, b) for a, b in zip(found, wanted, strict=True))
                worst[f"operator {name}"] = max(worst.get(f"operator {name}", 0.0), error)
        worst[f"scores {name}"] = scores_in_pieces("olmo_hybrid_tiny", dtype)
    passed = all(error <= BARS[torch.float32 if "32" in name else torch.float64] for name, error in worst.items())
    said = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    return Measured(worst, passed, f"largest differences of the scale: {said}")


def _inputs(length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, g, beta as the mixer makes them, eigenvalues down to -1 included, and a state."""
    B, H, K, V = 2, 3, 8, 16
    q, k = (F.normalize(torch.randn(B, length, H, K, dtype=dtype), dim=-1) for _ in range(2))
    v = torch.randn(B, length, H, V, dtype=dtype)
    g = -F.softplus(torch.randn(B, length, H, dtype=dtype)) * torch.rand(H, dtype=dtype)
    beta = 2 * torch.rand(B, length, H, dtype=dtype)
    return q, k, v, g, beta, torch.randn(B, H, K, V, dtype=dtype)


def _seven_billion(layout: str) -> Model:
    """The 7B's sizes with any layout, without values."""
    sizes: Any = {"dim": 3840, "vocab": 100352, "hidden": 11008, "heads": 30, "head_dim": 96}
    model = as_model(system.spec(**sizes, layout=layout, position=None))
    assert isinstance(model, Model)
    return model


def _bytes(model: Model, kinds: type, tokens: int) -> list[int]:
    leaves = model.new_state(1, tokens).parts.leaves()
    return [leaf.nbytes() for _, leaf in leaves if isinstance(leaf, kinds)]


@check
def cache(seed: int, progress: Progress) -> Measured:
    """Bytes of the 7B's caches against those of as many attention layers."""
    hybrid = sum(_bytes(_seven_billion(f"{system.LAYOUT}*8"), Cache, TOKENS))
    attention = sum(_bytes(_seven_billion("attention*32"), Cache, TOKENS))
    said = f"{hybrid / 2**30:.2f} GiB against {attention / 2**30:.2f} GiB for {TOKENS:,} tokens in float32"
    value = {"hybrid": hybrid, "attention": attention, "tokens": TOKENS}
    return Measured(value, 4 * hybrid == attention, said, "8 of 32 layers are attention")


@check
def state(seed: int, progress: Progress) -> Measured:
    """What a recurrent layer of the 7B carries, for 1 token and for 65,536."""
    model = as_model("olmo_hybrid_7b")
    assert isinstance(model, Model)
    layer = model.get_submodule("body.blocks.0.mixer")
    sizes = []
    for tokens in (1, TOKENS):
        own = layer.new_state(1, tokens)  # type: ignore[operator]
        sizes.append({name: leaf.value.numel() for name, leaf in own.leaves()})
    said = f"memory {sizes[0]['memory']:,} numbers, convolution {sizes[0]['tail']:,}, for 1 token and for {TOKENS:,}"
    note = (
        "The published code keeps four columns of the convolution's input, the last of which the next token pushes out."
    )
    passed = sizes[0] == sizes[1] and sizes[0] == {"memory": 30 * 96 * 192, "tail": 3 * 11520}
    return Measured(sizes[0], passed, said, "552,960 numbers and 4 columns of 11,520", note)
