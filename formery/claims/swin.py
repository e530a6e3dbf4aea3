"""Claims of Swin (arXiv 2103.14030) and Swin V2 (arXiv 2111.09883); trainings are in `swin_learning`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..bodies.blocks.block import Block
from ..create import create_model
from ..measure import count_macs
from ..ops import token_groups
from ..parts.mixers.window_attention import WindowAttention
from ..spec import Place, build
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted
from .swin_learning import shift_and_position

__all__ = [
    "figures", "identity_at_start", "linear_cost", "roll_and_mask", "shift_and_position", "shift_isolated",
]  # fmt: skip


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("swin", progress)


@check
def linear_cost(seed: int, progress: Progress) -> Measured:
    """Products of a block of the first stage, shifted, on three maps."""
    spec = {"mixer": {"kind": "window_attention", "shift": True}}
    found: dict[str, int] = {}
    for side in (56, 112, 224):
        with torch.device("meta"):
            block = build("block", spec, 96, place=Place(grid=(side, side))).eval()
            found[str(side)] = count_macs(block, torch.empty(1, side, side, 96)).total
    passed = [number / found["56"] for number in found.values()] == [1, 4, 16]
    said = ", ".join(f"{side}^2 tokens {number / 1e9:.4f}G" for side, number in found.items())
    return Measured(found, passed, said, "0.3769G, 1.5077G, 6.0308G, norms counted")


def _shifted(window: int, side: int, dtype: torch.dtype = torch.float32) -> WindowAttention:
    """A shifted mixer of random weights, narrow."""
    spec = {"kind": "window_attention", "window": window, "shift": True, "heads": 2}
    mixer = build("mixer", spec, 16, place=Place(grid=(side, side))).to(dtype).eval()
    assert isinstance(mixer, WindowAttention)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return mixer


@check
def shift_isolated(seed: int, progress: Progress) -> Measured:
    """Tokens that a change at the corner of a map reaches, with the mask and without."""
    mixer, x = _shifted(4, 8), torch.randn(1, 8, 8, 16)
    moved = x.clone()
    moved[0, 0, 0] += 1
    cut = token_groups.for_map(mixer.cut, (8, 8))
    with torch.no_grad():
        reached = (mixer(moved) - mixer(x)).abs().amax(-1)[0] > 0
        bare = [_unmasked(mixer, tokens, cut) for tokens in (moved, x)]
    leaks = (bare[0] - bare[1]).abs().amax(-1)[0] > 0
    near, corners = torch.zeros(8, 8, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)
    near[:2, :2] = True
    for rows in (slice(0, 2), slice(6, 8)):
        for columns in (slice(0, 2), slice(6, 8)):
            corners[rows, columns] = True
    passed = torch.equal(reached, near) and torch.equal(leaks, corners)
    said = f"{int(reached.sum())} tokens change, those of the corner: {torch.equal(reached, near)}; "
    said += f"without the mask {int(leaks.sum())}, those of the four corners: {torch.equal(leaks, corners)}"
    return Measured({"reached": int(reached.sum()), "unmasked": int(leaks.sum())}, passed, said)


def _unmasked(mixer: WindowAttention, x: Tensor, cut: token_groups.Cut) -> Tensor:
    """The mixer on rolled windows, without a mask."""
    groups = token_groups.partition(x, cut)
    side = mixer.cut.size
    windows = groups.unflatten(1, (side, side))  # each a map of one window, which is not shifted
    return token_groups.merge(mixer(windows).flatten(1, 2), cut, (x.shape[1], x.shape[2]))


@check
def roll_and_mask(seed: int, progress: Progress) -> Measured:
    """The mixer on a map against itself on each of the uneven windows that the shifted grid cuts the map into."""
    worst: dict[str, float] = {}
    for dtype in (torch.float32, torch.float64):
        for window, side in ((4, 8), (4, 12), (7, 14), (5, 10)):
            mixer, x = _shifted(window, side, dtype), torch.randn(2, side, side, 16, dtype=dtype)
            edges = [0, *range(window // 2, side, window), side]
            wanted = torch.empty_like(x)
            with torch.no_grad():
                for top, bottom in pairwise(edges):
                    for left, right in pairwise(edges):
                        wanted[:, top:bottom, left:right] = mixer(x[:, top:bottom, left:right].contiguous())
                error = relative(mixer(x), wanted)
            name = str(dtype).rpartition(".")[2]
            worst[name] = max(worst.get(name, 0.0), error)
    passed = worst["float32"] <= 1e-6 and worst["float64"] <= 1e-12
    said = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    return Measured(worst, passed, f"largest difference of the output's scale: {said}")


@check
def identity_at_start(seed: int, progress: Progress) -> Measured:
    """Fresh blocks of a Swin V2, and of a Swin."""
    found = {}
    for name in ("swinv2_tiny_w8", "swin_tiny"):
        body: Any = create_model(name, img_size=64).eval().body
        changes = []
        with torch.no_grad():
            for stage in body.stages:
                for block in stage.blocks:
                    assert isinstance(block, Block)
                    x = torch.randn(1, *stage.grid, stage.dim)
                    changes.append((block(x) - x).abs().max().item())
        found[name] = [min(changes), max(changes)]
    passed = found["swinv2_tiny_w8"] == [0, 0] and found["swin_tiny"][0] > 0
    said = f"largest change {found['swinv2_tiny_w8'][1]:g}; of Swin's blocks at least {found['swin_tiny'][0]:.1e}"
    return Measured(found, passed, said)
