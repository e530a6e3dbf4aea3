"""Claims of GTrXL that need no training; `gtrxl_learning` has the others."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from ..context import Context, Slot
from ..model import Model
from ..systems.language import gtrxl as system
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted
from .gtrxl_learning import learning_rates, recall

__all__ = ["episodes", "figures", "gradients", "identity", "learning_rates", "recall", "segments"]

DIM = 64


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("gtrxl", progress)


def _model(depth: int, gate: str | None, **more: Any) -> Model:
    """A network of width 64 with torch's own first values of linears."""
    sizes: dict[str, Any] = {"dim": DIM, "depth": depth, "heads": 2, "head_dim": 32, "hidden": 128}
    sizes |= {"memory": 32, "segment": 32, "in_chans": DIM, "num_classes": 0, "gate": gate}
    model = Model(system.spec(**sizes | more))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return model.eval()


@check
def identity(seed: int, progress: Progress) -> Measured:
    """How far the last layer's output is from the first one's input, by the gates' bias and the depth."""
    found: dict[str, dict[str, float]] = {}
    for depth, bias in itertools.product((4, 12), (0.0, 2.0, 6.0)):
        model = _model(depth, "gru", gate_bias=bias)
        x = torch.randn(8, 32, DIM)
        with torch.no_grad():
            start = model.stem(x, Context())[0]
            distance = (model.body(start, Context(causal=True)).x - start).norm() / start.norm()
        found.setdefault(str(depth), {})[f"{bias:g}"] = float(distance)
    falls = all(list(row.values()) == sorted(row.values(), reverse=True) for row in found.values())
    passed = falls and found["4"]["6"] < 0.05
    said = "; ".join(
        f"{depth} layers: " + " / ".join(f"{100 * v:.1f}" for v in row.values()) + " %" for depth, row in found.items()
    )
    return Measured(found, passed, f"distance at bias 0 / 2 / 6: {said}")


@check
def gradients(seed: int, progress: Progress) -> Measured:
    """Norm of the sublayers' gradients in the first of twelve layers over that in the last, weights by Glorot."""
    found: dict[str, float] = {}
    nets: dict[str, dict[str, Any]] = {
        "GTrXL": {"gate": "gru"},
        "GTrXL, bias 6": {"gate": "gru", "gate_bias": 6.0},
        "TrXL-I": {"gate": "sum"},
        "TrXL": {"gate": None},
    }
    for name, options in nets.items():
        model = _model(12, **options)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        x, target = torch.randn(8, 32, DIM), torch.randn(8, 32, DIM)
        ((model(x) - target) ** 2).mean().backward()
        norms = [
            _norm(model.get_submodule(f"body.blocks.{i}.{part}") for part in ("mixer", "channel")) for i in (0, 11)
        ]
        found[name] = norms[0] / norms[1]

    def even(ratio: float) -> bool:
        return 1 / 3 <= ratio <= 3

    passed = even(found["GTrXL"]) and even(found["TrXL-I"]) and not 0.1 <= found["TrXL"] <= 10
    said = ", ".join(f"{name} {ratio:.2g}" for name, ratio in found.items())
    note = (
        "At bias 2 each of 24 gates lets 88 % of its stream through, which leaves a twentieth; at bias 6 nearly all. "
        "At this width sublayers add little at first, so that the norms behind the sums hardly scale the stream."
    )
    return Measured(found, passed, f"first layer's gradient over the last one's: {said}", note="" if passed else note)


def _norm(modules: Any) -> float:
    squares = [p.grad.square().sum() for m in modules for p in m.parameters() if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


@check
def segments(seed: int, progress: Progress) -> Measured:
    """Steps in one call, in segments, and one by one, at every layer; then with a memory that is too short."""
    steps, worst = 40, 0.0
    model = _model(4, "gru", memory=steps, segment=8)
    _stir(model)
    x = torch.randn(2, steps, DIM)
    with torch.no_grad():
        whole = _layers(model, x, steps)
        for size in (8, 5, 1):
            pieces = _layers(model, x, size)
            worst = max(worst, *map(relative, pieces, whole))
        short = _with_memory(model, 6, segment=1)(x)
        differing = ((short - model(x)).abs().amax((0, 2)) > 1e-5).nonzero().flatten()
    first = int(differing[0]) if len(differing) else steps
    # A token sees its memory of six and itself, so the seventh step back is the first that is lost.
    passed = worst < 1e-5 and first == 7
    said = f"largest difference of the scale {worst:.1e}; with a memory of 6 outputs differ from step {first} on"
    note = (
        "Steps are counted from 0: with segments of one step, number 7 is the first that has more than 6 before it. "
        "Transformers-RL's code, which does not norm its memory, was 0.09 apart when it was run."
    )
    return Measured({"apart": worst, "differs_from": first}, passed, said, note=note)


def _stir(model: Model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def _with_memory(model: Model, memory: int, segment: int) -> Model:
    """The same weights with another memory."""
    other = _model(4, "gru", memory=memory, segment=segment)
    other.load_state_dict(model.state_dict())
    return other.eval()


def _layers(model: Model, x: Tensor, size: int) -> list[Tensor]:
    """Every layer's outputs of x (B, L, C) given in pieces of `size` steps, from a state where there are several."""
    state, found = model.new_state(len(x), x.shape[1]), []
    taps = tuple(range(model.body.num_blocks()))
    for chunk in x.split(size, dim=1):
        ctx = state.context(Context(causal=True, taps=taps, memo={}), chunk.shape[1])
        tokens, ctx = model.stem(chunk, ctx)
        found.append(model.body(tokens, ctx, state.parts).maps)
    return [torch.cat([maps[tap] for maps in found], dim=1) for tap in taps]


@check
def episodes(seed: int, progress: Progress) -> Measured:
    """Two episodes in one row, and a row of a stream begun anew, against each episode alone: equal to the last bit."""
    model = _model(2, "gru", memory=16, segment=8)
    _stir(model)
    first, second, other = (torch.randn(1, length, DIM) for length in (13, 9, 9))
    with torch.no_grad():
        alone = model(second)
        packed = model(torch.cat([first, second], dim=1), ctx=Context(bounds=torch.tensor([0, 13, 22])))[:, 13:]
        changed = model(torch.cat([3 * first, second], dim=1), ctx=Context(bounds=torch.tensor([0, 13, 22])))[:, 13:]
        state = model.new_state(2, 64)
        model(torch.randn(2, 13, DIM), state=state)
        for _, leaf in state.parts.leaves():
            assert isinstance(leaf, Slot)
            leaf.value[0] = 0  # the first row's episode has ended
        again = model(torch.cat([second, other]), state=state)[:1]
        fresh = model.new_state(2, 64)
        begun = model(torch.cat([second, other]), state=fresh)[:1]
    near = relative(packed, alone)
    equal = {"packed": bool(torch.equal(packed, changed)), "stream": bool(torch.equal(again, begun))}
    row = ", ".join(f"{name} {'untouched' if same else 'touched'}" for name, same in equal.items())
    said = f"by another episode before: {row}; packed and alone are {near:.1e} apart"
    return Measured({**equal, "apart": near}, all(equal.values()) and near < 1e-5, said)
