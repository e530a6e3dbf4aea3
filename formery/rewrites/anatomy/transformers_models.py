"""The anatomy of transformers' Llama and ViT."""

from __future__ import annotations

from typing import Any

from .anatomy import Anatomy, Block, Exit, Source, Stage
from .branches import branches_of, sublayer_of


def llama(model: Any) -> Anatomy:
    """LlamaForCausalLM."""
    config = model.config
    heads = (config.num_attention_heads, config.num_key_value_heads)
    blocks = tuple(_block(layer, f"model.layers.{i}", heads) for i, layer in enumerate(model.model.layers))
    sources = (Source("model.embed_tokens.weight", "table"),)
    stage = Stage("model.layers", config.hidden_size, sources, blocks, (Exit(norm="model.norm"),))
    tied = (("model.embed_tokens.weight", "lm_head.weight"),) if config.tie_word_embeddings else ()
    return Anatomy("transformers", type(model).__name__, (stage,), head_norms=(("model.norm", None),), tied=tied)


def vit(model: Any) -> Anatomy:
    """ViTForImageClassification."""
    config, embeddings = model.config, "vit.embeddings"
    sources = [Source(f"{embeddings}.patch_embeddings.projection", "dense")]
    for name in ("cls_token", "mask_token", "position_embeddings"):
        if getattr(model.vit.embeddings, name, None) is not None:
            sources.append(Source(f"{embeddings}.{name}", "table"))
    heads = (config.num_attention_heads, None)
    blocks = tuple(_block(layer, f"vit.layers.{i}", heads) for i, layer in enumerate(model.vit.layers))
    stage = Stage("vit.layers", config.hidden_size, tuple(sources), blocks, (Exit(norm="vit.layernorm"),), prefix=1)
    return Anatomy("transformers", type(model).__name__, (stage,), head_norms=(("vit.layernorm", None),))


def _block(layer: Any, path: str, heads: tuple[int | None, int | None]) -> Block:
    return Block(path, "pre", "in", tuple(sublayer_of(layer, path, b, heads) for b in branches_of(layer, path)))
