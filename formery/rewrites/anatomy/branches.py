"""Blocks of timm and transformers, by the names of their residual branches; and blocks that have lost some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from ...errors import CannotRewrite
from .anatomy import Role, Sublayer


@dataclass(frozen=True, slots=True)
class Branch:
    """One residual branch: stream + after(sublayer(norm(stream))), all by the names of the block's own modules."""

    norm: str
    sublayer: str
    role: Role
    after: tuple[str, ...] = ()
    """What the sublayer's output passes: layer scale, dropout, stochastic depth."""
    scale: str | None = None
    """The layer scale among them."""
    on_stream: str | None = None
    """A factor on the stream itself."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of the block's modules that it uses."""
        return (self.norm, self.sublayer, *self.after, *((self.on_stream,) if self.on_stream else ()))


BRANCHES: dict[str, tuple[Branch, ...]] = {
    "timm.models.vision_transformer.Block": (
        Branch("norm1", "attn", "mixer", ("ls1", "drop_path1"), scale="ls1"),
        Branch("norm2", "mlp", "channel", ("ls2", "drop_path2"), scale="ls2"),
    ),
    "timm.models.metaformer.MetaFormerBlock": (
        Branch("norm1", "token_mixer", "mixer", ("drop_path1", "layer_scale1"), "layer_scale1", "res_scale1"),
        Branch("norm2", "mlp", "channel", ("drop_path2", "layer_scale2"), "layer_scale2", "res_scale2"),
    ),
    "transformers.models.llama.modeling_llama.LlamaDecoderLayer": (
        Branch("input_layernorm", "self_attn", "mixer"),
        Branch("post_attention_layernorm", "mlp", "channel"),
    ),
    "transformers.models.vit.modeling_vit.ViTLayer": (
        Branch("layernorm_before", "attention", "mixer", ("dropout",)),
        Branch("layernorm_after", "mlp", "channel", ("dropout",)),
    ),
    "timm.models.convnext.ConvNeXtBlock": (),
}
"""Classes of blocks; those without branches can only go as a whole."""

PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "timm.layers.attention.Attention": (("qkv", "gate"), ("proj",)),
    "timm.layers.mlp.Mlp": (("fc1",), ("fc2",)),
    "timm.layers.mlp.GluMlp": (("fc1",), ("fc2",)),
    "timm.layers.mlp.SwiGLU": (("fc1_g", "fc1_x"), ("fc2",)),
    "timm.layers.mlp.GlobalResponseNormMlp": (("fc1",), ("fc2",)),
    "timm.models.metaformer.Attention": (("qkv",), ("proj",)),
    "timm.models.metaformer.SepConv": (("pwconv1",), ("pwconv2",)),
    "timm.models.metaformer.Pooling": ((), ()),
    "torch.nn.modules.linear.Identity": ((), ()),
    "transformers.models.llama.modeling_llama.LlamaAttention": (("q_proj", "k_proj", "v_proj"), ("o_proj",)),
    "transformers.models.llama.modeling_llama.LlamaMLP": (("gate_proj", "up_proj"), ("down_proj",)),
    "transformers.models.vit.modeling_vit.ViTAttention": (("q_proj", "k_proj", "v_proj"), ("o_proj",)),
    "transformers.models.vit.modeling_vit.ViTMLP": (("fc1",), ("fc2",)),
}
"""Classes of sublayers: what reads the tokens (some may be None), and what writes."""


class Narrowed:
    """A block that has lost branches. Its class is made from this one and the old one; its names are as before."""

    branches: tuple[Branch, ...]

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """The stream after the branches that are left; further arguments are the mixer's."""
        for branch in self.branches:
            own: Any = self
            y = getattr(own, branch.norm)(hidden_states)
            if branch.role == "mixer":
                y = getattr(own, branch.sublayer)(y, *args, **kwargs)
                y = y[0] if isinstance(y, tuple) else y
            else:
                y = getattr(own, branch.sublayer)(y)
            for name in branch.after:
                y = getattr(own, name)(y)
            if branch.on_stream is not None:
                hidden_states = getattr(own, branch.on_stream)(hidden_states)
            hidden_states = hidden_states + y
        return hidden_states


@cache
def _narrowed(cls: Any) -> Any:
    return type(f"Narrowed{cls.__name__}", (Narrowed, cls), {})


def narrow(block: nn.Module, branches: tuple[Branch, ...]) -> None:
    """Leave a block these branches alone. It stays an instance of its old class, so that others recognise it."""
    kept = {name for branch in branches for name in branch.names}
    lost = {name for branch in branches_of(block, "block") for name in branch.names}
    whole = not isinstance(block, Narrowed) and not branches  # what belongs to no branch goes too
    for name, _ in [*block.named_children(), *(block.named_parameters(recurse=False) if whole else ())]:
        if name not in kept and (whole or name in lost):
            delattr(block, name)
    if not isinstance(block, Narrowed):
        cls: Any = type(block)
        block.__class__ = _narrowed(cls)
    block.branches = branches  # type: ignore[assignment]


def name_of(module: nn.Module) -> str:
    """Full name of a module's class."""
    cls = type(module)
    return f"{cls.__module__}.{cls.__qualname__}"


def branches_of(block: nn.Module, path: str) -> tuple[Branch, ...]:
    """The branches a foreign block has (left); CannotRewrite names a class that is not known."""
    if isinstance(block, Narrowed):
        return block.branches
    if name_of(block) not in BRANCHES:
        raise CannotRewrite(f"{path}: rewrites do not know the block {name_of(block)}")
    return BRANCHES[name_of(block)]


def sublayer_of(block: nn.Module, path: str, branch: Branch, heads: tuple[int | None, int | None]) -> Sublayer:
    """The anatomy of one branch; CannotRewrite names a class that is not known."""
    part = block.get_submodule(branch.sublayer)
    norm = block.get_submodule(branch.norm)
    scaled = branch.scale is not None and not isinstance(block.get_submodule(branch.scale), nn.Identity)
    reads, writes = io_of(part, f"{path}.{branch.sublayer}")
    return Sublayer(
        name=branch.sublayer,
        role=branch.role,
        path=f"{path}.{branch.sublayer}",
        kind=type(part).__name__,
        norm=None if isinstance(norm, nn.Identity) else f"{path}.{branch.norm}",
        scale=f"{path}.{branch.scale}" if scaled else None,
        reads=reads,
        writes=writes,
        heads=heads[0] if branch.role == "mixer" else None,
        kv_heads=heads[1] if branch.role == "mixer" else None,
    )


def io_of(part: nn.Module, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of what reads and writes in a foreign sublayer; CannotRewrite names a class that is not known."""
    if name_of(part) not in PARTS:
        raise CannotRewrite(f"{path}: rewrites do not know the sublayer {name_of(part)}")
    reads, writes = PARTS[name_of(part)]
    return _those_there(part, path, reads), _those_there(part, path, writes)


def _those_there(part: nn.Module, path: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{path}.{name}" for name in names if isinstance(getattr(part, name, None), nn.Module))
