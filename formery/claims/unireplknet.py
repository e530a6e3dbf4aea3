"""Claims of UniRepLKNet (arXiv 2311.15599); `unireplknet_learning` has the one that needs trainings."""

from __future__ import annotations

import copy
import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .. import cards, rewrites
from ..create import create_model
from ..measure import count_macs, count_parameters
from ..model import Model
from ..parts.mixers.large_kernel import BRANCHES, LargeKernel, spread
from ..published import dialects_of
from ..spec import override
from .check import Measured, Progress, check
from .comparing import relative
from .figures import agrees, counted
from .unireplknet_learning import universality

__all__ = ["dilated", "exact", "faster", "field", "figures", "smaller", "universality"]

SMALL = "unireplknet_a"


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants as they learn."""
    return counted("unireplknet", progress, "Published figures are those of merged networks.")


@check
def smaller(seed: int, progress: Progress) -> Measured:
    """Merged structures of all variants: their counts equal the card's, and the published ones."""
    wrong, rows = [], {}
    for name, facts in cards.card("unireplknet").variants.items():
        progress(name)
        with torch.device("meta"):
            model = create_model(name)
            changes = next(d.changes for d in dialects_of(model) if d.name == "authors_merged")
            merged = Model(override(model.resolved, dict(changes))).eval()
        rows[name] = {"params": count_parameters(merged).total, "macs": count_macs(merged).total}
        wrong += [f"{name} {key}" for key, n in rows[name].items() if n != facts[f"merged_{key}"]]
        published = facts["published"]
        pairs = [(rows[name]["params"], published["params"])]
        if "flops" in published:
            pairs.append((rows[name]["macs"], published["flops"]))
        wrong += [f"{name} {text}" for n, text in pairs if not agrees(n, text) and (name, text) != TRUNCATED]
    said = f"merged, A has {rows[SMALL]['params']:,} parameters; {len(rows)} variants counted"
    said += f"; wrong: {', '.join(wrong)}" if wrong else ", all as on the card and as published"
    note = "XL has 386.53 million, which the paper prints as 386."
    return Measured(rows, not wrong, said, "4.4M for A", note)


TRUNCATED = ("unireplknet_xl", "386M")


def drawn(module: nn.Module) -> nn.Module:
    """Every number off its first value, running statistics too, so that nothing rests on zeros and ones."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn_like(tensor)
            tensor.copy_(1 + 0.3 * noise.abs() if name.endswith("running_var") else tensor + 0.2 * noise)
    return module.eval()


@check
def exact(seed: int, progress: Progress) -> Measured:
    """One network as it learned, merged by the rewrites, and loaded from a merged file."""
    model: Any = drawn(create_model(SMALL, num_classes=10))
    images = torch.randn(1, 3, 64, 64)
    merged: Any = copy.deepcopy(model)
    for name in ("reparameterize", "fold"):
        progress(name)
        rewrites.apply(merged, name)
    changes = next(d.changes for d in dialects_of(model) if d.name == "authors_merged")
    deployed: Any = Model(override(model.resolved, dict(changes))).eval()
    deployed.load_state_dict(merged.state_dict())
    with torch.no_grad():
        wanted = model(images)
        found = {"merged": relative(merged(images), wanted), "deployed": relative(deployed(images), wanted)}
    worst = max(found.values())
    said = f"largest difference of a score {worst:.1e} of the scale, by rewrites and as merged from the start"
    return Measured(found, worst <= 1e-5, said, "2e-6 on scores of size 3")


@check
def dilated(seed: int, progress: Progress) -> Measured:
    """Every dilated branch of every size against the dense kernel with zeros in it."""
    worst, widest = 0.0, 0
    for size, branches in BRANCHES.items():
        for k, r in branches:
            kernel = torch.randn(4, 1, k, k, dtype=torch.float64)
            x = torch.randn(1, 4, 21, 21, dtype=torch.float64)
            wide = spread(kernel, r)
            side = wide.shape[-1]
            sparse = nn.functional.conv2d(x, wide, padding=side // 2, groups=4)
            holed = nn.functional.conv2d(x, kernel, padding=r * (k // 2), dilation=r, groups=4)
            worst = max(worst, relative(sparse, holed))
            widest = max(widest, side - size)
    said = (
        f"largest difference {worst:.1e} of the scale in float64; the widest reaches {-widest} short of its large one"
    )
    return Measured({"relative": worst, "beyond": widest}, worst <= 1e-12 and widest <= 0, said)


@check
def faster(seed: int, progress: Progress) -> Measured:
    """Forward of the large kernels of A's second stage with branches against merged, in turn, in inference."""
    mixer: Any = drawn(LargeKernel(80, size=13))
    merged = copy.deepcopy(mixer)
    merged.reparameterize()
    x = torch.randn(1, 28, 28, 80)
    ratios = []
    with torch.inference_mode():
        for turn in range(ROUNDS + 2):
            slow, fast = (_seconds(part, x) for part in (mixer, merged))
            if turn >= 2:  # the first ones warm up
                ratios.append(slow / fast)
    ratio = median(ratios)
    return Measured(
        {"ratio": ratio}, ratio > 1.5, f"with branches {ratio:.1f} times merged's time", "6 layers become 1"
    )


ROUNDS = 15


def _seconds(part: nn.Module, x: Tensor) -> float:
    start = time.perf_counter()
    part(x)
    return time.perf_counter() - start


@check
def field(seed: int, progress: Progress) -> Measured:
    """How far from the centre half of the energy lies that one output's gradient spreads over the input."""
    radii = {str(size): mean_radius(size) for size in (3, 13)}
    ratio = radii["13"] / radii["3"]
    within = ", ".join(f"{radius:.1f} for {size} x {size}" for size, radius in radii.items())
    said = f"half of the gradient's energy within so many tokens: {within}"
    return Measured({"radii": radii, "ratio": ratio}, ratio > 1.5, said)


DEPTH, SIDE, DRAWS = 6, 81, 3


def mean_radius(size: int) -> float:
    """Mean over draws of weights."""
    return sum(_radius(size) for _ in range(DRAWS)) / DRAWS


def _radius(size: int) -> float:
    """Of `DEPTH` fresh blocks alike but for their kernel; weights by fan-in, and a layer scale of one."""
    block = {
        "mixer": {"kind": "large_kernel", "size": size, "dilated": size > 3, "squeeze": None},
        "channel": {"kind": "grn_mlp", "norm": "batch"},
        "scheme": {"kind": "single", "norm": None, "scale": 1.0},
    }
    model: Any = Model(
        {
            "stem": {"kind": "conv", "dim": 8, "size": 1, "stride": 1, "padding": 0, "img_size": SIDE},
            "body": {"kind": "stack", "layout": f"b*{DEPTH}", "blocks": {"b": block}},
            "head": {"kind": "classes", "num_classes": 2},
        }
    )
    model.init_weights(None)
    x = torch.randn(1, SIDE, SIDE, 8, requires_grad=True)
    centre = SIDE // 2
    model.eval().body(x).x[0, centre, centre].sum().backward()
    assert x.grad is not None
    energy = x.grad[0].square().sum(-1).flatten()
    steps = torch.arange(SIDE) - centre
    distance = (steps[:, None] ** 2 + steps**2).float().sqrt().flatten()
    order = distance.argsort()
    reached = energy[order].cumsum(0) / energy.sum()
    return float(distance[order][int((reached < 0.5).sum())])
