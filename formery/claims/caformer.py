"""Claims of MetaFormer baselines (arXiv 2210.13452)."""

from __future__ import annotations

import torch

from ..parts.activations import StarReLU
from ..spec import build
from .check import Measured, Progress, check
from .figures import counted

__all__ = ["figures", "star_relu", "stream_scale"]

UNIT = (0.8944, -0.4472)
"""s = 1 / sqrt(Var(relu(x)^2)) = 1 / sqrt(1.25) and b = -0.5 s, for standard normal x."""
DRAWS = 1_000_000


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("caformer", progress)


@check
def star_relu(seed: int, progress: Progress) -> Measured:
    """Mean and variance over draws, with the paper's numbers and with those that training begins at."""
    activation, x = StarReLU().double(), torch.randn(DRAWS, dtype=torch.float64)
    found = {}
    with torch.no_grad():
        for name, (s, b) in (("squared ReLU", (1.0, 0.0)), ("StarReLU", UNIT)):
            activation.scale.fill_(s)
            activation.bias.fill_(b)
            y = activation(x)
            found[name] = {"mean": y.mean().item(), "variance": y.var().item()}
    wanted = {"squared ReLU": (0.5, 1.25), "StarReLU": (0.0, 1.0)}
    passed = all(
        abs(found[name]["mean"] - mean) <= 0.005 and abs(found[name]["variance"] - variance) <= 0.01
        for name, (mean, variance) in wanted.items()
    )
    said = "; ".join(f"{name} mean {f['mean']:.4f}, variance {f['variance']:.4f}" for name, f in found.items())
    return Measured(found, passed, said)


@check
def stream_scale(seed: int, progress: Progress) -> Measured:
    """Blocks with a factor of one against plain ones; and with a factor of zero, on two streams of one norm."""
    mixer = {"kind": "attention", "heads": 2}
    plain, scaled = (
        build("block", {"mixer": mixer, "scheme": {"kind": "pre", "stream_scale": factor}}, 32)
        for factor in (None, 1.0)
    )
    scaled.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 9, 32)
    with torch.no_grad():
        equal = torch.equal(scaled(x), plain(x))
        for factor in scaled.scheme.stream_scales:
            factor.weight.zero_()
        other = 4 * x + 3  # what a layer norm does not see, but for eps
        apart = (scaled(other) - scaled(x)).abs().max().item()
        beside = (plain(other) - plain(x)).abs().max().item()
    said = f"fresh blocks equal: {equal}; streams of one norm end {apart:.1e} apart with factor 0, {beside:.1f} without"
    return Measured({"equal": equal, "behind_zero": apart, "plain": beside}, equal and apart < 1e-3 < beside, said)
