"""What is where in somebody's model, in plain words that rewrites can work by. Every place is a dotted path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Role = Literal["mixer", "channel"]


@dataclass(frozen=True, slots=True)
class Sublayer:
    """A mixer or channel mixer, with what stands between it and the residual stream."""

    name: str
    """Its name inside the block."""
    role: Role
    path: str
    kind: str
    """Registered name, or the name of a foreign class."""
    norm: str | None = None
    """Its norm: in front of it, behind it or on the sum, as the block's `norms` says."""
    scale: str | None = None
    """Its layer scale: a module with one vector, or the vector itself."""
    reads: tuple[str, ...] = ()
    """Linears and 1x1 convolutions, all of them, that read what is handed to it; empty where it declares none."""
    writes: tuple[str, ...] = ()
    """The linears and convolutions that give its output; empty where it declares none."""
    heads: int | None = None
    kv_heads: int | None = None
    reads_stream: bool = True
    """Whether it reads the residual stream (through its norm), and not the sublayer before it."""
    writes_stream: bool = True
    """Whether its output is added to the residual stream."""
    skips_some: bool = False
    """Whether it gives zeros for some tokens (those of the prefix, or all but these) instead of an output."""


@dataclass(frozen=True, slots=True)
class Block:
    """Sublayers in order around the residual stream."""

    path: str
    scheme: str
    norms: Literal["in", "out", "sum"]
    """Where the sublayers' norms stand: in front of them, on their output, or on the sum with the stream."""
    sublayers: tuple[Sublayer, ...]
    """Those that are there; a block whose sublayers were all taken away has none."""
    separable: bool = True
    """Whether each sublayer is a residual branch of its own."""
    only_adds: bool = True
    """Whether the stream is changed by adding the sublayers' outputs alone (no norm or factor on it)."""
    keeps_width: bool = True
    """Whether as many channels go out as come in; a block that widens the stream cannot go as a whole."""


@dataclass(frozen=True, slots=True)
class Source:
    """Something, other than blocks, whose values go into the residual stream of a stage."""

    path: str
    kind: Literal["dense", "table", "other"]
    """A linear or convolution; a tensor whose last axis is the width; anything else."""
    why: str = ""
    """What it is, where it is something else."""


@dataclass(frozen=True, slots=True)
class Exit:
    """Something that reads the residual stream after a stage's last block."""

    norm: str | None = None
    """The norm it is read through."""
    why: str = ""
    """What reads it raw, where something does."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks one after another along a residual stream, with nothing between them."""

    path: str
    width: int
    sources: tuple[Source, ...]
    blocks: tuple[Block, ...]
    exits: tuple[Exit, ...]
    """What reads the stream behind the blocks; none where another stage alone goes on with it."""
    prefix: int = 0
    """Prefix tokens in front of the grid's."""
    channel_axis: int = -1
    """Where the stream's channels are; formery's are last."""
    stream: int = 0
    """Number of its residual stream: stages of one number go on with the same values, add to them, or read them."""
    between: bool = False
    """Whether its blocks carry something from one stream into another, and are no step along either."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two neighbours: the second reads what the first gives, all of it and nothing else."""

    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A whole model."""

    library: Literal["formery", "timm", "transformers"]
    model: str
    """Name of its class."""
    stages: tuple[Stage, ...]
    pairs: tuple[Pair, ...] = ()
    """Neighbours outside the blocks' own order: in stems, merges, and inside sublayers that declare them."""
    head_norms: tuple[tuple[str, str | None], ...] = ()
    """Norms of the head (one, or one a tensor of tokens), and the linear that reads what each gives, or its mean over
    tokens; None where something else reads it."""
    tied: tuple[tuple[str, str], ...] = ()
    """(table that writes the stream, weight of the head that shares it)."""

    @property
    def head_norm(self) -> str | None:
        """The head's norm, where it has one."""
        return self.head_norms[0][0] if len(self.head_norms) == 1 else None

    def streams(self) -> list[tuple[Stage, ...]]:
        """The stages of each residual stream, in order."""
        found: dict[int, list[Stage]] = {}
        for stage in self.stages:
            found.setdefault(stage.stream, []).append(stage)
        return [tuple(stages) for stages in found.values()]

    def axis_of(self, path: str) -> int:
        """The channel axis of the stream around the block or sublayer at `path`."""
        return next(stage.channel_axis for stage, block in self.blocks() if f"{path}.".startswith(f"{block.path}."))

    def blocks(self) -> Iterator[tuple[Stage, Block]]:
        """Every block with its stage, in order."""
        return ((stage, block) for stage in self.stages for block in stage.blocks)

    def sublayers(self) -> Iterator[tuple[Stage, Block, Sublayer]]:
        """Every sublayer with its block and stage, in order."""
        return ((stage, block, sub) for stage, block in self.blocks() for sub in block.sublayers)
