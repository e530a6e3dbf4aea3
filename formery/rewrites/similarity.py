"""How little blocks and sublayers turn the residual stream (LLM-Drop, arXiv 2406.15786, sections 3.1 and 3.2).

The similarity of a unit is the mean over all tokens of the cosine between the stream before and after it, norm and
residual included; what is nearest to 1 does least, and its importance is 1 minus that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bodies.blocks.base import WATCH, WATCH_WHOLE, BaseBlock
from ..context import Context
from ..errors import CannotRewrite
from ..model import Model
from .anatomy import Anatomy, Block, Stage
from .batches import looking, run

OnStep = Callable[[str, str, Tensor, Tensor], None]
"""Called with a block's path, a sublayer's path, and the stream before and after the sublayer."""
OnWhole = Callable[[str, Tensor, Tensor], None]
"""Called with a block's path, and the stream before and after it."""


class Mean:
    """A running mean of cosines over tokens whose channels are along `axis`."""

    def __init__(self, axis: int) -> None:
        self.axis, self.total, self.count = axis, 0.0, 0

    def add(self, before: Tensor, after: Tensor) -> None:
        """The tokens of two streams of equal shape; worked out in float32 at least."""
        wide = torch.promote_types(before.dtype, torch.float32)
        cosines = F.cosine_similarity(before.to(wide), after.to(wide), dim=self.axis)
        self.total += cosines.double().sum().item()
        self.count += cosines.numel()

    @property
    def value(self) -> float:
        """The mean; CannotRewrite where it is no number."""
        mean = self.total / max(1, self.count)
        if not self.count or mean != mean:
            raise CannotRewrite("the residual stream is not finite on this data; nothing can be ranked by it")
        return mean


def _means(anatomy: Anatomy) -> dict[str, Mean]:
    """One for every separable sublayer, by path."""
    return {sub.path: Mean(stage.channel_axis) for stage, block, sub in anatomy.sublayers() if block.separable}


def of_sublayers(model: nn.Module, anatomy: Anatomy, batches: list[Any]) -> dict[str, float]:
    """The similarity of every separable sublayer, by path."""
    means = _means(anatomy)

    def on_step(block: str, sublayer: str, before: Tensor, after: Tensor) -> None:
        if sublayer in means:
            means[sublayer].add(before, after)

    with looking(model):
        for batch in batches:
            watched(model, anatomy, batch, on_step)
    return {path: mean.value for path, mean in means.items()}


def of_blocks(model: nn.Module, anatomy: Anatomy, batches: list[Any]) -> dict[str, float]:
    """The similarity of every block that has sublayers left, by path."""
    return {path: spans[0] for path, spans in of_spans(model, anatomy, batches, longest=1).items()}


def of_spans(
    model: nn.Module, anatomy: Anatomy, batches: list[Any], *, longest: int | None = None
) -> dict[str, list[float]]:
    """By block, the similarities of its input with the stream 1, 2, ... blocks later in the same stage, as far as no
    block in between widens it."""
    stages = [run for stage in anatomy.stages for run in _runs(stage)]
    means: dict[tuple[str, int], Mean] = {}
    with looking(model):
        for batch in batches:
            states = _block_states(model, anatomy, batch)
            for paths in stages:
                for first, path in enumerate(paths):
                    for span in range(1, min(len(paths) - first, longest or len(paths)) + 1):
                        mean = means.setdefault((path, span), Mean(anatomy.axis_of(path)))
                        mean.add(states[path][0], states[paths[first + span - 1]][1])
    return {
        path: [means[path, span].value for span in range(1, len(paths) - first + 1) if (path, span) in means]
        for paths in stages
        for first, path in enumerate(paths)
    }


