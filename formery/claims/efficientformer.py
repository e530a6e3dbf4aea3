"""Claims of EfficientFormer (arXiv 2206.01191) and its second version (arXiv 2212.08059)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..bodies.blocks.base import BaseBlock
from ..create import create_model
from ..model import Model
from ..parts.heads.distilled import DistilledScores
from ..parts.mixers.biased_attention import BiasedAttention
from ..parts.norms.norm import Norm
from ..parts.positions.distance_table import DistanceTable
from ..rewrites.fold import Fold
from ..search.slimming import Design, Kind, Slot, Stage, actions, slim
from .check import Measured, Progress, check
from .figures import counted

__all__ = ["bias_cache", "figures", "folded", "one_change", "slimming", "two_heads"]

FIRST, SECOND = "efficientformer_l1", "efficientformerv2_s0"
ROUNDING = 1e-5
"""Of the output's scale, float32."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    why = (
        "The sizes of the second version, and L3's and L7's, are those with batch norms folded away, both classifiers "
        "counted; the authors' tool counted 10.2G of L7 and 2.56G of V2-L."
    )
    return counted("efficientformer", progress, why)


@check
def one_change(seed: int, progress: Progress) -> Measured:
    """How often blocks on the way turn from maps to tokens, and how what passes between them lies in memory."""
    model = drawn(FIRST)
    kinds = ["tokens" if isinstance(block.mixer, BiasedAttention) else "maps" for block in blocks_of(model)]
    changes = sum(one != other for one, other in pairwise(kinds))
    with watched_streams(model) as streams, torch.no_grad():
        model(torch.randn(1, 3, 224, 224))
    scattered = sum(not stream.is_contiguous() or stream.dim() != 4 for stream in streams)
    said = (
        f"{changes} change from blocks of maps to blocks of tokens in {len(kinds)} blocks; of {len(streams)} tensors "
        f"between them {scattered} are not plain (batch, height, width, channels)"
    )
    note = "Tokens are (batch, height, width, channels) throughout, so that the authors' one reshape is none here."
    value = {"changes": changes, "scattered": scattered, "streams": len(streams)}
    return Measured(value, changes == 1 and not scattered and len(streams) == 2 * len(kinds), said, "one change", note)


