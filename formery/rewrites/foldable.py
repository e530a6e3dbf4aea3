"""What fold can do on a model, and what it leaves alone and why: looking only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from ..measure.inputs import without_values
from ..parts.norms.global_response import GlobalResponse
from .anatomy import Anatomy, Block, Pair, Stage, Sublayer, of
from .anatomy.probing import is_batch_norm, is_dense, mixes_channels, pads_nothing
from .fold_steps import (
    AffineForward,
    AnyStep,
    BatchNormBack,
    BatchNormForward,
    Recentre,
    ScaleBack,
    ScaleIntoNorm,
    ShiftForward,
    Untie,
    perform_step,
)
from .norms import AFFINE_NORMS, facts_of, is_fixed
from .rewrite import Refusal
from .surgery import module_at, owners

Found = Iterator[AnyStep | Refusal]


def chosen(
    model: nn.Module,
    *,
    scales: bool,
    batch_norms: bool,
    shifts: bool,
    affine: bool,
    recentre: bool,
    untie: bool,
    classifier: bool = False,
) -> tuple[list[AnyStep], list[Refusal]]:
    """The steps in the order in which they are performed, and the refusals.

    A fold may clear the way for another one, so each kind looks at a copy without values on which the kinds before it
    have been performed, until it finds nothing more.
    """
    of_each_kind: list[tuple[bool, Callable[[_Look], Found]]] = [
        (scales, _Look.scales),
        (batch_norms, lambda look: look.batch_norms(classifier)),
        (shifts, _Look.shifts),
        (affine, _Look.affine),
        (recentre, lambda look: look.recentre(untie)),
    ]
    copy = without_values(model)
    steps: list[AnyStep] = []
    refused: list[Refusal] = []
    for wanted, kind in of_each_kind:
        while wanted:
            found = list(kind(_Look(copy)))
            new = [f for f in found if not isinstance(f, Refusal)]
            steps += new
            if not new:
                refused += [f for f in found if isinstance(f, Refusal)]
                break
            for step in new:
                perform_step(copy, step)
    return steps, refused


class _Look:
    """One look at one model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.anatomy: Anatomy = of(model)
        self.owners = owners(model)

    def at(self, path: str) -> nn.Module:
        return module_at(self.model, path)

    def why_not_layer(self, path: str) -> str | None:
        """Why the weights of a linear or convolution cannot be changed; None if they can."""
        module = self.at(path)
        if not is_dense(module):
            return f"{path} is a {type(module).__name__}, no plain linear or convolution"
        for parameter in module.parameters():
            others = [n for n in self.owners[id(parameter)] if not n.startswith(f"{path}.")]
            if others:
                return f"{path} shares its weights with {others[0]}"
        return None

    def why_not_writer(self, sub: Sublayer) -> str | None:
        """Why a sublayer has no one layer whose output is its own."""
        if len(sub.writes) != 1:
            count = "no linear" if not sub.writes else f"{len(sub.writes)} layers"
            return f"{sub.kind} declares {count} that writes"
        return self.why_not_layer(sub.writes[0])

    # -------------------------------------------------------------------------------------------- layer scales

    def scales(self) -> Found:
        for _, block, sub in self.anatomy.sublayers():
            if sub.scale is not None:
                yield self.scale(block, sub, sub.scale)

    def scale(self, block: Block, sub: Sublayer, scale: str) -> AnyStep | Refusal:
        if block.norms == "out" and sub.norm is not None:
            norm = self.at(sub.norm)
            if type(norm) in AFFINE_NORMS and norm.weight is not None:
                return ScaleIntoNorm(scale=scale, into=sub.norm)
            return Refusal(what="layer scale", where=scale, why=f"{sub.norm} stands before it and has no weight")
        if len(sub.writes) == 1 and type(self.at(sub.writes[0])) in AFFINE_NORMS:
            return ScaleIntoNorm(scale=scale, into=sub.writes[0])
        if why := self.why_not_writer(sub):
            return Refusal(what="layer scale", where=scale, why=why)
        return ScaleBack(scale=scale, into=sub.writes[0])

    # -------------------------------------------------------------------------------------------- batch norms

    def batch_norms(self, classifier: bool) -> Found:
        done: set[str] = set()
        for pair in self.anatomy.pairs:
            for norm, found in self.in_pair(pair, done):
                done.add(norm)
                yield found
        for _, block, sub in self.anatomy.sublayers():
            if sub.norm is not None and is_batch_norm(self.at(sub.norm)):
                done.add(sub.norm)
                yield self.of_sublayer(block, sub, sub.norm)
        heads = dict(self.anatomy.head_norms)
        for path, module in self.model.named_modules():
            if is_batch_norm(module) and path not in done:
                if path in heads:
                    reader = heads[path] if classifier else None
                    if reader is not None and self.why_not_layer(reader) is None:
                        yield BatchNormForward(norm=path, into=[reader])
                        continue
                    why = "it makes the features, and the classifier behind it may be exchanged"
                else:
                    why = "the part around it declares no neighbour of it"
                yield Refusal(what="batch norm", where=path, why=why)

    def in_pair(self, pair: Pair, done: set[str]) -> Iterator[tuple[str, AnyStep | Refusal]]:
        first, second = self.at(pair.first), self.at(pair.second)
        if is_batch_norm(second) and pair.second not in done:
            why = self.why_not_layer(pair.first)
            if why is None:
                yield pair.second, BatchNormBack(norm=pair.second, into=pair.first)
            elif not is_batch_norm(first):
                yield pair.second, Refusal(what="batch norm", where=pair.second, why=why)
        elif is_batch_norm(first) and pair.first not in done:
            why = self.why_not_layer(pair.second)
            if why is None and not pads_nothing(second):
                why = f"{pair.second} pads with zeros, which the norm would shift"
            if why is None:
                yield pair.first, BatchNormForward(norm=pair.first, into=[pair.second])
            else:
                yield pair.first, Refusal(what="batch norm", where=pair.first, why=why)

    def of_sublayer(self, block: Block, sub: Sublayer, norm: str) -> AnyStep | Refusal:
        why: str | None = None
        if block.norms == "sum":
            why = "it norms the sum with the residual stream, which many write and read"
        elif block.norms == "out":
            why = self.why_not_writer(sub)
            if sub.skips_some:
                why = f"{sub.kind} gives zeros for some tokens, which the norm shifts and a layer's bias would not"
            if why is None:
                return BatchNormBack(norm=norm, into=sub.writes[0])
        elif why := self.why_not_readers(sub):
            pass
        else:
            return BatchNormForward(norm=norm, into=list(sub.reads))
        assert why is not None
        return Refusal(what="batch norm", where=norm, why=why)

    def why_not_readers(self, sub: Sublayer) -> str | None:
        """Why nothing can be folded into what reads a sublayer's input."""
        if not sub.reads:
            return f"{sub.kind} declares no linears or 1x1 convolutions that read it"
        return next((why for path in sub.reads if (why := self.why_not_layer(path))), None)

    # -------------------------------------------------------------------------------------------- shifts

    def shifts(self) -> Found:
        for pair in self.anatomy.pairs:
            norm = self.at(pair.first)
            if type(norm) is not GlobalResponse or norm.bias is None:
                continue
            why = self.why_not_layer(pair.second)
            if why is None and not pads_nothing(self.at(pair.second)):
                why = f"{pair.second} pads with zeros, which the norm would shift"
            if why is None and len(self.owners[id(norm.bias)]) > 1:
                why = "its bias is shared"
            if why is None:
                yield ShiftForward(norm=pair.first, into=pair.second)
            else:
                yield Refusal(what="shift", where=pair.first, why=why)

    # -------------------------------------------------------------------------------------------- weights of norms

    def affine(self) -> Found:
        for _, block, sub in self.anatomy.sublayers():
            if sub.norm is None or block.norms != "in":
                continue
            facts = facts_of(self.at(sub.norm))
            if facts is None or facts.weight is None:
                continue
            why = self.why_not_readers(sub)
            if why is None and is_fixed(self.at(sub.norm)):
                why = "it works in float32 whatever the model's type, which formery's norms do not"
            if why is None and len(self.owners[id(facts.weight)]) > 1:
                why = "its weight is shared"
            if why is not None:
                yield Refusal(what="weight of a norm", where=sub.norm, why=why)
            else:
                yield AffineForward(norm=sub.norm, into=list(sub.reads))

    # -------------------------------------------------------------------------------------------- recentring

    def recentre(self, untie: bool) -> Found:
        for stages in self.anatomy.streams():
            yield from self.recentre_stream(stages, untie)

    def recentre_stream(self, stages: Sequence[Stage], untie: bool) -> Found:
        subs = [sub for stage in stages for block in stage.blocks for sub in block.sublayers]
        norms = [sub.norm for sub in subs if sub.norm and sub.reads_stream]
        norms += [leaves.norm for stage in stages for leaves in stage.exits if leaves.norm]
        kinds = [facts.kind if (facts := facts_of(self.at(norm))) else type(self.at(norm)).__name__ for norm in norms]
        if not kinds or all(kind == "rms" for kind in kinds):
            return  # done already, or never a matter
        for stage in stages:
            where, why = self.why_not_recentre(stage, untie)
            if why:
                yield Refusal(what="mean of the stream", where=where, why=why)
                return
        sources = [source.path for stage in stages for source in stage.sources if source.kind == "dense"]
        writers = [w for sub in subs if sub.writes_stream for w in sub.writes]
        tables = [source.path for stage in stages for source in stage.sources if source.kind == "table"]
        for table, weight in self.anatomy.tied:
            if table in tables and self.norm_scales(self.anatomy.head_norm):
                yield Untie(head=weight.split(".")[0], weight=weight)
        yield Recentre(stage=stages[0].path, dense=[*sources, *writers], tables=tables, norms=norms)

    def why_not_recentre(self, stage: Stage, untie: bool) -> tuple[str, str]:
        """(where, why) the stream of a stage must keep its mean; empty where it need not."""
        for source in stage.sources:
            if source.kind == "other":
                return source.path, f"the stream begins with {source.why}"
            if source.kind == "dense" and (why := self.why_not_recentred(source.path)):
                return source.path, why
            if source.kind == "table" and (why := self.why_not_table(source.path, untie)):
                return source.path, why
        for block in stage.blocks:
            if block.norms != "in" or not block.only_adds:
                return (
                    block.path,
                    f"in the scheme {block.scheme!r} the stream is not read through norms and added to, alone",
                )
            for sub in block.sublayers:
                if found := self.why_not_around(sub):
                    return found
        for leaves in stage.exits:
            if leaves.norm is None:
                return stage.path, leaves.why
            facts = facts_of(self.at(leaves.norm))
            if facts is not None and facts.dim != stage.width:
                return (
                    leaves.norm,
                    "it norms several tokens together, which have one mean there and one each in the stream",
                )
            if found := self.why_not_layer_norm(leaves.norm):
                return found
        return "", ""

    def why_not_around(self, sub: Sublayer) -> tuple[str, str] | None:
        if sub.reads_stream and sub.norm is None:
            return sub.path, f"{sub.kind} reads the stream without a norm"
        if sub.reads_stream and sub.norm and (found := self.why_not_layer_norm(sub.norm)):
            return found
        if not sub.writes_stream:
            return None
        if why := self.why_not_writer(sub) or self.why_not_recentred(sub.writes[0]):
            return sub.path, why
        if sub.scale is not None:
            return sub.scale, "a layer scale stands between the writer and the stream; fold it as well"
        return None

    def why_not_layer_norm(self, path: str) -> tuple[str, str] | None:
        facts = facts_of(self.at(path))
        if facts is not None and facts.kind == "layer":
            return None
        kind = facts.kind.upper() if facts else type(self.at(path)).__name__
        return path, f"it reads the stream and is a {kind} norm, no layer norm"

    def why_not_recentred(self, path: str) -> str | None:
        if why := self.why_not_layer(path):
            return why
        return None if mixes_channels(self.at(path)) else f"{path} convolves each channel alone"

    def why_not_table(self, path: str, untie: bool) -> str | None:
        owner, _, name = path.rpartition(".")
        tensor = getattr(self.at(owner) if owner else self.model, name)
        others = [n for n in self.owners[id(tensor)] if n != path]
        tied = [weight for table, weight in self.anatomy.tied if table == path]
        if others and others != tied:
            return f"{path} is shared with {others[0]}"
        if tied and self.norm_scales(self.anatomy.head_norm) and not untie:
            return f"{tied[0]} shares it behind a norm with weights; untie=True gives the head a table of its own"
        return None

    def norm_scales(self, path: str | None) -> bool:
        """Whether what comes out of a norm has no mean of zero even if what goes in has."""
        facts = facts_of(self.at(path)) if path else None
        return facts is None or facts.weight is not None or facts.bias is not None