def _runs(stage: Stage) -> Iterator[list[str]]:
    """Paths of the blocks of a stage that have sublayers left, cut where a block widens the stream; none of a
    stage between streams, whose blocks are no steps along one."""
    paths: list[str] = []
    if stage.between:
        return
    for block in stage.blocks:
        if not block.keeps_width:
            yield paths
            paths = []
        elif block.sublayers:
            paths.append(block.path)
    yield paths


def of_outputs(model: nn.Module, anatomy: Anatomy, batches: list[Any]) -> dict[str, float]:
    """An ablation (`drop_norm` false in the authors' code): what a sublayer reads, normed, against what it gives,
    without the residual. Similarities are near 0 and rank otherwise."""
    means = _means(anatomy)

    def hook(path: str) -> Callable[..., None]:
        def compare(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            means[path].add(given, output[0] if isinstance(output, tuple) else output)

        return compare

    with ExitStack() as stack, looking(model):
        for path in means:
            handle = model.get_submodule(path).register_forward_hook(hook(path), with_kwargs=True)
            stack.callback(handle.remove)
        for batch in batches:
            run(model, batch)
    return {path: mean.value for path, mean in means.items()}


def watched(model: nn.Module, anatomy: Anatomy, batch: Any, on_step: OnStep, on_whole: OnWhole | None = None) -> None:
    """One forward, with `on_step` called after every sublayer (after a block as a whole where it is not separable), and
    `on_whole` after every block of a body whose sublayers work on other tokens than pass from block to block."""
    if isinstance(model, Model):
        paths = {id(model.get_submodule(block.path)): block.path for _, block in anatomy.blocks()}

        def watch(block: BaseBlock, name: str, before: Tensor, after: Tensor) -> None:
            path = paths[id(block)]
            on_step(path, f"{path}.{name}", before, after)

        def watch_whole(block: BaseBlock, before: Tensor, after: Tensor) -> None:
            if on_whole is not None:
                on_whole(paths[id(block)], before, after)

        run(model, batch, Context(record={WATCH: watch, WATCH_WHOLE: watch_whole}))
        return
    with _hooked(model, anatomy, on_step):
        run(model, batch)


def _block_states(model: nn.Module, anatomy: Anatomy, batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """The stream before and after every block."""
    first: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}

    def on_step(block: str, sublayer: str, before: Tensor, after: Tensor) -> None:
        first.setdefault(block, before)
        last[block] = after

    def on_whole(block: str, before: Tensor, after: Tensor) -> None:
        if block in first:  # else nothing of it is left
            first[block], last[block] = before, after

    watched(model, anatomy, batch, on_step, on_whole)
    return {path: (first[path], last[path]) for path in first}


@contextmanager
def _hooked(model: nn.Module, anatomy: Anatomy, on_step: OnStep) -> Iterator[None]:
    """Others' models: the stream is what enters norms and blocks and what leaves blocks."""
    with ExitStack() as stack:
        for _, block in anatomy.blocks():
            for handle in _hook_block(model, block, on_step):
                stack.callback(handle.remove)
        yield


def _hook_block(model: nn.Module, block: Block, on_step: OnStep) -> Iterator[Any]:
    seen: list[tuple[str, Tensor]] = []
    """The sublayers that have begun, each with the stream before it."""

    def begins(path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            if seen:
                on_step(block.path, seen[-1][0], seen[-1][1], stream)
            seen.append((path, stream))

        return note

    def ends(module: nn.Module, args: Any, output: Any) -> None:
        on_step(block.path, seen[-1][0], seen[-1][1], output[0] if isinstance(output, tuple) else output)
        seen.clear()

    if block.separable:
        for sub in block.sublayers:
            assert sub.norm is not None
            yield model.get_submodule(sub.norm).register_forward_pre_hook(begins(sub.path), with_kwargs=True)
    elif block.sublayers:
        whole = begins(block.sublayers[-1].path)
        yield model.get_submodule(block.path).register_forward_pre_hook(whole, with_kwargs=True)
    if block.sublayers:
        yield model.get_submodule(block.path).register_forward_hook(ends)