@contextmanager
def watched_streams(model: Model) -> Iterator[list[Tensor]]:
    """The tensors that go into every block and come out of it, in this block's forward passes."""
    seen: list[Tensor] = []

    def note(block: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        seen.extend((args[0], out))

    handles = [block.register_forward_hook(note) for block in blocks_of(model)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@check
def folded(seed: int, progress: Progress) -> Measured:
    """Both versions with their batch norms folded, beside what they were; norms that are left, and where."""
    value: dict[str, Any] = {}
    for name in (FIRST, SECOND):
        progress(name)
        model, images = drawn(name), torch.randn(1, 3, 224, 224)
        with torch.no_grad():
            before = model(images)
            Fold.perform(model, Fold.decide(model))
            error = ((model(images) - before).abs().max() / before.abs().max()).item()
        left = [path for path, module in model.named_modules() if isinstance(module, Norm)]
        convolutional = [path for path, block in named_blocks(model) if convolves(block)]
        among = [path for path in left if path.startswith(("stem", *convolutional)) or ".merge." in path]
        value[name] = {"error": error, "norms": len(left), "norms_among_convolutions": len(among)}
    worst = max(found["error"] for found in value.values())
    kept = sum(found["norms_among_convolutions"] for found in value.values())
    said = f"largest difference {worst:.1e} of the scores; {kept} norms left in stems, merges and blocks of maps"
    note = (
        "The head's norm stays, for it makes the features; so do layer norms of attention, and pooling's layer scale."
    )
    return Measured(value, worst <= ROUNDING and not kept, said, note=note)


@check
def bias_cache(seed: int, progress: Progress) -> Measured:
    """Scores with the biases that evaluation remembers beside those worked out anew, for every way in which a table may
    change."""
    model, images = drawn(FIRST), torch.randn(1, 3, 224, 224)
    tables = [module for module in model.modules() if isinstance(module, DistanceTable)]
    apart: dict[str, float] = {}

    def compare(name: str) -> Tensor:
        with torch.no_grad():
            model(images)
            remembered = model(images)
        anew = model(images).detach()  # with gradients nothing is remembered
        apart[name] = ((remembered - anew).abs().max() / anew.abs().max()).item()
        return remembered

    scores = [compare("as built")]
    with torch.no_grad():
        for part in tables:
            part.table.add_(torch.randn_like(part.table))
    scores.append(compare("changed in place"))
    state = {name: t + torch.randn_like(t) if name.endswith("table") else t for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    scores.append(compare("loaded after eval()"))
    for part in tables:
        part.table = nn.Parameter(torch.randn_like(part.table))
    scores.append(compare("replaced"))
    model.train().eval()
    scores.append(compare("train() and eval()"))
    moved = [not torch.allclose(one, other, rtol=1e-4) for one, other in pairwise(scores[:4])]
    worst = max(apart.values())
    said = f"largest difference {worst:.1e} of the scores over {len(apart)} states; each new table shows: {all(moved)}"
    return Measured({"apart": apart, "moved": moved}, worst <= ROUNDING and all(moved), said)


@check
def slimming(seed: int, progress: Progress) -> Measured:
    """A known net under a known table: each step against all that were possible, and where the steps end."""
    design = planted()
    latency = design.milliseconds(milliseconds)
    first = slim(design, milliseconds, latency - 1e-9)[1][0]
    budget = 0.5 * latency
    slim_one, steps = slim(design, milliseconds, budget)
    greedy, monotone, now = True, True, design
    for step in steps:
        prices = {}
        for action, stage, after in actions(now):
            saved = now.milliseconds(milliseconds) - after.milliseconds(milliseconds)
            if saved > 0:
                prices[action] = ((now.score - after.score) / saved, stage, after)
        best = min(prices, key=lambda action: prices[action][0])
        greedy = greedy and (step.action, step.stage) == (best, prices[best][1])
        monotone = monotone and step.saved > 0
        now = prices[step.action][2]
    end = slim_one.milliseconds(milliseconds)
    ok = greedy and monotone and now == slim_one and end <= budget and (first.action, first.stage) == PLANTED
    kinds = {action: sum(step.action == action for step in steps) for action in ("drop", "narrow", "convert")}
    ok = ok and all(kinds.values())  # or nothing is known of an action
    said = (
        f"first step: {first.action} in stage {first.stage + 1}; {len(steps)} steps ({in_words(kinds)}) from "
        f"{latency:.1f} to {end:.1f} ms, {budget:.1f} wanted; each the cheapest possible: {greedy}"
    )
    value = {"first": [first.action, first.stage], "steps": kinds, "latency": end, "budget": budget, "greedy": greedy}
    return Measured(value, ok, said)


PLANTED = ("drop", 1)
"""The block that costs as much as its neighbours and matters least."""


def planted() -> Design:
    """Four stages; one block of the second hardly matters."""
    counts, widths = (3, 4, 6, 4), (48, 96, 224, 448)
    stages = []
    for i, (count, width) in enumerate(zip(counts, widths, strict=True)):
        slots = []
        for j in range(count):
            maps = 0.01 if (i, j) == (1, 2) else 1.0 + 0.1 * j + 0.2 * i
            kind: Kind = "tokens" if i == 3 and j >= 2 else "maps"
            slots.append(Slot(kind, {"maps": maps, "tokens": maps + 0.05 * (j + 1)} if i >= 2 else {"maps": maps}))
        stages.append(Stage(width, tuple(slots)))
    return Design(tuple(stages))


def milliseconds(kind: Kind, stage: int, width: int) -> float:
    """A table by rule: channels by channels, on a map a quarter as large in each stage, half more for tokens."""
    return (1.5 if kind == "tokens" else 1.0) * (0.05 + (width / 100) ** 2 / 4**stage)


def in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())


@check
def two_heads(seed: int, progress: Progress) -> Measured:
    """Scores in evaluation beside both outputs that the same features give in training."""
    model, images = drawn(FIRST), torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features = model.forward_features(images)
        scores = model(images)
        both = model.train().forward_head(features)
    if not isinstance(both, DistilledScores):
        return Measured({}, False, f"training gives a {type(both).__name__}, not the scores of two classifiers")
    difference = (scores - (both.scores + both.distilled) / 2).abs().max().item()
    apart = (both.scores - both.distilled).abs().max().item()
    said = f"difference to the mean {difference:g}; the two classifiers are {apart:.2f} apart"
    return Measured({"difference": difference, "apart": apart}, difference == 0 and apart > 0, said)


@torch.no_grad()
def drawn(name: str) -> Model:
    """The variant for ten classes in evaluation, every number moved off its initial value."""
    model = create_model(name, num_classes=10).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    for path, buffer in model.named_buffers():
        if path.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand_like(buffer))
    return model


def named_blocks(model: Model) -> list[tuple[str, BaseBlock]]:
    return [(f"{path}.", module) for path, module in model.named_modules() if isinstance(module, BaseBlock)]


def blocks_of(model: Model) -> list[BaseBlock]:
    return [block for _, block in named_blocks(model)]


def convolves(block: BaseBlock) -> bool:
    """Whether it is a block of maps, in which norms stand behind convolutions."""
    return not isinstance(getattr(block, "mixer", None), BiasedAttention)
