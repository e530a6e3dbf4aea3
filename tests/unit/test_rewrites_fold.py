"""Fold: what goes where, what stays and why; exact for every registered part that declares readers and writers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from formery import registry, rewrites
from formery.context import NOTHING
from formery.errors import BadSpec, CannotRewrite
from formery.model import Model
from formery.parts import affine
from formery.parts.norms.batch import Batch
from formery.parts.norms.layer import Layer
from formery.parts.norms.rms import RMS
from formery.parts.schemes.scheme import LayerScale
from formery.rewrites.checks import small
from tests.unit.rewrites_families import ATTENTION, FAMILIES, HEAD, STEM, TEXT, error, inputs_for, model_of

fold = rewrites.find("fold")


def folded(model: Model, **options: Any) -> dict[str, Any]:
    """Fold in place, exactly; the plan."""
    data = inputs_for(model.resolved)
    with torch.no_grad():
        before = model(data)
        plan = fold.decide(model, **options)
        fold.perform(model, plan)
        assert error(model(data), before) < 1e-10
    return plan


def done(plan: dict[str, Any]) -> list[str]:
    return [step["do"] for step in plan["steps"]]


def why(plan: dict[str, Any], where: str) -> str:
    """The one reason given for a place."""
    (reason,) = [refusal["why"] for refusal in plan["refused"] if refusal["where"] == where]
    return reason


# ------------------------------------------------------------------------------------------------ one layer


LAYERS = {
    "linear": lambda bias: nn.Linear(6, 8, bias=bias),
    "1d": lambda bias: nn.Conv1d(6, 8, 3, bias=bias),
    "2d": lambda bias: nn.Conv2d(6, 8, (2, 3), stride=2, bias=bias),
    "grouped": lambda bias: nn.Conv2d(6, 8, 3, groups=2, bias=bias),
    "depthwise": lambda bias: nn.Conv2d(6, 6, 3, groups=6, bias=bias),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
@torch.no_grad()
def test_affine_maps_of_layers(kind: str, bias: bool) -> None:
    """Into a layer from behind and from in front, with and without a shift."""
    axes = {"linear": 0, "1d": 1}.get(kind, 2)
    layer = LAYERS[kind](bias).double()
    outputs = layer.weight.shape[0]
    x = torch.randn(2, 6, *(9,) * axes, dtype=torch.float64) if axes else torch.randn(5, 6, dtype=torch.float64)

    def along(v: torch.Tensor) -> torch.Tensor:
        return v.view(-1, *(1,) * axes)

    s, t = torch.randn(2, outputs, dtype=torch.float64)
    for shift in (None, t):
        wanted = layer(x) * along(s) + (0 if shift is None else along(shift))
        affine.after(layer, s, shift)
        torch.testing.assert_close(layer(x), wanted)
    s, t = torch.randn(2, 6, dtype=torch.float64)
    for shift in (None, t):
        wanted = layer(x * along(s) + (0 if shift is None else along(shift)))
        affine.before(layer, s, shift)
        torch.testing.assert_close(layer(x), wanted)


def test_layers_without_bias_get_none_for_a_mere_factor() -> None:
    layer = nn.Linear(3, 3, bias=False)
    affine.before(layer, torch.ones(3))
    affine.after(layer, torch.ones(3))
    assert layer.bias is None
    affine.after(layer, torch.ones(3), torch.arange(3.0))
    assert layer.bias is not None
    assert layer.bias.tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------------------ every part


VIDEO = {"kind": "conv", "size": [1, 4, 4], "stride": [1, 4, 4], "padding": 0, "img_size": 16, "frames": 4}


def _spec(role: str, name: str, options: dict[str, Any], rank: int, norm: Any) -> dict[str, Any]:
    """A model of two blocks around a part; its own channel mixer where the part is a mixer."""
    part = {"kind": name, **options}
    block = {"mixer": part} if role == "mixer" else {"mixer": ATTENTION, "channel": part}
    scheme = {"kind": "pre", "norm": norm, "scale": 0.1}
    stem = TEXT if rank == 1 else (STEM if rank == 2 else VIDEO) | {"dim": 32}
    position = "learned" if rank == 1 else None
    body = {"kind": "stack", "layout": "b*2", "blocks": {"b": block | {"scheme": scheme}}, "position": position}
    return {"stem": stem, "body": body, "head": {"kind": "classes", "num_classes": 5}}


PARTS = [
    (role, name, number)
    for role in ("mixer", "channel")
    for name in registry.index(role)
    for number in range(len(registry.find(role, name).EXAMPLES))
]


@pytest.mark.parametrize(("role", "name", "number"), PARTS)
def test_every_part(role: str, name: str, number: int) -> None:
    """Whatever a part declares to read and write can be folded into; a part that declares nothing keeps its scale."""
    options = dict(registry.find(role, name).EXAMPLES[number])
    tried = 0
    for rank, norm in itertools.product((1, 2, 3), ("layer", "batch")):
        if rank == 3 and tried:
            break
        try:
            model = small.drawn(_spec(role, name, options, rank, norm))
        except BadSpec:
            continue  # not on this grid
        tried += 1
        data = small.tokens(2, 32) if rank == 1 else small.images(2)
        if rank == 3:
            data = data[:, :, None].expand(-1, -1, 4, -1, -1) + torch.arange(4.0)[:, None, None]
        with torch.no_grad():
            before = model(data)
            plan = fold.decide(model, affine=True, recentre=True)
            fold.perform(model, plan)
            assert error(model(data), before) < 1e-10
        kept = [refusal for refusal in plan["refused"] if refusal["what"] == "layer scale"]
        assert bool(kept) is not (len(model.body.blocks[0].get_submodule(role).writes) == 1)
    assert tried


# ------------------------------------------------------------------------------------------------ layer scales


def test_scales_go_into_writers() -> None:
    model = model_of("metaformer")
    plan = folded(model, batch_norms=False)
    assert done(plan) == ["scale_into_writer"] * 6
    assert why(plan, "body.stages.0.blocks.0.scheme.scales.0") == "pooling declares no linear that writes"
    kept = [name for name, module in model.named_modules() if isinstance(module, LayerScale)]
    assert kept == [f"body.stages.0.blocks.{i}.scheme.scales.0" for i in (0, 1)]


def test_scale_of_a_block_with_one_residual() -> None:
    model = model_of("convnext")
    plan = folded(model)
    assert [step["into"] for step in plan["steps"]][:2] == [
        "body.stages.0.blocks.0.channel.reduce",
        "body.stages.0.blocks.1.channel.reduce",
    ]
    assert not any(isinstance(module, LayerScale) for module in model.modules())


@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_scale_behind_a_norm(norm: str) -> None:
    """A norm on what is written takes the scale into its weight and bias; a batch norm goes on into the writer."""
    scheme = {"kind": "reordered", "norm": norm, "scale": 0.1}
    body = {"kind": "stack", "depth": 2, "mixer": ATTENTION, "scheme": scheme}
    model = small.drawn({"stem": TEXT, "body": body, "head": HEAD})
    plan = folded(model)
    assert done(plan) == ["scale_into_norm"] * 4 + (["batch_norm_into_writer"] * 4 if norm == "batch" else [])


def test_shared_weights_are_left_alone() -> None:
    """A writer that two blocks share cannot take the scale of one of them."""
    model = model_of("vit scaled")
    model.body.blocks[1].channel.reduce.weight = model.body.blocks[0].channel.reduce.weight
    plan = folded(model)
    assert "shares its weights with body.blocks.1.channel.reduce" in why(plan, "body.blocks.0.scheme.scales.1")


def test_foreign_linears_are_left_alone() -> None:
    """A subclass of Linear, or one with a parametrization, may do more than its weight says."""

    class Louder(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).abs()

    model = model_of("vit scaled")
    old = model.body.blocks[0].channel.reduce
    model.body.blocks[0].channel.reduce = Louder(old.in_features, old.out_features).double()
    torch.nn.utils.parametrizations.weight_norm(model.body.blocks[1].channel.reduce)
    plan = folded(model)
    assert "is a Louder" in why(plan, "body.blocks.0.scheme.scales.1")
    assert "no plain linear" in why(plan, "body.blocks.1.scheme.scales.1")


# ------------------------------------------------------------------------------------------------ batch norms


def test_batch_norms_of_a_whole_vit() -> None:
    model = model_of("vit batch")
    plan = folded(model)
    assert done(plan).count("batch_norm_into_writer") == 1  # the stem's, into a convolution that had no bias
    assert done(plan).count("batch_norm_into_readers") == 6
    assert model.stem.norm is None
    assert model.stem.conv.bias is not None
    assert [name for name, m in model.named_modules() if isinstance(m, Batch)] == ["head.norm"]
    assert "the classifier behind it may be exchanged" in why(plan, "head.norm")


@pytest.mark.parametrize(("size", "padding"), [(2, 0), (3, 1), (1, 0)])
def test_batch_norm_before_a_merge(size: int, padding: int) -> None:
    """Never across zero padding: a shift of the zeros beyond the border would be missing."""
    merge = {"kind": "conv", "size": size, "padding": padding, "norm": "batch", "bias": False}
    body = {"kind": "pyramid", "dims": [16, 24], "depths": [1, 1], "mixer": "pooling", "merge": merge}
    model = small.drawn({"stem": STEM, "body": body, "head": HEAD})
    plan = folded(model)
    if padding:
        assert "pads with zeros" in why(plan, "body.stages.1.merge.norm")
    else:
        assert done(plan) == ["batch_norm_into_readers"]
        assert model.body.stages[1].merge.norm is None


def test_batch_norms_that_stay() -> None:
    """Before a mixer that declares no readers, on the sum, and where the folded bias would miss the prefix."""
    pre = {"kind": "pre", "norm": "batch"}
    model = small.drawn(
        {"stem": STEM, "body": {"kind": "stack", "depth": 1, "mixer": "pooling", "scheme": pre}, "head": HEAD}
    )
    plan = folded(model)
    assert "pooling declares no linears" in why(plan, "body.blocks.0.scheme.norms.0")
    post = {"kind": "post", "norm": "batch"}
    body = {"kind": "stack", "depth": 1, "mixer": ATTENTION, "scheme": post}
    plan = folded(small.drawn({"stem": TEXT, "body": body, "head": HEAD}))
    assert "sum with the residual stream" in why(plan, "body.blocks.0.scheme.norms.0")
    conv = {"kind": "depthwise_conv", "size": 3}
    body = {"kind": "stack", "depth": 1, "mixer": conv, "scheme": {"kind": "reordered", "norm": "batch"}, "prefix": 1}
    plan = folded(small.drawn({"stem": STEM, "body": body, "head": HEAD}))
    assert "zeros for some tokens" in why(plan, "body.blocks.0.scheme.norms.0")
    assert done(plan) == ["batch_norm_into_writer"]  # the channel mixer's


def test_batch_norm_before_a_padded_depthwise_convolution() -> None:
    """Its own forward pads, though its module does not say so."""
    conv = {"kind": "depthwise_conv", "size": 3, "axes": 1}
    body = {"kind": "stack", "depth": 1, "mixer": conv, "scheme": {"kind": "pre", "norm": "batch"}}
    plan = folded(small.drawn({"stem": TEXT, "body": body, "head": HEAD}))
    assert "declares no linears or 1x1 convolutions" in why(plan, "body.blocks.0.scheme.norms.0")


def test_a_fold_clears_the_way_for_another() -> None:
    """Once the stem's batch norm is in its convolution, the stream is written by linears alone."""
    spec = small.vit() | {"stem": {**small.vit()["stem"], "norm": "batch"}}
    plan = folded(small.drawn(spec), recentre=True)
    assert done(plan) == ["batch_norm_into_writer", "recentre"]
    plan = folded(small.drawn(spec), recentre=True, batch_norms=False)
    assert why(plan, "stem.norm") == "the stream begins with the output of a Batch norm"


