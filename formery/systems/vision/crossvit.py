"""CrossViT (arXiv 2103.14899): two Vision Transformers at two patch sizes, whose class tokens look at each other's
patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

SIZES: dict[str, tuple[int, int, int, float]] = {  # width of the first branch (the second's is twice that), depth of
    "tiny": (96, 4, 3, 4.0),  # the second branch in a multi-scale block, heads, ratio of the MLPs: table 1
    "small": (192, 4, 6, 4.0),
    "base": (384, 4, 12, 4.0),
    "9": (128, 3, 4, 3.0),
    "15": (192, 5, 6, 3.0),
    "18": (224, 6, 7, 3.0),
}
DEPTH, PATCHES = 3, (12, 16)  # multi-scale blocks; pixels a patch of each branch
NORM = {"kind": "layer", "eps": 1e-6}


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    size, *rest = name.split("_")[1:]
    dim, deep, heads, ratio = SIZES[size]
    sides = (408, 384) if "408" in rest else (240, 224)
    stage = multi_scale((1, deep), (heads, heads), ratio)
    tokens = {"prefix": 1, "position": {"kind": "learned", "prefix": 1}}  # the first stage's, for all of them
    first = {**stage, "branches": [{**branch, **tokens} for branch in stage["branches"]]}
    stems = [
        _dagger(dim * (b + 1), patch) if "dagger" in rest else {"kind": "patches", "dim": dim * (b + 1), "size": patch}
        for b, patch in enumerate(PATCHES)
    ]
    return {
        "stem": {"kind": "scales", "stems": stems, "ratios": [1.0, sides[1] / sides[0]], "img_size": sides[0]},
        "body": {"kind": "pyramid", "stages": [first, *[stage] * (DEPTH - 1)]},
        "head": {"kind": "branch_classes", "pool": "token", "norm": NORM},
    }


def _dagger(dim: int, patch: int) -> dict[str, Any]:
    """Three convolutions to patches of `patch` pixels: section 4.1."""
    steps = {12: ([7, 3, 3], [4, 3, 1], [3, 0, 1]), 16: ([7, 3, 3], [4, 2, 2], [3, 1, 1])}
    sizes, strides, paddings = steps[patch]
    more = {"sizes": sizes, "strides": strides, "paddings": paddings, "norm": None, "last_activation": False}
    return {"kind": "convs", "widths": [dim // 4, dim // 2, dim], **more}


def multi_scale(
    depths: tuple[int, ...], heads: tuple[int, ...], ratio: float, norm: Mapping[str, Any] = NORM
) -> dict[str, Any]:
    """A multi-scale block (figure 2): `depths` plain blocks a branch, then each class token asks the next branch."""
    scheme = {"kind": "pre", "norm": norm}

    def stack(depth: int, heads: int) -> dict[str, Any]:
        blocks = {"mixer": {"kind": "attention", "heads": heads}, "channel": {"kind": "mlp", "ratio": ratio}}
        return {"kind": "stack", "depth": depth, **blocks, "scheme": scheme}

    def fusion(heads: int) -> dict[str, Any]:
        return {"mixer": {"kind": "class_attention", "heads": heads}, "channel": None, "scheme": scheme}

    return {
        "kind": "branches",
        "branches": [stack(*pair) for pair in zip(depths, heads, strict=True)],
        "fusions": [fusion(heads[(b + 1) % len(heads)]) for b in range(len(heads))],
        "norm": norm,
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names and timm's, which differ in those of class tokens and positions."""
    return [Dialect("authors", _rules(".")), Dialect("timm", _rules("_"))]


BLOCK = {
    "scheme.norms.0": "norm1",
    "mixer.qkv": "attn.qkv",
    "mixer.out": "attn.proj",
    "scheme.norms.1": "norm2",
    "channel.expand": "mlp.fc1",
    "channel.reduce": "mlp.fc2",
}
FUSION = {
    "scheme.norms.0": ("norm1",),
    "mixer.q": ("attn.wq",),
    "mixer.kv": ("attn.wk", "attn.wv"),
    "mixer.out": ("attn.proj",),
}


def stage_rules(ours: str, theirs: str) -> tuple[Rule, ...]:
    """The tensors of a multi-scale block under two prefixes, each empty or with its dot."""
    return (
        *(Rule(f"{ours}branches.{{b}}.blocks.{{i}}.{x}", f"{theirs}blocks.{{b}}.{{i}}.{y}") for x, y in BLOCK.items()),
        *(
            Rule(f"{ours}fusions.{{b}}.{x}", tuple(f"{theirs}fusion.{{b}}.{y}" for y in names))
            for x, names in FUSION.items()
        ),
        *(
            Rule(f"{ours}{x}.{{b}}.{part}", f"{theirs}{y}.{{b}}.{place}")
            for x, y in (("leaving", "projs"), ("returning", "revert_projs"))
            for part, place in (("norm", 0), ("dense", 2))
        ),
    )


def _rules(mark: str) -> tuple[Rule, ...]:
    """`mark` stands before the number of a branch in the names of its class token and positions."""
    first = "body.stages.0.branches.{b}"
    return (
        Rule("stem.stems.{b}.conv", "patch_embed.{b}.proj"),
        Rule("stem.stems.{b}.convs.{i}", "patch_embed.{b}.proj.{2i}"),
        Rule(f"{first}.prefix", f"cls_token{mark}{{b}}", ones=(0,)),
        Rule((f"{first}.position.prefix", f"{first}.position.table"), f"pos_embed{mark}{{b}}", ones=(0,), rows=True),
        *stage_rules("body.stages.{k}.", "blocks.{k}."),
        Rule("head.norm.{b}", "norm.{b}"),
        Rule("head.fc.{b}", "head.{b}"),
    )
