"""Claims of CrossFormer (arXiv 2108.00154); `crossformer_learning` has the one that needs trainings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..measure import count_macs
from ..measure.inputs import as_model
from ..parts.mixers.group_attention import GroupAttention
from ..parts.positions.offset_mlp import OffsetMLP
from ..parts.positions.relative_table import RelativeTable
from ..spec import Place, build
from .check import Measured, Progress, check
from .comparing import relative
from .crossformer_learning import scales
from .figures import counted

__all__ = ["any_group", "figures", "filling_hidden", "linear_cost", "permutation", "scales", "table"]

DIM = 32


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("crossformer", progress)


def _mixer(kind: str, side: int, **options: Any) -> GroupAttention:
    """A mixer with random weights."""
    spec = {"kind": kind, "heads": 2, "position": "offset_mlp", **options}
    mixer = build("mixer", spec, DIM, place=Place(grid=(side, side))).eval()
    assert isinstance(mixer, GroupAttention)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return mixer


def _network(mixer: GroupAttention) -> OffsetMLP:
    assert isinstance(mixer.position, OffsetMLP)
    return mixer.position


@check
def table(seed: int, progress: Progress) -> Measured:
    """Both kinds of attention with the network, and with a table of what it gives."""
    worst = 0.0
    for kind, options in (("window_attention", {"window": 5}), ("long_distance_attention", {"size": 5, "interval": 2})):
        mixer, x = _mixer(kind, 10, **options), torch.randn(2, 10, 10, DIM)
        with torch.no_grad():
            before = mixer(x)
            stored = RelativeTable(2, grid=(5, 5))
            stored.table.copy_(_network(mixer).rows((5, 5)))
            mixer.position = stored
            worst = max(worst, (mixer(x) - before).abs().max().item())
    return Measured({"difference": worst}, worst == 0, f"largest difference {worst:g}")


@check
def any_group(seed: int, progress: Progress) -> Measured:
    """The biases of one network for groups of 5 and of 7, offset by offset."""
    network = _network(_mixer("window_attention", 14, window=7))
    with torch.no_grad():
        small, large = network.bias((5, 5)), network.bias()
    inside = torch.arange(49).view(7, 7)[:5, :5].flatten()
    difference = (large[:, inside][:, :, inside] - small).abs().max().item()
    spread = (large.amax() - large.amin()).item()
    said = f"largest difference {difference:g}, of biases that spread over {spread:.2g}"
    return Measured({"difference": difference, "spread": spread}, difference == 0 and spread > 0, said)


def reordered(x: Tensor, size: int, interval: int) -> Tensor:
    """The map with the tokens of each long-distance group side by side, as one window."""
    height, width = x.shape[1:3]
    rows, columns = (torch.arange(n).view(-1, size, interval).transpose(1, 2).flatten() for n in (height, width))
    return x[:, rows][:, :, columns]


def restored(x: Tensor, size: int, interval: int) -> Tensor:
    """What `reordered` undoes."""
    return reordered(x, interval, size)


@check
def permutation(seed: int, progress: Progress) -> Measured:
    """Long-distance attention against neighbours' with the same weights on the reordered map."""
    worst, least = 0.0, float("inf")
    for size, interval, side in ((7, 2, 14), (4, 3, 24), (3, 4, 12)):
        far, near = _mixer("long_distance_attention", side, size=size, interval=interval), None
        near = _mixer("window_attention", side, window=size)
        near.load_state_dict(far.state_dict())
        x = torch.randn(2, side, side, DIM)
        with torch.no_grad():
            wanted = restored(near(reordered(x, size, interval)), size, interval)
            worst = max(worst, relative(far(x), wanted))
            least = min(least, relative(near(x), wanted))
    said = f"largest difference {worst:.1e} of the output's scale; without the reordering at least {least:.2g}"
    return Measured({"reordered": worst, "plain": least}, worst <= 1e-6 and least > 1e-3, said)


@check
def linear_cost(seed: int, progress: Progress) -> Measured:
    """The smallest variant at 224 and 448 pixels."""
    found = {}
    for side in (224, 448):
        progress(f"{side} pixels")
        report = count_macs(as_model("crossformer_t"), 1, 3, side, side)
        aside = sum(number for path, number in report.modules.items() if ".position." in path or path == "head.fc")
        found[str(side)] = report.total - aside
    said = ", ".join(f"{number / 1e9:.4f}G at {side} pixels" for side, number in found.items())
    return Measured(found, found["448"] == 4 * found["224"], f"{said}: {found['448'] / found['224']:.6f} times")


@check
def filling_hidden(seed: int, progress: Progress) -> Measured:
    """A map of 10 x 10 alone, and with another group of filling: the mixer then sees zeros that it hides."""
    worst = 0.0
    for kind, options, unit in (
        ("window_attention", {"window": 7}, 7),
        ("long_distance_attention", {"size": 3, "interval": 2}, 6),
    ):
        mixer, x = _mixer(kind, 10, **options), torch.randn(1, 10, 10, DIM)
        with torch.no_grad():
            small = mixer(x)
            large = _with_filling(mixer, x, unit)
        worst = max(worst, relative(large, small))
    return Measured({"relative": worst}, worst <= 1e-6, f"largest difference {worst:.1e} of the output's scale")


def _with_filling(mixer: GroupAttention, x: Tensor, more: int) -> Tensor:
    """The definition, on a map filled up by `more` rows and columns beyond whole groups: junk, hidden as keys."""
    cut, (height, width) = mixer.cut, x.shape[1:3]
    high, wide = (cut.filled(n) + more for n in (height, width))
    real = F.pad(torch.ones(height, width, dtype=torch.bool), (0, wide - width, 0, high - height))
    tokens = torch.randn(1, high, wide, x.shape[-1])
    tokens[:, :height, :width] = x
    rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
    group = _numbers(rows, cut.size, cut.interval) * high * wide + _numbers(columns, cut.size, cut.interval)
    place = _place(rows, cut.size, cut.interval) * cut.size + _place(columns, cut.size, cut.interval)
    qkv = mixer.qkv(tokens).flatten(0, 2).unflatten(-1, (3, mixer.heads, mixer.head_dim))
    q, k, v = qkv.permute(1, 2, 0, 3).unbind(0)
    scores = q @ k.mT * mixer.scale + _network(mixer).bias()[:, place.flatten()][:, :, place.flatten()]
    may = (group.flatten()[:, None] == group.flatten()) & real.flatten()
    met = scores.masked_fill(~may, -1e6).softmax(-1) @ v
    return mixer.out(met.transpose(0, 1).flatten(1)).view(1, high, wide, -1)[:, :height, :width]


def _numbers(step: Tensor, size: int, interval: int) -> Tensor:
    """The group along an axis."""
    return step // (size * interval) * interval + step % interval


def _place(step: Tensor, size: int, interval: int) -> Tensor:
    """The place in the group along an axis."""
    return step % (size * interval) // interval
