"""Claims of MetaFormer (arXiv 2111.11418); `metaformer_learning` has those that need trainings."""

from __future__ import annotations

import torch

from ..create import create_model
from ..measure import count_parameters
from ..spec import build
from .check import Measured, Progress, check
from .figures import counted
from .metaformer_learning import (
    attention_in_late_stages,
    identity_trains,
    norm_needed,
    pooling_over_identity,
    residual_needed,
)

__all__ = [
    "any_size", "attention_in_late_stages", "constant_map", "figures", "identity_trains", "norm_needed",
    "pooling_over_identity", "residual_needed", "zero_parameters",
]  # fmt: skip

COUNTED = 11_915_176
"""Parameters of PoolFormer-S12: table 1."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    why = "The authors' tool counted norms and pooling as well: 0.06G of M48, on the other side of a rounding."
    return counted("metaformer", progress, why)


@check
def constant_map(seed: int, progress: Progress) -> Measured:
    """The pooling mixer on constant maps, borders and single tokens included."""
    exact = rounded = 0.0
    for size in (3, 5):
        mixer = build("mixer", {"kind": "pooling", "size": size}, 16)
        for grid in ((1, 1), (1, 6), (5, 7), (14, 14)):
            constants = torch.randn(4, 1, 1, 16)
            short = (constants * 64).round() / 64  # so short that sums over the window are exact
            exact = max(exact, mixer(short.expand(4, *grid, 16).contiguous()).abs().max().item())
            error = mixer(constants.expand(4, *grid, 16).contiguous()) / constants
            rounded = max(rounded, error.abs().max().item() / torch.finfo(torch.float32).eps)
    return Measured(
        {"exact": exact, "rounded_eps": rounded},
        exact == 0 and rounded <= 8,
        f"largest output {exact:g} where sums are exact; {rounded:.1f} units of rounding elsewhere",
    )


@check
def zero_parameters(seed: int, progress: Progress) -> Measured:
    """Parameters of the mixer, and of the nets with pooling and with identity."""
    own = count_parameters(build("mixer", "pooling", 64)).total
    totals = {}
    for name in ("poolformer_s12", "metaformer_id_s12"):
        with torch.device("meta"):
            totals[name] = count_parameters(create_model(name)).total
    said = f"mixer {own}; " + ", ".join(f"{name} {total:,}" for name, total in totals.items())
    passed = own == 0 and set(totals.values()) == {COUNTED}
    return Measured({"mixer": own, **totals}, passed, said, "both nets 11.9M")


@check
def any_size(seed: int, progress: Progress) -> Measured:
    """One set of weights at two sizes; the size that a model was built for leaves no trace in it."""
    shapes = {(224, 224): (7, 7), (64, 96): (2, 3)}
    models = {size: create_model("poolformer_s12", img_size=size).eval() for size in shapes}
    weights = models[224, 224].state_dict()
    models[64, 96].load_state_dict(weights)
    difference, right, finite = 0.0, True, True
    with torch.no_grad():
        for (height, width), grid in shapes.items():
            images = torch.randn(1, 3, height, width)
            scores = [model(images) for model in models.values()]
            finite = finite and all(bool(s.isfinite().all()) for s in scores)
            difference = max(difference, (scores[0] - scores[1]).abs().max().item())
            right = right and tuple(models[64, 96].forward_features(images).shape[2:]) == grid
    said = f"scores finite: {finite}; last maps 7x7 and 2x3: {right}; built for either size, difference {difference:g}"
    value = {"finite": finite, "maps": right, "difference": difference}
    return Measured(value, finite and right and difference == 0, said)
