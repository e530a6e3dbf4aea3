"""Claims of Next-ViT (arXiv 2207.05501); `nextvit_learning` has the one that needs trainings."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bodies.blocks.widening import Widening
from ..context import NOTHING
from ..create import create_model
from ..model import Model
from ..parts.mixers.grids import on_grid
from ..parts.norms.batch import Batch
from ..rewrites.fold import Fold
from ..runtime.export import export_onnx
from ..spec import build
from ..systems.vision.nextvit import convolution_block, transformer_block
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted
from .nextvit_learning import hybrid_strategy

__all__ = ["figures", "frequencies", "hybrid_strategy", "merging", "onnx_runtime", "operators", "raster_runs"]

COMPUTES = {"Conv", "MatMul", "Gemm", "Relu", "AveragePool", "ReduceMean", "Softmax"}
ARITHMETIC = {"Add", "Mul"}
"""Residual sums, biases, and the scale of attention's scores."""
MOVES = {
    "Cast", "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Shape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that put numbers elsewhere and compute none."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted(
        "nextvit", progress, "The paper cuts figures off: 31.76 and 57.87 million are printed 31.7 and 57.8."
    )


def miniature() -> Model:
    """Next-ViT's blocks, few and narrow: keys of one token and of four, odd sides on the way."""
    stages: list[dict[str, Any]] = []
    for dim, out, pool in ((32, 64, 2), (64, 96, 1)):
        blocks = [convolution_block(), transformer_block(dim, out, pool=pool)]
        stages.append({"kind": "stack", "blocks": blocks, "dim_out": dim, "merge": {"kind": "pooling"}})
    return Model(
        {
            "stem": {"kind": "convs", "widths": [8, 16], "bias": False, "img_size": 36},
            "body": {"kind": "pyramid", "stages": stages},
            "head": {"kind": "classes", "norm": "batch", "num_classes": 10},
        }
    )


def stirred(model: Model) -> Model:
    """The model with every weight and statistic moved, so that ones and zeros hide nothing."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Batch):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
            elif isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.normal_(std=module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    module.bias.normal_(std=0.2)
    return model.eval()


def merged(model: Model) -> Model:
    """A copy without batch norms."""
    folded = copy.deepcopy(model)
    Fold.perform(folded, Fold.decide(folded, classifier=True))
    return folded


@check
def merging(seed: int, progress: Progress) -> Measured:
    """Scores before and after the fold, in float64, at a size at which nothing divides as well."""
    model = stirred(create_model("nextvit_small", num_classes=10, img_size=64)).double()
    folded = merged(model)
    worst = 0.0
    with torch.no_grad():
        for height, width in ((64, 64), (72, 100)):
            images = torch.randn(2, 3, height, width, dtype=torch.float64)
            worst = max(worst, relative(folded(images), model(images)))
    before, left = (sum(isinstance(m, Batch) for m in one.modules()) for one in (model, folded))
    said = f"{before} batch norms before, {left} after; largest difference {worst:.1e} of the scores' scale"
    return Measured({"before": before, "left": left, "relative": worst}, left == 0 and worst <= 1e-10, said)


def _exported(model: Model) -> tuple[Counter[str], float]:
    """The operators of the model's ONNX graph, and how far onnxruntime's scores are off, of their scale."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        report = export_onnx(model, path, tolerance=1.0)
        return Counter(node.op_type for node in onnx.load(str(path)).graph.node), report.max_difference / report.scale


@check
def operators(seed: int, progress: Progress) -> Measured:
    """What the exported graph of a merged model is made of."""
    progress("exporting")
    found, _ = _exported(merged(stirred(miniature())))
    computing = {name: count for name, count in sorted(found.items()) if name not in MOVES}
    others = sorted(computing.keys() - COMPUTES - ARITHMETIC)
    said = ", ".join(f"{count} {name}" for name, count in computing.items())
    said = f"{said}; others: {', '.join(others) or 'none'}"
    return Measured({"computing": computing, "others": others}, not others, said)


@check
def onnx_runtime(seed: int, progress: Progress) -> Measured:
    """A model that is not merged, exported and run."""
    progress("exporting")
    _, error = _exported(stirred(miniature()))
    return Measured({"relative": error}, error <= 1e-4, f"largest difference {error:.1e} of the scores' scale")


@check
def raster_runs(seed: int, progress: Progress) -> Measured:
    """Which of the 16 keys of a map of 16 x 16 tokens hear of each token of its first row, for either pooling."""
    heard: dict[str, list[list[int]]] = {}
    x = torch.randn(1, 16, 16, 32)
    for pool in ("raster", "2d"):
        mixer = build("mixer", {"kind": "pooled_attention", "heads": 1, "stride": 4, "pool": pool}, 32)
        before = mixer._pooled(x)
        heard[pool] = []
        for column in range(16):
            other = x.clone()
            other[0, 0, column] += 1
            changed = (mixer._pooled(other) - before).abs().amax(-1)[0] > 1e-6
            heard[pool].append(changed.nonzero().flatten().tolist())
    runs = all(keys == [0] for keys in heard["raster"])
    squares = heard["2d"] == [[column // 4] for column in range(16)]
    keys = {pool: len({key for keys in found for key in keys}) for pool, found in heard.items()}
    said = f"keys that hear of the first row: {keys['raster']} with runs, {keys['2d']} with squares"
    return Measured({"keys": keys}, runs and squares, said)


@check
def frequencies(seed: int, progress: Progress) -> Measured:
    """The spectra of what attention and convolution of fresh transformer blocks give on white noise."""
    model = create_model("nextvit_small")
    shares = []
    with torch.no_grad():
        for block in model.eval().body.modules():
            if not isinstance(block, Widening):
                continue
            x = torch.randn(2, 28, 28, block.project.in_features)
            narrow = torch.randn(2, 28, 28, block.project.out_features)
            parts = ((block.get_submodule("mixer"), x), (block.get_submodule("local"), narrow))
            shares.append([_high(_mixed(part, tokens)) for part, tokens in parts])
    said = "; ".join(f"attention {low:.2f}, convolution {high:.2f}" for low, high in shares)
    rows = [{"attention": low, "convolution": high} for low, high in shares]
    passed = bool(rows) and all(low < high for low, high in shares)
    return Measured({"shares": rows}, passed, f"shares of fine detail: {said}")


def _mixed(mixer: Any, x: Tensor) -> Tensor:
    return on_grid(mixer, x, NOTHING, None)


def _high(maps: Tensor) -> float:
    """The share of the energy of (B, H, W, C), its mean included, above half the highest frequency along an axis."""
    energy = torch.fft.fft2(maps.movedim(-1, 1)).abs().square()
    rows, columns = (torch.fft.fftfreq(n).abs() for n in maps.shape[1:3])
    fine = (rows[:, None] > 0.25) | (columns > 0.25)
    return (energy[..., fine].sum() / energy.sum()).item()
