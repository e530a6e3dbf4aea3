"""What every rewrite promises, over the registered rewrites and small models of every family."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from formery import cards, registry, rewrites
from formery.errors import CannotRewrite, FormeryError
from formery.model import Model
from formery.parts.schemes.scheme import Scheme
from formery.published import resize
from formery.rewrites import anatomy
from formery.rewrites.rewrite import Exact
from formery.saving import replay
from tests.unit.rewrites_families import FAMILIES, error, inputs_for, model_of, shapes

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "fold": [{}, {"affine": True, "recentre": True, "untie": True}],
    "drop": [{"unit": "block", "count": 1}, {"unit": "joint", "count": 2}, {"unit": "mixer", "count": 1}],
}
CASES = [(name, i) for name in registry.index("rewrite") for i in range(len(OPTIONS.get(name, [{}])))]


def decided(name: str, number: int, model: Model, data: Any) -> dict[str, Any] | None:
    """The plan, or None where the rewrite refuses the model with a reason."""
    options = OPTIONS.get(name, [{}])[number]
    try:
        return rewrites.find(name).decide(model, data, **options)
    except CannotRewrite:
        return None


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[str, int]:
    return request.param


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_rewriting(case: tuple[str, int], family: str) -> None:
    """`decide` touches nothing; `perform` keeps its promise, also without values; the plan is remembered once."""
    name, number = case
    model, data = model_of(family), inputs_for(FAMILIES[family])
    tensors, before = copy.deepcopy(model.state_dict()), model(data)
    model.train()
    plan = decided(name, number, model, data)
    assert all(module.training for module in model.modules())
    model.eval()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in model.state_dict().items())
    if plan is None:
        assert model.plans == []
        return
    assert json.loads(json.dumps(plan)) == plan
    rewrite = rewrites.find(name)
    with torch.device("meta"):
        bare = Model(FAMILIES[family])
        rewrite.perform(bare, plan)
    assert rewrite.perform(model, plan) is model
    assert shapes(bare) == shapes(model)
    assert bare.plans == model.plans == ([plan] if plan["steps"] else [])
    after = model(data)
    assert after.isfinite().all()
    assert sum(p.numel() for p in model.parameters()) <= sum(t.numel() for t in tensors.values()) * 1.5
    if issubclass(rewrite, Exact):
        assert error(after, before) < 1e-10
        again = decided(name, number, model, data)
        assert again is not None
        assert again["steps"] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_reports(case: tuple[str, int], family: str) -> None:
    """The report says what changed, and what it cost on the data."""
    name, number = case
    model, data = model_of(family), inputs_for(FAMILIES[family])
    with torch.no_grad():
        before, parameters = model(data), sum(p.numel() for p in model.parameters())
    try:
        model, plan, report = rewrites.apply(model, name, data, **OPTIONS.get(name, [{}])[number])
    except CannotRewrite:
        assert decided(name, number, model_of(family), data) is None
        return
    with torch.no_grad():
        assert report["difference"] == pytest.approx(error(model(data), before), rel=1e-9, abs=1e-15)
    assert report["parameters"] == {"before": parameters, "after": sum(p.numel() for p in model.parameters())}
    assert report["promise"] == ("exact" if issubclass(rewrites.find(name), Exact) else "approximate")
    assert report["steps"] == len(plan["steps"])
    assert report["refused"] == plan["refused"]
    assert report["macs"]["after"] <= report["macs"]["before"]
    if name == "drop":
        assert report["parameters"]["after"] < parameters or FAMILIES[family]["body"].get("mixer") == "pooling"
        if model.head.causal:
            assert report["score"]["name"] == "perplexity"
    json.dumps(report)


LOAD = """
import hashlib, json, sys, torch
from formery.model import Model
torch.set_num_threads(1)
found = {}
for folder in sys.argv[1:]:
    model = Model.from_pretrained(folder).eval()
    data = torch.load(folder + "/data.pt")
    with torch.no_grad():
        out = model(data)
    found[folder] = [hashlib.sha256(out.numpy().tobytes()).hexdigest(), model.plans]
