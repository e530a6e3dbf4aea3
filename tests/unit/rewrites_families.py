"""Small models of every family, with drawn weights, for tests of rewrites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from formery.model import Model
from formery.rewrites.checks import small

ATTENTION = {"kind": "attention", "heads": 4}
DELTA = {"kind": "gated_deltanet", "heads": 2, "head_dim": 4}
STEM = {"kind": "conv", "dim": 16, "size": 3, "stride": 2, "padding": 1, "img_size": 16}
DIMS = [16, 24]
HEAD = {"kind": "classes", "num_classes": 5}
TEXT = {"kind": "tokens", "dim": 32, "vocab": 64, "length": 32}


def _pyramid(mixer: Any, scheme: Any, merge: Any = "conv", **more: Any) -> dict[str, Any]:
    return {"kind": "pyramid", "dims": DIMS, "depths": [2, 2], "mixer": mixer, "scheme": scheme, "merge": merge, **more}


def _hybrid() -> dict[str, Any]:
    """Delta layers norm what they read, attention what it writes."""
    pre, reordered = ({"kind": kind, "norm": "rms"} for kind in ("pre", "reordered"))
    blocks = {
        "delta": {"mixer": DELTA, "channel": "swiglu", "scheme": pre},
        "attention": {"mixer": ATTENTION | {"qk_norm": "rms"}, "channel": "swiglu", "scheme": reordered},
    }
    body = {"kind": "stack", "layout": "(delta*2 attention)*2", "blocks": blocks}
    return {"stem": TEXT, "body": body, "head": {"kind": "next_token"}}


THREE = {"kind": "sequence", "sublayers": [ATTENTION, "mlp", DELTA], "scheme": {"kind": "pre", "scale": 0.1}}

LOCAL = {
    "kind": "sequence",
    "sublayers": [{"kind": "depthwise_conv", "size": 3}, {"kind": "separable_conv", "ratio": 1.0, "size": 3}, "mlp"],
    "scheme": {"kind": "pre", "norm": "batch", "scale": 0.1, "bare": [0]},
}
"""A block whose first sublayer has no norm."""

BARE = {"kind": "pre", "norm": None, "scale": 0.1}
CONVOLVED = {"kind": "convolved_attention", "heads": 2, "key_dim": 4, "value_dim": 6, "stride": 2}
PLACES = {"kind": "learned", "prefix": 1}
FORKS = [(1, None), (2, None), (1, {"kind": "conv", "norm": "layer", "padding": 0, "size": 2})]
"""Depth and merge of branches that one tensor goes to."""


def _branches(**more: Any) -> dict[str, Any]:
    """Two branches, and what each tells the other; `more` for both."""
    scheme = {"kind": "pre", "scale": 0.1}
    stack = {"kind": "stack", "mixer": {"kind": "attention", "heads": 2}, "scheme": scheme, **more}
    fusion = {"mixer": {"kind": "class_attention", "heads": 2}, "channel": None, "scheme": scheme}
    return {"kind": "branches", "branches": [stack | {"depth": n} for n in (1, 2)], "fusions": [fusion] * 2}


def _nested(norm: str, join: str) -> dict[str, Any]:
    """Words inside tokens; `norm` is that of the joins."""
    block = {"mixer": {"kind": "attention", "heads": 2}, "scheme": {"kind": "pre", "scale": 0.1}}
    body = {"kind": "nested", "depth": 2, "width": 24, "side": 2, "inner": block, "outer": block, "prefix": 1}
    return {
        "stem": {"kind": "pixel_words", "width": 6, "size": 4, "stride": 2, "kernel": 3, "img_size": 16},
        "body": body | {"join": join, "norm": norm, "position": PLACES, "inner_position": "learned"},
        "head": HEAD | {"pool": "token"},
    }


FAMILIES: dict[str, dict[str, Any]] = {
    "vit": small.vit(),
    "vit scaled": small.vit(scale=0.1),
    "vit batch": small.vit(scale=0.1, norm="batch") | {"stem": {**small.vit()["stem"], "norm": "batch", "bias": False}},
    "poolformer": {
        "stem": STEM,
        "body": _pyramid("pooling", {"kind": "pre", "norm": "group1", "scale": 0.1}),
        "head": HEAD | {"norm": "group1"},
    },
    "metaformer": {
        "stem": STEM | {"norm": "batch"},
        "body": _pyramid(["pooling", ATTENTION], {"kind": "pre", "scale": 0.1}, positions=[None, "learned"]),
        "head": HEAD,
    },
    "convnext": {
        "stem": {"kind": "conv", "dim": 16, "size": 2, "stride": 2, "padding": 0, "img_size": 16, "norm": "layer"},
        "body": _pyramid(
            {"kind": "depthwise_conv", "size": 3},
            {"kind": "single", "scale": 0.1, "norm": {"kind": "layer", "eps": 1e-6}},
            {"kind": "conv", "size": 2, "padding": 0, "norm": "layer"},
        ),
        "head": HEAD | {"order": "pool_norm"},
    },
    "local": {
        "stem": STEM | {"norm": "batch"},
        "body": {"kind": "pyramid", "dims": [16, 24], "layouts": ["local"] * 2, "blocks": {"local": LOCAL}},
        "head": HEAD | {"norm": "batch"},
    },
    "large kernels": {
        "stem": {"kind": "convs", "widths": [8, 16], "img_size": 32, "norm": "layer", "last_activation": False},
        "body": _pyramid(
            [{"kind": "large_kernel", "size": 7}, {"kind": "large_kernel", "size": 3, "dilated": False}],
            {"kind": "single", "scale": 0.1, "norm": None},
            {"kind": "conv", "out_norm": "layer"},
            channel={"kind": "grn_mlp", "norm": "batch"},
        ),
        "head": HEAD | {"order": "pool_norm"},
    },
    "efficientformer": {
        "stem": {"kind": "convs", "widths": [8, 16], "strides": [2, 1], "img_size": 16},
        "body": {
            "kind": "pyramid",
            "dims": [16, 24],
            "layouts": ["maps*2", "maps tokens"],
            "blocks": {
                "maps": {"mixer": "pooling", "channel": {"kind": "normed_mlp", "last": None}, "scheme": BARE},
                "tokens": {
                    "mixer": {"kind": "biased_attention", "heads": 2, "key_dim": 4, "value_dim": 6},
                    "scheme": {"kind": "pre", "scale": 0.1},
                },
            },
            "merge": {"kind": "conv", "out_norm": "batch"},
        },
        "head": HEAD | {"kind": "distilled"},
    },
    "convolved": {
        "stem": {"kind": "convs", "widths": [8, 16], "strides": [2, 1], "img_size": 16, "activation": "gelu"},
        "body": {
            "kind": "pyramid",
            "dims": [16, 24],
            "layouts": ["attentive*2", "plain"],
            "blocks": {
                "plain": {"mixer": None, "channel": "inverted_bottleneck", "scheme": BARE},
                "attentive": {"mixer": CONVOLVED, "channel": "inverted_bottleneck", "scheme": BARE},
            },
            "merge": {"kind": "convolved_attention", "heads": 2, "key_dim": 4, "value_dim": 6},
        },
        "head": HEAD | {"norm": "batch"},
    },
    "branches": {
        "stem": {
            "kind": "scales",
            "stems": [
                {"kind": "patches", "dim": 8, "size": 4, "norm": "batch"},
                {"kind": "convs", "widths": [8, 12], "strides": [2, 1], "norm": "batch", "last_activation": False},
            ],
            "ratios": [1.0, 0.5],
            "img_size": 16,
        },
        "body": {"kind": "pyramid", "stages": [_branches(prefix=1, position=PLACES), _branches()]},
        "head": HEAD | {"kind": "branch_classes", "pool": "token"},
    },
    "forked": {
        "stem": STEM,
        "body": {
            "kind": "branches",
            "branches": [{"kind": "stack", "depth": n, "mixer": ATTENTION, "merge": merge} for n, merge in FORKS],
        },
        "head": HEAD | {"kind": "branch_classes"},
    },
    "nested": _nested("batch", "token"),
    "nested by words": _nested("layer", "word"),
    "slow and fast": {
        "stem": STEM,
        "body": {
            "kind": "slow_fast",
            "blocks": [{"mixer": ATTENTION, "scheme": {"kind": "pre", "scale": 0.1}}] * 2,
            "keep": [1.0, 0.5],
        },
        "head": HEAD,
    },
    "merged": {
        "stem": STEM,
        "body": _pyramid(ATTENTION, {"kind": "pre"}, "patch_merging"),
        "head": HEAD | {"order": "pool_norm"},
    },
    "decoder": small.decoder(),
    "gpt": small.decoder("layer", position="learned"),
    "hybrid": _hybrid(),
    "post": {"stem": TEXT, "body": {"kind": "stack", "depth": 3, "mixer": ATTENTION, "scheme": "post"}, "head": HEAD},
    "ladder": {
        "stem": TEXT,
        "body": {"kind": "stack", "depth": 3, "mixer": ATTENTION, "scheme": {"kind": "ladder", "scale": 0.1}},
        "head": {"kind": "next_token", "norm": "layer"},
    },
    "sequence": {
        "stem": TEXT,
        "body": {
            "kind": "stack",
            "layout": "three*2",
            "blocks": {"three": THREE},
        },
        "head": {"kind": "next_token", "norm": "layer"},
    },
}  # fmt: skip


def model_of(family: str, dtype: torch.dtype = torch.float64) -> Model:
    """The family's model with drawn weights, in evaluation."""
    return small.drawn(FAMILIES[family], dtype=dtype)


def inputs_for(spec: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> Tensor:
    """A batch that fits a family."""
    return small.tokens(2, 12) if spec["stem"]["kind"] == "tokens" else small.images(2, dtype=dtype)


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, of the largest value."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shape of every tensor that is saved."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
