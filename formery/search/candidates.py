"""Candidate hybrids for a data set: pure and mixed models of one size, so that a race compares their mixing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadData

Spec = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A model to be tried."""

    name: str
    spec: Spec
    pure: bool
    """Whether one kind of token mixer does all the mixing."""
    idea: str
    """Where it comes from, in a few words."""


def propose(data: Any) -> list[Candidate]:
    """Candidates for the data's modality and size; BadData for a modality without any."""
    if data.modality == "image":
        return _images(data)
    if data.modality == "text":
        return _texts(data)
    raise BadData(f"no candidates are known for {data.modality} data; there are some for image and text")


# ------------------------------------------------------------------------------------------------ images


@dataclass(frozen=True)
class _Scale:
    """What depends on the size of the images alone."""

    stem: Spec
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    patch: int
    """Of the isotropic models."""
    width: int
    depth: int


def _scale(side: int) -> _Scale:
    if side <= 16:
        stem = {"kind": "conv", "size": 4, "stride": 2, "padding": 1}
        return _Scale(stem, (64,), (4,), 2 if side % 2 == 0 else 1, 64, 4)
    if side <= 48:
        stem = {"kind": "conv", "size": 3, "stride": 2, "padding": 1}
        return _Scale(stem, (32, 64, 128), (1, 2, 2), 4 if side % 4 == 0 else 1, 96, 5)
    stem = {"kind": "conv", "size": 7, "stride": 4, "padding": 2}
    patch = next((p for p in (16, 14, 12, 8, 7, 6, 5, 4) if side % p == 0 and side // p <= 16), 1)
    return _Scale(stem, (32, 64, 128, 192), (1, 1, 3, 1), patch, 128, 6)


CONV: Spec = {"kind": "depthwise_conv", "size": 5}
DELTA: Spec = {"kind": "gated_deltanet", "heads": 4, "head_dim": 16, "value_dim": 16}


def _images(data: Any) -> list[Candidate]:
    height, width = (data.image_size, data.image_size) if isinstance(data.image_size, int) else data.image_size
    scale = _scale(min(height, width))

    def pyramid(early: str, later: str, scheme: str = "pre", *, mix_inside: bool = False) -> Spec:
        total = sum(scale.depths)
        # Tokens are few, and all-to-all mixing cheap, in the second half of the stages, or of the only stage's blocks.
        first = sum(scale.depths[: len(scale.depths) // 2]) or total // 2
        words = [later if i >= first else early for i in range(total)]
        if mix_inside:
            words = [early if i < first - 1 or (i - first) % 2 else later for i in range(total)]
        ends = [sum(scale.depths[: i + 1]) for i in range(len(scale.depths))]
        layouts = [" ".join(words[end - depth : end]) for end, depth in zip(ends, scale.depths, strict=True)]
        return {
            "stem": {**scale.stem, "dim": scale.dims[0]},
            "body": {"kind": "pyramid", "dims": list(scale.dims), "layouts": layouts, "blocks": _blocks(scheme)},
            "head": {"kind": "classes", "norm": "layer", "order": "pool_norm"},
        }

    def isotropic(layout: str) -> Spec:
        return {
            "stem": {"kind": "patches", "size": scale.patch, "dim": scale.width},
            "body": {"kind": "stack", "layout": layout, "blocks": _blocks("pre"), "position": "learned"},
            "head": {"kind": "classes", "norm": "layer", "order": "norm_pool"},
        }

    found = [
        Candidate("pool", pyramid("pooling", "pooling"), True, "PoolFormer: pooling in every stage"),
        Candidate(
            "conv", pyramid("conv_single", "conv_single"), True, "ConvNeXt: depthwise convolution in every stage"
        ),
        Candidate("pool_attention", pyramid("pooling", "attention"), False, "MetaFormer: pooling, then attention"),
        Candidate("conv_attention", pyramid("conv", "attention"), False, "convolution, then attention"),
        Candidate("conv_deltanet", pyramid("conv", "gated_deltanet"), False, "convolution, then gated delta rule"),
        Candidate("conv_mixed", pyramid("conv", "attention", mix_inside=True), False, "attention between convolutions"),
    ]
    if scale.patch > 1:
        found += [
            Candidate("vit", isotropic(f"attention*{scale.depth}"), True, "ViT: attention in every block"),
            Candidate("vit_deltanet", isotropic(_hybrid(scale.depth, "gated_deltanet", "attention", 3)), False,
                      "three gated delta rules to one attention"),
        ]  # fmt: skip
    else:
        found.append(
            Candidate("spatial_mlp", pyramid("conv", "spatial_mlp"), False, "convolution, then MLPs over tokens")
        )
    return found


def _blocks(scheme: str) -> Spec:
    wired = {"kind": scheme, "norm": "layer"}
    return {
        "attention": {"mixer": {"kind": "attention", "heads": 4}, "channel": _mlp(), "scheme": wired},
        "conv": {"mixer": CONV, "channel": _mlp(), "scheme": wired},
        "conv_single": {"mixer": CONV, "channel": _mlp(), "scheme": {"kind": "single", "norm": "layer"}},
        "gated_deltanet": {"mixer": DELTA, "channel": _mlp(), "scheme": wired},
        "pooling": {"mixer": "pooling", "channel": _mlp(), "scheme": wired},
        "spatial_mlp": {"mixer": "spatial_mlp", "channel": _mlp(), "scheme": wired},
    }  # fmt: skip


def _mlp() -> Spec:
    return {"kind": "mlp", "ratio": 2.0}


def _hybrid(depth: int, many: str, few: str, every: int) -> str:
    """`depth` words, one `few` after every `every` of `many`, and one at the end in any case."""
    words = [few if i % (every + 1) == every or i == depth - 1 else many for i in range(depth)]
    return " ".join(words)


# ------------------------------------------------------------------------------------------------ texts


def _texts(data: Any) -> list[Candidate]:
    small = data.num_bytes("train") < 200_000
    width, depth, heads = (96, 4, 4) if small else (192, 4, 4)
    attention: Spec = {"kind": "attention", "heads": heads, "bias": False, "out_bias": False}
    delta: Spec = {"kind": "gated_deltanet", "heads": heads, "head_dim": width // 8, "value_dim": width // 4}
    blocks: Mapping[str, Spec] = {
        "attention": _text_block(attention | {"position": "rope"}),
        "nope": _text_block(attention),
        "window": _text_block(attention | {"position": "rope", "window": 32}),
        "delta": _text_block(delta),
        "delta_negative": _text_block(delta | {"negative": True}),
        "conv": _text_block({"kind": "depthwise_conv", "size": 4, "axes": 1}),
    }

    def stack(layout: str) -> Spec:
        used = {
            word: block for word, block in blocks.items() if word in layout.replace("(", " ").replace(")", " ").split()
        }
        return {
            "stem": {"kind": "tokens", "dim": width, "vocab": data.vocab},
            "body": {"kind": "stack", "layout": layout, "blocks": used},
            "head": {"kind": "next_token", "tie": True},
        }

    mixes = {
        "attention": (" ".join(["attention"] * depth), "decoder: attention in every block"),
        "delta": (" ".join(["delta"] * depth), "gated delta rule in every block"),
        "delta3_attention": (
            _hybrid(depth, "delta", "nope", 3),
            "three gated delta rules to one attention without positions",
        ),
        "delta1_attention": (_hybrid(depth, "delta", "attention", 1), "gated delta rule and attention in turn"),
        "negative3_attention": (
            _hybrid(depth, "delta_negative", "nope", 3),
            "Olmo Hybrid: the same with negative eigenvalues",
        ),
        "window_attention": (_hybrid(depth, "window", "attention", 2), "local attention, full attention now and then"),
        "conv_attention": (_hybrid(depth, "conv", "attention", 1), "short convolution and attention in turn"),
    }
    return [
        Candidate(name, stack(layout), len(set(layout.split())) == 1, idea) for name, (layout, idea) in mixes.items()
    ]


def _text_block(mixer: Spec) -> Spec:
    return {"mixer": mixer, "channel": "swiglu", "scheme": {"kind": "pre", "norm": "rms"}}