# ------------------------------------------------------------------------------------------------ weights of norms


def test_affine() -> None:
    model = model_of("decoder")
    plan = folded(model, affine=True)
    assert done(plan) == ["affine_into_readers"] * 8
    norms = [m for m in model.modules() if isinstance(m, RMS)]
    assert [norm.weight is None for norm in norms] == [True] * 8 + [False]  # the head's stays
    assert model.body.blocks[0].channel.expand.bias is None  # an RMS norm has no bias to give


def test_affine_with_bias_gives_one() -> None:
    spec = small.decoder("layer", position="learned")
    spec["body"]["mixer"]["bias"] = False
    model = small.drawn(spec)
    folded(model, affine=True)
    assert model.body.blocks[0].mixer.qkv.bias is not None


# ------------------------------------------------------------------------------------------------ recentring


def test_recentring_stages_of_a_pyramid() -> None:
    """A stage of attention between convolutions can be recentred, one of pooling cannot."""
    model = model_of("metaformer")
    plan = folded(model, recentre=True)
    assert [step["stage"] for step in plan["steps"] if step["do"] == "recentre"] == ["body.stages.1"]
    assert why(plan, "body.stages.0.blocks.0.mixer") == "pooling declares no linear that writes"
    assert isinstance(model.head.norm, RMS)
    assert isinstance(model.body.stages[0].blocks[0].scheme.norms[0], Layer)