print(json.dumps(found))
"""


def digest(model: Model, data: torch.Tensor) -> str:
    with torch.no_grad():
        return hashlib.sha256(model(data).numpy().tobytes()).hexdigest()


def test_rewritten_models_load_in_another_process(tmp_path: Path) -> None:
    """Two rewrites in a row, saved and loaded elsewhere: equal outputs to the last bit, equal plans, each once."""
    wanted = {}
    for family, spec in FAMILIES.items():
        order = ("fold", "drop") if len(wanted) % 2 else ("drop", "fold")
        model, data = model_of(family, torch.float32), inputs_for(spec, torch.float32)
        for name in order:
            plan = decided(name, 1 if name == "fold" else 0, model, data)
            assert plan is not None
            rewrites.find(name).perform(model, plan)
        assert [plan["kind"] for plan in model.plans] == [n for n in order if n in {p["kind"] for p in model.plans}]
        model.save_pretrained(tmp_path / family)
        torch.save(data, tmp_path / family / "data.pt")
        wanted[str(tmp_path / family)] = [digest(model, data), model.plans]
    ran = subprocess.run([sys.executable, "-c", LOAD, *wanted], capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(ran.stdout) == wanted


def test_streams_after_rewrites() -> None:
    """A rewritten model streams what it gives for the whole sequence; states are only for mixers that are there."""
    for family in ("decoder", "gpt", "hybrid", "ladder", "sequence"):
        model, data = model_of(family), inputs_for(FAMILIES[family])
        for name, options in (("fold", {"recentre": True}), ("drop", {"unit": "joint", "count": 3})):
            model, _, _ = rewrites.apply(model, name, data, **options)
        state = model.new_state(len(data), data.shape[1])
        paths = {path.rpartition(".")[0] for path, _ in state.parts.leaves()}
        assert paths == {path.removeprefix("body.") for path, _ in model.mixers()}
        with torch.no_grad():
            pieces = torch.cat([model(piece, state=state) for piece in data.split([5, 1, 6], dim=1)], dim=1)
            assert error(pieces, model(data)) < 1e-10


@pytest.mark.parametrize("family", ["vit batch", "metaformer", "convnext", "decoder"])
def test_rewritten_models_export(family: str) -> None:
    """What is left is plain modules: torch.export takes it."""
    model, data = model_of(family), inputs_for(FAMILIES[family])
    for name, options in (("fold", {"recentre": True}), ("drop", {"unit": "block", "count": 1})):
        model, _, _ = rewrites.apply(model, name, data, **options)
    exported = torch.export.export(model, (data,)).module()
    with torch.no_grad():
        assert error(exported(data), model(data)) < 1e-10


def tampered() -> dict[str, Any]:
    model = model_of("vit scaled")
    return rewrites.find("fold").decide(model, recentre=True)


TAMPERINGS: dict[str, tuple[Any, str]] = {
    "kind": (lambda p: p.update(kind="drop"), "plan of kind"),
    "version": (lambda p: p.update(version=7), "version 1, got 7"),
    "no steps": (lambda p: p.pop("steps"), "list of steps"),
    "step of no kind": (lambda p: p["steps"].append({"do": "magic"}), "step 7"),
    "missing entry": (lambda p: p["steps"][0].pop("into"), "into: field required"),
    "extra entry": (lambda p: p["steps"][0].update(code="import os"), "code: extra inputs"),
    "wrong type": (lambda p: p["steps"][0].update(into=3), "into: input should be a valid string"),
    "no such module": (lambda p: p["steps"][0].update(into="body.blocks.9.mixer.out"), "no such module"),
    "a method": (lambda p: p["steps"][0].update(into="body.forward"), "no such module"),
    "another layer": (lambda p: p["steps"][0].update(into="body.blocks.0.channel.expand"), "has 32 channels"),
    "no layer": (lambda p: p["steps"][0].update(into="body.blocks.0.scheme"), "no plain linear"),
    "no norm": (lambda p: p["steps"][-1]["norms"].append("stem.conv"), "no layer or RMS norm"),
    "no table": (lambda p: p["steps"][-1]["tables"].append("body.position"), "no such parameter"),
    "twice": (lambda p: p["steps"].append(p["steps"][0]), "no plain linear|one vector|no such"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_tampered_plans(how: str) -> None:
    """An edited plan is refused in one line, and the model is as it was."""
    change, message = TAMPERINGS[how]
    plan, model = tampered(), model_of("vit scaled")
    change(plan)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CannotRewrite, match=message) as refusal:
        rewrites.find("fold").perform(model, plan)
    assert "\n" not in str(refusal.value)
    assert model.plans == []
    assert {name: torch.equal(t, before[name]) for name, t in model.state_dict().items()} == dict.fromkeys(before, True)


def test_tampered_saves(tmp_path: Path) -> None:
    """Plans in a saved model are checked as well; what a folder says is data, whatever it says."""
    model = model_of("vit scaled", torch.float32)
    rewrites.find("fold").perform(model, tampered())
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in (
        lambda plans: plans.append(plans[0]),
        lambda plans: plans[0].update(kind="unknown"),
        lambda plans: plans[0]["steps"].pop(0),
        lambda plans: plans.clear(),
    ):
        edited = copy.deepcopy(config)
        change(edited["plans"])
        (tmp_path / "config.json").write_text(json.dumps(edited))
        with pytest.raises(FormeryError) as refusal:
            Model.from_pretrained(tmp_path)
        assert "\n" not in str(refusal.value)


def test_other_classes_after_rewrites(tmp_path: Path) -> None:
    """A classifier may be exchanged after rewriting, and the model saves and loads; its resolution stays."""
    model, data = model_of("vit batch", torch.float32), inputs_for(FAMILIES["vit batch"], torch.float32)
    rewrites.apply(model, "fold", data, affine=True, recentre=True)
    model.reset_classifier(3)
    model.save_pretrained(tmp_path)
    assert digest(Model.from_pretrained(tmp_path).eval(), data) == digest(model, data)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FormeryError, match="resize it, then rewrite it"):
        resize(model, 32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("system", cards.cards())
def test_every_system_is_known(system: str) -> None:
    """The smallest variant of every card has an anatomy, and folds without values; a scheme that does not say where its
    norms stand is named."""
    facts = cards.cards()[system].variants
    smallest = min(facts, key=lambda name: facts[name]["params"])
    with torch.device("meta"):
        model = Model(cards.spec_of(smallest))
    schemes = [module for module in model.modules() if isinstance(module, Scheme)]
    if any(scheme.norms_at is None for scheme in schemes):
        with pytest.raises(CannotRewrite, match="where its norms stand"):
            anatomy.of(model)
        return
    blocks = list(anatomy.of(model).blocks())
    assert len(blocks) == model.body.num_blocks()
    fold = rewrites.find("fold")
    fold.perform(model, fold.decide(model, affine=True, recentre=True, untie=True))
    assert fold.decide(model, affine=True, recentre=True, untie=True)["steps"] == []


def test_replay_is_in_order() -> None:
    """Plans performed once more on the same spec give the same structure."""
    model, data = model_of("metaformer"), inputs_for(FAMILIES["metaformer"])
    for name in ("drop", "fold", "drop"):
        options = {"unit": "joint", "count": 1} if name == "drop" else {"recentre": True}
        model, _, _ = rewrites.apply(model, name, data, **options)
    assert [plan["kind"] for plan in model.plans] == ["drop", "fold", "drop"]
    with torch.device("meta"):
        bare = Model(FAMILIES["metaformer"])
        replay(bare, model.plans)
    assert shapes(bare) == shapes(model)
    assert bare.plans == model.plans


def test_options_are_checked() -> None:
    model, data = model_of("decoder"), inputs_for(FAMILIES["decoder"])
    for name, options, message in (
        ("fold", {"scale": True}, "no option 'scale'; did you mean scales"),
        ("fold", {"scales": "yes"}, "option scales: input should be a valid boolean"),
        ("drop", {"unit": "heads", "count": 1}, "'block', 'mixer', 'channel' or 'joint'"),
        ("drop", {}, "a count or a ratio"),
        ("drop", {"count": 1, "ratio": 0.5}, "a count or a ratio"),
        ("drop", {"ratio": 1.5}, "ratio is above 0 and below 1"),
        ("drop", {"ratio": 0.1}, "drops nothing"),
        ("drop", {"count": 4}, "would leave none of 4 mixers"),
        ("drop", {"count": 1, "kinds": ["pooling"]}, "no mixer of kind .*it has attention"),
        ("drop", {"count": 1, "consecutive": True}, "consecutive goes with unit='block'"),
        ("drop", {"count": 1, "published_off_by_one": True}, "give consecutive=True"),
        ("drop", {"count": 1, "unit": "block", "residual": False}, "blocks are compared by the stream"),
    ):
        with pytest.raises(FormeryError, match=message) as refusal:
            rewrites.apply(model, name, data, **options)
        assert "\n" not in str(refusal.value)
    with pytest.raises(FormeryError, match="give it some"):
        rewrites.apply(model, "drop", unit="mixer", count=1)
    with pytest.raises(FormeryError, match="holds no batch"):
        rewrites.apply(model, "drop", [], unit="mixer", count=1)
    with pytest.raises(FormeryError, match="did you mean drop"):
        rewrites.find("dorp")
    assert model.plans == []


def test_available() -> None:
    others = {
        "reparameterize": "no part of it has parallel branches to merge",
        "tabulate": "no bias of its attention comes from a network",
    }
    assert rewrites.available(model_of("vit")) == {"drop": None, "fold": None, **others}
    found = rewrites.available(model_of("poolformer"))
    assert found["drop"] is None
    model = model_of("decoder")
    rewrites.find("fold").perform(model, rewrites.find("fold").decide(model, affine=True, recentre=True))
    assert rewrites.available(model)["fold"] == "nothing to fold"
    unknown = rewrites.available(torch.nn.Linear(2, 2))
    assert all("Linear is not known" in str(unknown.pop(name)) for name in ("drop", "fold"))
    assert unknown == others


def test_an_order_that_makes_no_sense() -> None:
    """A rewrite says which others it cannot follow, and why."""

    class Late(rewrites.find("fold")):  # type: ignore[misc]
        kind = "late"
        never_after: ClassVar = {"drop": "there is nothing left to do it on"}

    model, data = model_of("decoder"), inputs_for(FAMILIES["decoder"])
    assert Late.decide(model)["kind"] == "late"
    rewrites.apply(model, "drop", data, unit="mixer", count=1)
    for attempt in (
        lambda: Late.decide(model),
        lambda: Late.perform(model, {"kind": "late", "version": 1, "steps": []}),
    ):
        with pytest.raises(CannotRewrite, match="late cannot follow drop: there is nothing left"):
            attempt()
