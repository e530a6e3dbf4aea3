"""Every body that is registered keeps what it declares."""

from __future__ import annotations

from typing import Any

import torch

from formery.context import NOTHING, Context, State, Stream
from formery.parts.mixers.mixer import Mixer
from formery.parts.several import grids, several
from tests.contract import common
from tests.contract.common import close, joined
from tests.contract.everywhere import contract_of
from tests.contract.subjects import Promise, Subject, subjects

BODIES = contract_of("body", lambda body, x: joined(body(x, NOTHING).x))


def mixers(body: Any) -> list[tuple[str, Mixer]]:
    """Its token mixers."""
    return [(path, module) for path, module in body.named_modules() if isinstance(module, Mixer)]


@BODIES.promise()
def check_width_and_grid_are_as_it_says(subject: Subject) -> None:
    body, x = subject.make(), subject.tokens()
    features = body(x, NOTHING)
    assert features.prefix == body.num_prefix
    told = several(body.dim), grids(body.grid), several(body.stride), grids(features.grid)
    for tokens, width, grid, stride, on in zip(several(features.x), *told, strict=True):
        assert tokens.shape[-1] == width
        assert (on or tuple(tokens.shape[1:-1])) == grid
        assert tuple(-(-n // stride) for n in subject.grid) == grid
    assert not features.maps


@BODIES.promise()
def check_maps_are_as_it_says(subject: Subject) -> None:
    body, x = subject.make(), subject.tokens()
    infos = body.feature_info()
    taps = tuple(range(len(infos)))
    features = body(x, Context(taps=taps))
    assert tuple(sorted(features.maps)) == taps
    for tap, info in zip(taps, infos, strict=True):
        tokens = features.maps[tap]
        assert tokens.shape[-1] == info["num_chs"]
        count = torch.Size(-(-n // info["reduction"]) for n in subject.grid).numel()
        assert tokens.flatten(1, -2).shape[1] == count + features.prefix
        assert body.get_submodule(info["module"]) is not None
        assert features.branch_of.get(tap) == info.get("branch")
    for branch, tokens in enumerate(several(features.x)):
        last = max(tap for tap, info in zip(taps, infos, strict=True) if info.get("branch", 0) == branch)
        close(features.maps[last], tokens)
    assert tuple(body(x, Context(taps=taps[-1:])).maps) == taps[-1:]
    early = body(x, Context(taps=taps[:1], last_map=taps[0]))
    close(early.maps[0], features.maps[0])


@BODIES.promise()
def check_checkpointing_changes_nothing(subject: Subject) -> None:
    body, x = subject.make().train(), subject.tokens()
    tensors = [x.requires_grad_(), *body.parameters()]
    plain = joined(body(x, NOTHING).x)
    expected = torch.autograd.grad(common.weighted(plain), tensors)
    for module in body.modules():
        if hasattr(module, "checkpointing"):
            module.checkpointing = True
    again = joined(body(x, NOTHING).x)
    assert torch.equal(again, plain)
    for ours, theirs in zip(torch.autograd.grad(common.weighted(again), tensors), expected, strict=True):
        close(ours, theirs)


@BODIES.promise()
def check_blocks_are_counted(subject: Subject) -> None:
    assert subject.make().num_blocks() == len([m for m in subject.make().modules() if hasattr(m, "steps")]) > 0


@BODIES.promise(rank=1, all_pack=True)
def check_padding_changes_nothing(subject: Subject) -> None:
    """What a padded row gives for its tokens, and for prefix tokens, is what they give alone."""
    body, x = subject.make(), subject.tokens()
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[0, :5] = padding[0, 20:] = True
    positions = ((~padding).long().cumsum(1) - 1).clamp(min=0)
    y = body(x, Context(padding=padding, key_padding=padding, positions=positions, memo={}))
    alone, others = body(x[:1, 5:20], NOTHING), body(x[1:], NOTHING)
    real = torch.cat([torch.ones(alone.prefix, dtype=torch.bool), ~padding[0]])
    for whole, one, other in zip(several(y.x), several(alone.x), several(others.x), strict=True):
        close(whole[:1, real], one)
        close(whole[1:], other)


@BODIES.promise(rank=1, all_stream=True, num_prefix=0)
def check_any_split_gives_the_whole(subject: Subject) -> None:
    body, x = subject.make(), subject.tokens()
    parts = State()
    for path, mixer in mixers(body):
        if (own := mixer.new_state(2, 24)) is not None:
            parts.put(path, own)
    stream = Stream.start(parts, 2, 24)
    found = [
        several(body(chunk, stream.context(Context(causal=True, memo={}), chunk.shape[1]), stream.parts).x)
        for chunk in x.split([5, 1, 11, 7], dim=1)
    ]
    for chunks, whole in zip(zip(*found, strict=True), several(body(x, Context(causal=True)).x), strict=True):
        close(torch.cat(chunks, dim=1), whole)


@BODIES.parametrize(subjects("body", ranks=(1, 2)))
def test_body(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
