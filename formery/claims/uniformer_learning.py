"""The claim of UniFormer that needs trainings: local relations first, global ones last."""

from __future__ import annotations

from statistics import mean
from typing import Any

from ..data.digits import digits
from ..measure import count_macs
from ..systems.vision import uniformer
from .check import Measured, Progress, check, silent
from .trials import in_words, trained

DIMS = [16, 24, 32, 48]
SEEDS = 3
STEPS = 100


@check
def local_then_global(seed: int, progress: Progress) -> Measured:
    """Nets of four stages with local (L) and global (G) relations, trained alike on the digits."""
    found: dict[str, list[float]] = {}
    macs = {kinds: count_macs(_spec(kinds), 1, 3, 64, 64).total for kinds in ("LLLL", "LLGG", "GGGG")}
    for kinds in macs:
        for offset in range(SEEDS):
            progress(f"{kinds}, seed {seed + offset}")
            data = digits(seed=seed + offset)
            options: dict[str, Any] = {"steps": STEPS, "seed": seed + offset, "learning_rate": 3e-3}
            found.setdefault(kinds, []).append(trained(_spec(kinds), data, progress=silent, **options).accuracy)
    least = min(mean(values) for values in found.values())
    dearer = macs["GGGG"] / macs["LLGG"]
    said = f"{in_words(found)}; at 64 pixels GGGG costs {dearer:.2f} times LLGG's MACs"
    passed = mean(found["LLGG"]) > least and dearer > 1.2
    published = "LLGG is the best of the combinations on ImageNet"
    note = (
        "On 8 x 8 pixels a local kernel reaches most of the map and relations between all tokens miss nothing; "
        "the paper's gap is that of 224 pixels."
    )
    return Measured({**found, "macs": macs}, passed, said, published, "" if passed else note)


def _spec(kinds: str) -> dict[str, Any]:
    """A small UniFormer for small images: a token a pixel, one block a stage, the last two at one resolution."""
    merges = [{"kind": "conv", "size": n, "stride": n, "padding": 0, "out_norm": "layer"} for n in (2, 2, 1)]
    stages = [
        {
            "kind": "stack",
            "dim_out": dim,
            "merge": merges[number - 1] if number else None,
            "blocks": [uniformer.local_block(2.0) if kind == "L" else uniformer.global_block(dim // 8, 2.0)],
        }
        for number, (kind, dim) in enumerate(zip(kinds, DIMS, strict=True))
    ]
    return {
        "stem": {"kind": "conv", "dim": DIMS[0], "size": 3, "stride": 1, "padding": 1, "norm": "layer"},
        "body": {"kind": "pyramid", "stages": stages},
        "head": uniformer.HEAD,
    }
