"""The anatomy of timm's ViT, ConvNeXt and MetaFormer (PoolFormer, CAFormer)."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...errors import CannotRewrite
from .anatomy import Anatomy, Block, Exit, Source, Stage, Sublayer
from .branches import Narrowed, branches_of, io_of, name_of, sublayer_of

LINEAR_POOLS = ("", "avg", "token")


def vision_transformer(model: Any) -> Anatomy:
    """timm's VisionTransformer with its usual block."""
    embed, prefix = model.patch_embed, model.num_prefix_tokens
    sources: list[Source] = []
    if name_of(embed) != "timm.layers.patch_embed.PatchEmbed":
        sources.append(Source("patch_embed", "other", f"the output of {name_of(embed)}"))
    elif not isinstance(embed.norm, nn.Identity):
        sources.append(Source("patch_embed.norm", "other", "the output of a norm"))
    else:
        sources.append(Source("patch_embed.proj", "dense"))
    for name in ("cls_token", "reg_token", "pos_embed"):
        if getattr(model, name, None) is not None:
            sources.append(Source(name, "table"))
    if not isinstance(model.norm_pre, nn.Identity):
        sources.append(Source("norm_pre", "other", "the output of a norm"))
    if not isinstance(model.norm, nn.Identity):
        leaves = Exit(norm="norm")
    elif isinstance(model.fc_norm, nn.Identity):
        leaves = Exit(why="the head reads it without a norm")
    elif model.attn_pool is not None or model.global_pool not in LINEAR_POOLS:
        leaves = Exit(why=f"the head pools it ({model.global_pool}) before its norm")
    else:
        leaves = Exit(norm="fc_norm")
    blocks = tuple(_block(block, f"blocks.{i}", "pre") for i, block in enumerate(model.blocks))
    stage = Stage("blocks", model.embed_dim, tuple(sources), blocks, (leaves,), prefix)
    head = () if leaves.norm is None else ((leaves.norm, None),)
    return Anatomy("timm", type(model).__name__, (stage,), head_norms=head)


def metaformer(model: Any) -> Anatomy:
    """timm's MetaFormer: PoolFormer v1 and v2, ConvFormer, CAFormer."""
    stages: list[Stage] = []
    for number, stage in enumerate(model.stages):
        path = f"stages.{number}"
        first = model.stem if number == 0 else stage.downsample
        where = "stem" if number == 0 else f"{path}.downsample"
        if isinstance(first, nn.Identity):
            sources = (Source(path, "other", "the stage before it, without a merge between"),)
        elif number == 0 and not isinstance(first.norm, nn.Identity):
            sources = (Source(f"{where}.norm", "other", "the output of a norm"),)
        else:
            sources = (Source(f"{where}.conv", "dense"),)
        blocks = tuple(_block(block, f"{path}.blocks.{i}", "pre") for i, block in enumerate(stage.blocks))
        leaves = Exit(why="what follows the stage reads a map, through a norm that rewrites do not know")
        axis = 1 if stage.use_nchw else -1
        width = first_width(stage, model)
        stages.append(Stage(path, width, sources, blocks, (leaves,), channel_axis=axis, stream=number))
    return Anatomy("timm", type(model).__name__, tuple(stages))


def first_width(stage: Any, model: Any) -> int:
    """Width of a MetaFormer stage."""
    layer = model.stem if isinstance(stage.downsample, nn.Identity) else stage.downsample
    return int(layer.conv.out_channels)


def convnext(model: Any) -> Anatomy:
    """timm's ConvNeXt, V1 and V2."""
    stages: list[Stage] = []
    for number, stage in enumerate(model.stages):
        path = f"stages.{number}"
        blocks = tuple(_convnext_block(block, f"{path}.blocks.{i}") for i, block in enumerate(stage.blocks))
        width = model.feature_info[number]["num_chs"]
        source = Source("stem" if number == 0 else f"{path}.downsample", "other", "the output of a stem or merge")
        leaves = (Exit(why="a map is read"),)
        stages.append(Stage(path, width, (source,), blocks, leaves, channel_axis=1, stream=number))
    return Anatomy("timm", type(model).__name__, tuple(stages))


def _block(block: Any, path: str, scheme: str) -> Block:
    heads = (getattr(getattr(block, "attn", None), "num_heads", None), None)
    subs = tuple(sublayer_of(block, path, branch, heads) for branch in branches_of(block, path))
    factors = [f"res_scale{n}" for n in (1, 2)]
    only_adds = all(isinstance(getattr(block, name, nn.Identity()), nn.Identity) for name in factors)
    return Block(path, scheme, "in", subs, only_adds=only_adds)


def _convnext_block(block: Any, path: str) -> Block:
    branches_of(block, path)
    if isinstance(block, Narrowed):
        return Block(path, "single", "in", (), separable=False)
    if not isinstance(block.shortcut, nn.Identity):
        raise CannotRewrite(f"{path}: rewrites do not know ConvNeXt blocks whose shortcut changes the map")
    reads, writes = io_of(block.mlp, f"{path}.mlp")
    scale, kind = None if block.gamma is None else f"{path}.gamma", type(block.mlp).__name__
    mixer = Sublayer("conv_dw", "mixer", f"{path}.conv_dw", type(block.conv_dw).__name__, writes_stream=False)
    mlp = Sublayer("mlp", "channel", f"{path}.mlp", kind, f"{path}.norm", scale, reads, writes, reads_stream=False)
    return Block(path, "single", "in", (mixer, mlp), separable=False)