def test_recentring_keeps_pooled_features() -> None:
    """With a norm after pooling the stream may still be recentred; with the maximum it may not."""
    for pool, possible in (("avg", True), ("max", False)):
        head = {"kind": "classes", "num_classes": 3, "pool": pool, "order": "pool_norm"}
        model = small.drawn(small.vit() | {"head": head})
        plan = folded(model, recentre=True)
        assert bool(plan["steps"]) is possible
        if not possible:
            assert why(plan, "body") == "the head takes the maximum over it before its norm"


@pytest.mark.parametrize(
    ("family", "where", "reason"),
    [
        ("post", "body.blocks.0", "in the scheme 'post' the stream is not read through norms"),
        ("convnext", "stem.norm", "begins with the output of a Layer norm"),
        ("convnext", "body.stages.1.blocks.0.mixer", "depthwise_conv reads the stream without a norm"),
        ("poolformer", "body.stages.0.blocks.0.scheme.norms.0", "is a GroupOne norm, no layer norm"),
        ("merged", "body.stages.1.merge.norm", "norms several tokens together"),
    ],
)
def test_streams_that_keep_their_mean(family: str, where: str, reason: str) -> None:
    assert reason in why(folded(model_of(family), recentre=True), where)


def test_more_streams_that_keep_their_mean() -> None:
    base = small.vit()
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"body": base["body"] | {"position": "sincos"}}, "body.position", "SinCos positions, which are no weights"),
        ({"head": {"kind": "classes", "num_classes": 3, "norm": None}}, "body", "the head reads it without a norm"),
        ({"head": {"kind": "features"}}, "body", "gives it out"),
        ({"body": base["body"] | {"scheme": {"kind": "pre", "norm": None}}}, "body.blocks.0.mixer", "without a norm"),
    ]
    for change, where, reason in cases:
        plan = fold.decide(small.drawn(base | change), recentre=True)
        assert "recentre" not in done(plan)
        assert reason in why(plan, where)
    plan = fold.decide(model_of("vit scaled"), recentre=True, scales=False)
    assert "fold it as well" in why(plan, "body.blocks.0.scheme.scales.0")


