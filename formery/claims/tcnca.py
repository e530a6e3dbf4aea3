"""Claims of TCNCA that need no training and no clock; `tcnca_learning` and `tcnca_costs` have the others."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from ..context import Context
from ..ops import damped_average as average
from ..parts.mixers.mixer import Mixer
from ..spec import build
from .check import Measured, Progress, check
from .comparing import relative, scores_in_pieces
from .figures import counted
from .tcnca_costs import costs
from .tcnca_learning import associations

__all__ = ["associations", "chunks", "costs", "figures", "reach", "recurrence", "ring_buffers"]


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("tcnca", progress)


def _network(width: int, factor: int, layers: int, dim: int = 4) -> Any:
    options = {"width": width, "factor": factor, "layers": layers}
    return build("mixer", {"kind": "temporal_convolution", **options}, dim).double().eval()


@check
def reach(seed: int, progress: Progress) -> Measured:
    """One input changed: outputs up to R - 1 tokens later change, that R tokens later does not; nor do earlier ones."""
    found: dict[str, int] = {}
    right = True
    for width, factor, layers in itertools.product((2, 3, 5), (1, 2, 3), (1, 2, 3, 4)):
        network = _network(width, factor, layers)
        spread = layers if factor == 1 else (factor**layers - 1) // (factor - 1)
        wanted = 1 + (width - 1) * spread
        x = torch.randn(1, wanted + 20, 4, dtype=torch.float64)
        other = x.clone()
        other[:, 10] += 1.0
        with torch.no_grad():
            changed = (network(x) != network(other)).any(-1)[0].nonzero().flatten()
        found[f"{width} taps, {factor}^i, {layers} layers"] = int(changed.max()) - 9
        right &= int(changed.min()) == 10 and int(changed.max()) == 10 + wanted - 1 and network.reach == wanted
    said = f"{len(found)} networks, reach {min(found.values())} to {max(found.values())} tokens, "
    said += "all as the formula says" if right else f"not all as the formula says: {found}"
    return Measured(found, right, said)


@check
def recurrence(seed: int, progress: Progress) -> Measured:
    """Mega's average by Fourier transform, whole and in pieces, against the recurrence, float32."""
    worst: dict[str, float] = {}
    part = build("mixer", {"kind": "damped_average", "dims": 16}, 32)
    with torch.no_grad():
        keep, write, read = part.rates()
        for length in (16, 128, 1000):
            x = torch.randn(2, length, 32)
            wanted, last = average.reference(x, keep, write, read)
            state, pieces = None, []
            for piece in x.split(max(1, length // 3), dim=1):
                y, state = average.damped_average(piece, keep, write, read, state)
                pieces.append(y)
            assert state is not None
            found = {"whole": average.damped_average(x, keep, write, read)[0], "pieces": torch.cat(pieces, dim=1)}
            for name, y in found.items():
                worst[f"{name} {length}"] = relative(y, wanted)
            worst[f"state {length}"] = relative(state, last)
    largest = max(worst.values())
    return Measured(worst, largest < 1e-5, f"largest difference of the scale {largest:.1e}")


@check
def chunks(seed: int, progress: Progress) -> Measured:
    """Gradients from each output to each input, chunk by chunk, with something moved between them and without."""
    found: dict[str, float] = {}
    moves: dict[str, Any] = {
        "nothing": None,
        "average": {"kind": "damped_average", "dims": 4},
        "convolutions": {"kind": "temporal_convolution", "width": 3, "layers": 5},
    }
    for name, move in moves.items():
        options = {"shared": 8, "values": 16, "chunk": 8, "move": move, "norm": "layer"}
        part = build("mixer", {"kind": "gated_chunk_attention", **options}, 16).double().eval()
        x = torch.randn(1, 32, 16, dtype=torch.float64, requires_grad=True)
        within, across = 0.0, 0.0
        y = part(x, Context(causal=True))
        for chunk in range(4):
            (g,) = torch.autograd.grad(y[:, 8 * chunk : 8 * chunk + 8].square().sum(), x, retain_graph=True)
            within += float(g[:, 8 * chunk : 8 * chunk + 8].abs().sum())
            across += float(g[:, : 8 * chunk].abs().sum())
        found[name] = across / within
    passed = found["nothing"] == 0 and min(found["average"], found["convolutions"]) > 1e-6
    said = ", ".join(f"{name} moved: {value:.2g}" for name, value in found.items())
    return Measured(found, passed, f"gradient across chunks over that within: {said}")


@check
def ring_buffers(seed: int, progress: Progress) -> Measured:
    """Convolution networks token by token and in pieces against the whole, float32; and a whole model."""
    worst: dict[str, float] = {}
    for width, factor, layers in ((3, 2, 4), (5, 3, 3), (17, 4, 2)):
        network: Mixer = _network(width, factor, layers, 16).float()
        x = torch.randn(2, 200, 16)
        with torch.no_grad():
            whole = network(x)
            for split in ([1] * 200, [7, 1, 150, 42]):
                state = network.new_state(2, 200)
                y = torch.cat([network(piece, state=state) for piece in x.split(split, dim=1)], dim=1)
                key = f"{width} taps, {factor}^i, {layers} layers"
                worst[key] = max(worst.get(key, 0.0), relative(y, whole))
    cuts = ([64, *[1] * 36],)
    worst["scores of tcnca_tiny"] = scores_in_pieces("tcnca_tiny", torch.float32, cuts, length=100, noise=0)
    largest = max(worst.values())
    return Measured(worst, largest < 1e-6, f"largest difference of the scale {largest:.1e}")
