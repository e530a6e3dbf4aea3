"""Language models of about 130 million parameters, transformers' and ours with the same weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OlmoHybridConfig,
    OlmoHybridForCausalLM,
)

import formery

from . import streams
from .streams import SPECIAL

SCALED: dict[str, Any] = {"rescale_prenorm_residual": True, "initializer_range": 0.02}
"""As the authors draw them; without it random weights of 24 layers multiply the last digit's rounding by thousands."""
WIDE: dict[str, Any] = {"hidden_size": 768, **SPECIAL}
MODELS: dict[str, tuple[Any, Any]] = {
    "mamba_130m": (MambaForCausalLM, lambda: MambaConfig(vocab_size=50280, num_hidden_layers=24, **WIDE, **SCALED)),
    "mamba2_130m": (
        Mamba2ForCausalLM,
        lambda: Mamba2Config(
            vocab_size=50288, num_hidden_layers=24, state_size=128, num_heads=24, head_dim=64, n_groups=1,
            tie_word_embeddings=True, **WIDE, **SCALED,
        ),
    ),
    "olmo_hybrid_134m": (
        OlmoHybridForCausalLM,
        lambda: OlmoHybridConfig(
            vocab_size=32000, num_hidden_layers=12, num_attention_heads=6, intermediate_size=2048,
            rope_parameters={"rope_type": "default", "rope_theta": None}, **WIDE,
        ),
    ),
    "llama_134m": (
        LlamaForCausalLM,
        lambda: LlamaConfig(
            vocab_size=32000, num_hidden_layers=12, num_attention_heads=12, intermediate_size=2048, **WIDE
        ),
    ),
}  # fmt: skip
"""Name -> transformers' class and config."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@lru_cache(maxsize=1)
def pair(name: str, dtype: str) -> tuple[Any, formery.Model]:
    """transformers' model and ours with its weights."""
    kind, config = MODELS[name]
    theirs, ours = streams.pair(kind, config())
    return theirs.to(DTYPES[dtype]), ours.to(DTYPES[dtype])


def prompt(length: int) -> Tensor:
    return streams.tokens(1, length, 32000)