def test_nothing_is_said_of_streams_that_have_no_mean() -> None:
    """Models of RMS norms have nothing to refuse."""
    assert fold.decide(model_of("decoder"), recentre=True)["refused"] == []


def test_folding_keeps_what_the_optimizer_holds() -> None:
    """Weights change in place: ties, devices and references stay."""
    model = model_of("vit scaled")
    held = dict(model.named_parameters())
    folded(model, recentre=True)
    assert all(parameter is held[name] for name, parameter in model.named_parameters())
    model(inputs_for(FAMILIES["vit"]), ctx=NOTHING).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_no_one_knows_is_refused() -> None:
    class Unknown(nn.Module):
        pass

    for change, message in (
        (lambda model: setattr(model, "body", Unknown()), "body: rewrites do not know the body 'Unknown'"),
        (lambda model: model.body.blocks.insert(1, Unknown()), "body.blocks.1: rewrites do not know the block Unknown"),
        (
            lambda model: setattr(model.body.blocks[0], "scheme", Unknown()),
            "'Unknown' does not say where its norms",
        ),
    ):
        model = model_of("vit")
        change(model)
        with pytest.raises(CannotRewrite, match=message):
            fold.decide(model)


# ------------------------------------------------------------------------------------------------ several streams


def test_branches_are_recentred_with_what_they_tell_each_other() -> None:
    """One stream a branch, through all stages: class tokens come into the other's, and back, through dense layers."""
    model = model_of("branches")
    plan = folded(model, recentre=True)
    first, second = (step for step in plan["steps"] if step["do"] == "recentre")
    assert plan["refused"] == []
    assert first["stage"] == "body.stages.0.branches.0"
    assert {f"body.stages.{i}.returning.0.dense" for i in (0, 1)} <= set(first["dense"])
    assert {f"body.stages.{i}.fusions.1.mixer.out" for i in (0, 1)} <= set(first["dense"])
    assert {"body.stages.1.leaving.0.norm", "body.stages.1.returning.1.norm", "head.norm.0"} <= set(first["norms"])
    assert not set(first["dense"] + first["norms"]) & set(second["dense"] + second["norms"])
    assert not any(isinstance(module, Layer) for module in model.modules())


