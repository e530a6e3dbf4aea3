"""The claim of UniFormer that needs trainings: local relations first, global ones last."""

from __future__ import annotations

from statistics import mean
from typing import Any

from ..data.drawn import relations_data
from ..measure import count_macs
from ..systems.vision import uniformer
from .check import Measured, Progress, check, silent
from .trials import CHANCE, in_words, trained

DIMS = [16, 24, 32, 48]
SEEDS = 2
STEPS = 300


@check
def local_then_global(seed: int, progress: Progress) -> Measured:
    """Nets of four stages with local (L) and global (G) relations, on relations between patches, trained alike."""
    found: dict[str, list[float]] = {}
    macs = {kinds: count_macs(_spec(kinds), 1, 3, 64, 64).total for kinds in ("LLLL", "LLGG", "GGGG")}
    for kinds in macs:
        for offset in range(SEEDS):
            progress(f"{kinds}, seed {seed + offset}")
            data = relations_data(seed=seed + offset, num=3000)
            options: dict[str, Any] = {"steps": STEPS, "seed": seed + offset, "learning_rate": 3e-3}
            found.setdefault(kinds, []).append(trained(_spec(kinds), data, progress=silent, **options).accuracy)
    least = min(mean(values) for values in found.values())
    dearer = macs["GGGG"] / macs["LLGG"]
    said = f"{in_words(found)}; chance is {100 * CHANCE:.0f} %; at 64 pixels GGGG costs {dearer:.2f} times LLGG's MACs"
    passed = mean(found["LLGG"]) > least and dearer > 1.2
    published = "LLGG is the best of the combinations on ImageNet"
    note = "" if passed else "Small nets and short trainings tell them apart by less than their seeds differ."
    return Measured({**found, "macs": macs}, passed, said, published, note)


def _spec(kinds: str) -> dict[str, Any]:
    """A small UniFormer for small images: tokens of 2 x 2 pixels, one block a stage."""
    merge = {"kind": "conv", "size": 2, "padding": 0, "out_norm": "layer"}
    stages = [
        {
            "kind": "stack",
            "dim_out": dim,
            "merge": merge if number else None,
            "blocks": [uniformer.local_block(2.0) if kind == "L" else uniformer.global_block(dim // 8, 2.0)],
        }
        for number, (kind, dim) in enumerate(zip(kinds, DIMS, strict=True))
    ]
    return {
        "stem": {"kind": "conv", "dim": DIMS[0], "size": 2, "stride": 2, "padding": 0, "norm": "layer"},
        "body": {"kind": "pyramid", "stages": stages},
        "head": uniformer.HEAD,
    }
