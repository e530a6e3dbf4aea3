"""The small models that claims are checked on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...model import Model


def vit(**scheme: Any) -> dict[str, Any]:
    """A ViT with a class token, for images of 16 x 16."""
    norm = scheme.pop("norm", "layer")
    return {
        "stem": {"kind": "patches", "dim": 32, "size": 4, "img_size": 16},
        "body": {
            "kind": "stack",
            "depth": 3,
            "mixer": {"kind": "attention", "heads": 4},
            "scheme": {"kind": "pre", "norm": norm, **scheme},
            "prefix": 1,
            "position": {"kind": "learned", "prefix": 1},
        },
        "head": {"kind": "classes", "num_classes": 10, "pool": "token", "norm": norm},
    }


def decoder(norm: str = "rms", depth: int = 4, position: str | None = None) -> dict[str, Any]:
    """A decoder over 64 tokens, with rotary positions, or with `position` added to the tokens."""
    attention: dict[str, Any] = {"kind": "attention", "heads": 4, "kv_heads": 2}
    if position is None:
        attention["position"] = "rope"
    return {
        "stem": {"kind": "tokens", "dim": 32, "vocab": 64, "length": 32},
        "body": {
            "kind": "stack",
            "depth": depth,
            "mixer": attention,
            "channel": "swiglu" if norm == "rms" else "mlp",
            "scheme": {"kind": "pre", "norm": norm},
            "position": position,
        },
        "head": {"kind": "next_token", "norm": norm},
    }


def drawn(spec: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float64) -> Model:
    """The model in evaluation, every parameter moved by noise and every statistic drawn, so that zeros hide nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(spec).to(dtype)
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if name.endswith("running_var"):
                    tensor.uniform_(0.5, 2)
                elif tensor.is_floating_point():
                    fan_in = max(1, tensor[0].numel()) if tensor.dim() > 1 else 4
                    tensor.add_(torch.randn_like(tensor) / fan_in**0.5)
    return model.eval()


def images(number: int = 4, size: int = 16, dtype: torch.dtype = torch.float64) -> Tensor:
    """(number, 3, size, size) noise."""
    return torch.randn(number, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def tokens(number: int = 4, length: int = 24, vocab: int = 64) -> Tensor:
    """(number, length) drawn tokens."""
    return torch.randint(vocab, (number, length), generator=torch.Generator().manual_seed(1))


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's scores without gradients."""
    with torch.no_grad():
        return model(inputs)