def test_a_branch_that_must_keep_its_mean_leaves_the_other_alone() -> None:
    model = model_of("branches")
    model.head.norm[1] = Batch(12).double().eval()
    plan = folded(model, recentre=True)
    assert [step["stage"] for step in plan["steps"] if step["do"] == "recentre"] == ["body.stages.0.branches.0"]
    assert "is a Batch norm" in next(r["why"] for r in plan["refused"] if r["what"] == "mean of the stream")


def test_batch_norms_of_a_head_of_branches() -> None:
    spec = FAMILIES["branches"]
    plan = folded(small.drawn(spec | {"head": spec["head"] | {"norm": "batch"}}), classifier=True)
    norms = {step["norm"]: step["into"] for step in plan["steps"] if step["do"] == "batch_norm_into_readers"}
    assert norms == {f"head.norm.{b}": [f"head.fc.{b}"] for b in (0, 1)}


def test_a_tensor_that_goes_to_all_branches_is_one_stream() -> None:
    """That of the branches without a merge, which a merge reads through its norm; behind it begins another."""
    model = model_of("forked")
    plan = folded(model, recentre=True)
    shared, merged = plan["steps"]
    assert {"stem.conv", "body.branches.0.blocks.0.mixer.out", "body.branches.1.blocks.1.mixer.out"} < set(
        shared["dense"]
    )
    assert {"body.branches.2.merge.norm", "head.norm.0", "head.norm.1"} < set(shared["norms"])
    assert merged["norms"][-1] == "head.norm.2"
    model = model_of("forked")
    model.body.branches[2].merge.norm = None
    plan = folded(model, recentre=True)
    assert len(plan["steps"]) == 1
    assert why(plan, "body.branches.0") == "body.branches.2.merge reads it without a norm (conv)"


def test_words_and_tokens() -> None:
    """Words are normed alone and a token's all together, so they keep their mean; so do tokens where they begin with
    what a layer norm gives, but not where that is a batch norm, which goes into the dense layer before it."""
    plan = folded(model_of("nested by words"), affine=True, recentre=True)
    assert set(done(plan)) == {"scale_into_writer", "affine_into_readers"}
    assert len(plan["steps"]) == 16
    assert "normed together" in why(plan, "body.enter")
    assert "the output of a Layer norm" in why(plan, "body.enter.out_norm")
    plan = folded(model_of("nested"), affine=True, recentre=True)
    assert [step["stage"] for step in plan["steps"] if step["do"] == "recentre"] == ["body.outer"]
    assert "normed together" in why(plan, "body.enter")


def test_batch_norms_of_joins() -> None:
    """In front of the dense layer and behind it; that of each word alone has fewer channels than the layer reads."""
    plan = folded(model_of("nested"))
    assert done(plan).count("batch_norm_into_readers") == done(plan).count("batch_norm_into_writer") == 3
    model = small.drawn(FAMILIES["nested by words"] | {"body": FAMILIES["nested by words"]["body"] | {"norm": "batch"}})
    plan = folded(model)
    assert done(plan).count("batch_norm_into_readers") == done(plan).count("batch_norm_into_writer") == 1
    assert "no neighbour" in why(plan, "body.joins.0.norm")


def test_batch_norm_behind_zeros() -> None:
    """What class attention gives tokens that ask nothing is zero, which a norm shifts and a bias does not."""
    mixer, scheme = {"kind": "class_attention", "heads": 2}, {"kind": "reordered", "norm": "batch"}
    body = {"kind": "stack", "depth": 1, "mixer": mixer, "scheme": scheme, "prefix": 1}
    plan = folded(small.drawn({"stem": STEM, "body": body, "head": HEAD}))
    assert done(plan) == ["batch_norm_into_writer"]
    assert "zeros for some tokens" in why(plan, "body.blocks.0.scheme.norms.0")
