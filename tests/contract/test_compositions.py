"""Whatever is registered goes together: random models of random parts build, learn, stream, and come back from disk."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from formery import formats, registry, spec
from formery.model import Model
from tests.contract.common import close, trainable
from tests.contract.subjects import DIM, GRIDS, Subject, classes, moved, takes

VOCAB, LENGTH, SIZE = 17, 24, 16
few = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def entries(role: str, rank: int) -> SearchStrategy[dict[str, Any]]:
    """Specs of a role's parts with their EXAMPLES, of those that take a grid of `rank` (mixers also as a sequence)."""
    found = []
    ranks = {rank, 1} if role == "mixer" else {rank}
    args = (DIM, 2 * DIM) if role == "merge" else (DIM,)
    for part in classes(role):
        for options in part.EXAMPLES:
            if any(takes(Subject(part, options, GRIDS[taken], args), taken) for taken in ranks):
                found.append({"kind": registry.name_of(role, part), **options})
    return st.sampled_from(found).map(copy.deepcopy)


@st.composite
def blocks(draw: DrawFn, rank: int) -> dict[str, Any]:
    """A block of either kind."""
    scheme = {"kind": draw(st.sampled_from(sorted(registry.index("scheme")))), "norm": draw(entries("norm", rank))}
    scheme["scale"] = draw(st.sampled_from([None, 0.5]))
    mixer, channel = draw(entries("mixer", rank)), draw(entries("channel", rank))
    if draw(st.booleans()):
        order = draw(st.permutations([mixer, channel, *draw(st.lists(entries("mixer", rank), max_size=1))]))
        return {"kind": "sequence", "sublayers": order, "scheme": scheme}
    return {"mixer": mixer, "channel": draw(st.sampled_from([channel, None])), "scheme": scheme}


@st.composite
def stacks(draw: DrawFn, rank: int) -> dict[str, Any]:
    """Layouts of up to three words, repeated and grouped."""
    words = {word: draw(blocks(rank)) for word in "abc"[: draw(st.integers(1, 3))]}
    items = draw(st.lists(st.sampled_from(sorted(words)), min_size=1, max_size=3))
    layout = " ".join(items) if draw(st.booleans()) else f"({' '.join(items)})*2"
    return {"kind": "stack", "layout": layout, "blocks": words}


@st.composite
def texts(draw: DrawFn) -> dict[str, Any]:
    """Models of token sequences, that predict the next one where all their parts allow it."""
    body = draw(stacks(1))
    body["position"] = draw(st.sampled_from([None, "learned", "sincos"]))
    model = {"stem": {"kind": "tokens", "dim": DIM, "vocab": VOCAB, "length": LENGTH}, "body": body}
    head = {"kind": "next_token", "norm": draw(entries("norm", 1)), "tie": draw(st.booleans())}
    if allows(model, head) and draw(st.integers(0, 3)):
        return {**model, "head": head}
    return {**model, "head": {"kind": "classes", "num_classes": 5, "pool": draw(st.sampled_from(["avg", "max"]))}}


def allows(model: dict[str, Any], head: dict[str, Any]) -> bool:
    """Whether every part is causal by what it declares, so that this head must be accepted."""
    for _, role, node in spec.walk(spec.resolve({**model, "head": head})):
        options = {option: value for option, value in node.items() if option != "kind"}
        subject = Subject(registry.find(role, node["kind"]), options, GRIDS[1])
        if role == "mixer" and subject.declared("causal") == "never":
            return False
        part = registry.find(role, node["kind"])
        if part.looks_at_batch or (role == "norm" and part.over == "grid and channels"):
            return False
    return True


@st.composite
def images(draw: DrawFn) -> dict[str, Any]:
    """Models of images: stacks, with or without class token, and pyramids."""
    stem = {"kind": draw(st.sampled_from(["patches", "conv"])), "dim": DIM, "img_size": SIZE}
    stem |= {"size": 4} if stem["kind"] == "patches" else {"norm": draw(entries("norm", 2))}
    head: dict[str, Any] = {
        "kind": "classes",
        "num_classes": 5,
        "order": draw(st.sampled_from(["norm_pool", "pool_norm"])),
    }
    if draw(st.booleans()):
        stages = [draw(stacks(2)), {**draw(stacks(2)), "merge": draw(entries("merge", 2)), "dim": 2 * DIM}]
        return {"stem": stem, "body": {"kind": "pyramid", "stages": stages}, "head": head}
    body = draw(stacks(2)) | {"position": draw(st.sampled_from([None, "learned", "sincos"]))}
    fixed = any(
        registry.find(role, node["kind"]).fixed_grid
        for _, role, node in spec.walk(spec.resolve({"stem": stem, "body": body, "head": head}))
        if role == "mixer"
    )
    if not fixed and draw(st.booleans()):
        body["prefix"], head["pool"] = 2, "token"
    return {"stem": stem, "body": body, "head": head}


def built(short: dict[str, Any]) -> Model:
    """A model of the spec, which written out resolves to itself, survives JSON and YAML, and names the modules."""
    resolved = spec.resolve(short)
    assert spec.resolve(resolved) == resolved
    assert formats.from_json(formats.to_json(resolved)) == resolved
    assert spec.resolve(formats.from_yaml(formats.to_yaml(short))) == resolved
    torch.manual_seed(0)
    model = Model(short)
    assert model.resolved == resolved
    modules = dict(model.named_modules())
    for path, role, node in spec.walk(resolved):
        if role in ("stem", "body", "block", "mixer", "channel", "merge", "scheme", "head"):
            assert type(modules[path]) is registry.find(role, node["kind"]), path
    moved(model)
    return model.eval()


def check_learns_and_comes_back(model: Model, inputs: Tensor) -> None:
    """Gradients reach every parameter; what is saved is loaded bit for bit, and answers alike."""
    output = model.train()(inputs)
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable(model).values())
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.eval().save_pretrained(folder)
        loaded = Model.from_pretrained(folder).eval()
        assert torch.equal(loaded(inputs), model(inputs))
    assert loaded.spec == model.spec
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(theirs.pop(name), tensor) for name, tensor in ours.items())
    assert not theirs


@few
@given(texts(), st.data())
def test_models_of_texts(short: dict[str, Any], data: st.DataObject) -> None:
    model, ids = built(short), torch.randint(0, VOCAB, (2, LENGTH))
    assert model(ids).shape == ((2, LENGTH, VOCAB) if model.head.causal else (2, 5))
    check_learns_and_comes_back(model, ids)
    if not model.streams:
        return
    model.double()
    whole, start, chunks = model(ids), 0, []
    state = model.new_state(2, LENGTH)
    while start < LENGTH:
        length = data.draw(st.integers(1, LENGTH - start))
        chunks.append(model(ids[:, start : start + length], state=state))
        start += length
    close(torch.cat(chunks, dim=1), whole)


@few
@given(images())
def test_models_of_images(short: dict[str, Any]) -> None:
    model, x = built(short), torch.randn(2, 3, SIZE, SIZE)
    assert model(x).shape == (2, 5)
    close(model.forward_head(model.forward_features(x)), model(x), tolerance=1e-5)
    check_learns_and_comes_back(model, x)
