"""Checks can fail: each quick one is run on something that breaks its claim."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery import cards
from formery.claims import (
    cct,
    convnext,
    decoder,
    figures,
    gtrxl,
    llm_drop,
    lmuformer,
    metaformer,
    metaformer_learning,
    olmo_hybrid,
    olmo_hybrid_learning,
    pre_rmsnorm,
    t2tvit,
    tcnca,
    verify,
    vit,
)
from formery.claims.check import Check
from formery.claims.verifying import check_of, chosen
from formery.ops import legendre_memory
from formery.ops.temporal_convolution import temporal_convolution
from formery.parts.heads.classes import Classes
from formery.parts.mixers import segment_attention
from formery.parts.mixers.attention import Attention
from formery.parts.mixers.pooling import Pooling
from formery.parts.norms.layer import Layer
from formery.parts.positions.learned import Learned
from formery.parts.schemes import gated
from formery.parts.schemes.scheme import LayerScale
from formery.parts.stems import tokens_to_token
from formery.parts.stems.patches import Patches
from formery.rewrites.checks import pre_rmsnorm as checks
from formery.rewrites.drop import Drop
from tests.unit import (
    claims_broken_caformer,
    claims_broken_convolutions,
    claims_broken_crossformer,
    claims_broken_crossvit,
    claims_broken_efficientformer,
    claims_broken_nextvit,
    claims_broken_swin,
    claims_broken_tnt,
    claims_broken_uniformer,
)
from tests.unit.claims_broken import BROKEN, Break, forgetful_cache


def pads_counted(patch: pytest.MonkeyPatch) -> None:
    """The mean at borders counts the padding."""

    def forward(self: Pooling, x: Tensor, *_: Any) -> Tensor:
        pooled = F.avg_pool2d(x.movedim(-1, 1), self.size, stride=1, padding=self.size // 2)
        return pooled.movedim(1, -1) - x

    patch.setattr(Pooling, "forward", forward)


def pooling_with_bias(patch: pytest.MonkeyPatch) -> None:
    whole = Pooling.__init__

    @wraps(whole)
    def init(self: Pooling, dim: int, **options: Any) -> None:
        whole(self, dim, **options)
        self.bias = torch.nn.Parameter(torch.full((dim,), 1e-3))

    forward = Pooling.forward
    patch.setattr(Pooling, "__init__", init)
    patch.setattr(Pooling, "forward", lambda self, x, *rest: forward(self, x, *rest) + self.bias)


def bound_to_its_size(patch: pytest.MonkeyPatch) -> None:
    whole = metaformer.create_model

    def create(name: str, **options: Any) -> Any:
        model = whole(name, **options)
        scale = options["img_size"][0] / 224
        model.head.register_forward_hook(lambda module, args, output: output * scale)
        return model

    patch.setattr(metaformer, "create_model", create)


def other_eps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Layer, "forward", lambda self, x, *_: F.layer_norm(x, self.shape, self.weight, self.bias, 0.1))


def norm_over_the_map(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Layer, "forward", lambda self, x, *_: F.layer_norm(x, x.shape[1:]) * self.weight + self.bias)


def large_scale(patch: pytest.MonkeyPatch) -> None:
    whole = LayerScale.__init__
    patch.setattr(LayerScale, "__init__", lambda self, dim, init: whole(self, dim, 100 * init))


def road_backwards(patch: pytest.MonkeyPatch) -> None:
    steps = [(name, change, published and published[::-1]) for name, change, published in convnext.STEPS]
    patch.setattr(convnext, "STEPS", tuple(steps))


def wrong_decay(patch: pytest.MonkeyPatch) -> None:
    whole = olmo_hybrid.chunked

    def chunked(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, **options: Any) -> Any:
        return whole(q, k, v, g * (1 + 1e-3), beta, state, **options)

    patch.setattr(olmo_hybrid, "chunked", chunked)


def attention_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(olmo_hybrid.system, "LAYOUT", "(gated_deltanet*2 attention*2)")


def absolute_positions(patch: pytest.MonkeyPatch) -> None:
    """Attention that looks at places as well."""
    whole = Attention.forward

    def forward(self: Attention, x: Tensor, ctx: Any = None, state: Any = None) -> Tensor:
        y = whole(self, x, ctx, state)
        places = ctx.positions if ctx.positions is not None else torch.arange(x.shape[1])
        return y + 1e-3 * places[..., None]

    patch.setattr(Attention, "forward", forward)


def scaled_patches(patch: pytest.MonkeyPatch) -> None:
    whole = Patches.forward

    def forward(self: Patches, inputs: Tensor, ctx: Any) -> Any:
        x, ctx = whole(self, inputs, ctx)
        return x * (1 + 1e-9), ctx

    patch.setattr(Patches, "forward", forward)


def wrong_card(patch: pytest.MonkeyPatch) -> None:
    card = cards.card("vit")
    facts = {name: {**facts, "macs": facts["macs"] + 1} for name, facts in card.variants.items()}
    wrong = cards.Card(card.name, card.group, {**card.data, "variants": facts})
    patch.setattr(figures.cards, "card", lambda name: wrong)


def without_places(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Learned, "forward", lambda self, x, *_: x)


def sums_without_softmax(patch: pytest.MonkeyPatch) -> None:
    def weighted(self: Classes, features: Any, ctx: Any) -> Tensor:
        assert self.weigh is not None
        return (self.weigh(features.x).sigmoid() * features.x).mean(1)

    patch.setattr(Classes, "_weighted", weighted)


def with_positions(patch: pytest.MonkeyPatch) -> None:
    """The variant keeps its table, which fits one size."""
    whole = cct.create_model
    patch.setattr(cct, "create_model", lambda name, img_size, override: whole(name, img_size=img_size))
    patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)


def hard_splits(patch: pytest.MonkeyPatch) -> None:
    """Patches that do not overlap."""
    patch.setattr(t2tvit, "soft_split", lambda x, size, stride, padding: x[:, ::stride, ::stride])


def other_padding(patch: pytest.MonkeyPatch) -> None:
    whole = tokens_to_token.soft_split
    patch.setattr(tokens_to_token, "soft_split", lambda x, *split: whole(x.roll(1, dims=2), *split))


def features_without_norm(patch: pytest.MonkeyPatch) -> None:
    """The exponent lacks half the squared length, without which products do not estimate exp(q . k)."""
    whole = t2tvit.positive_features

    def features(x: Tensor, draws: Tensor) -> Any:
        found, largest = whole(x, draws)
        return found * (x.square().sum(-1, keepdim=True) / 2).exp(), largest

    patch.setattr(t2tvit, "positive_features", features)


def hardly_trained(patch: pytest.MonkeyPatch) -> None:
    whole = metaformer_learning.trained
    patch.setattr(metaformer_learning, "trained", lambda *args, **options: whole(*args, **(options | {"steps": 4})))


def not_recentred(patch: pytest.MonkeyPatch) -> None:
    from formery.parts import affine

    patch.setattr(affine, "recentre_table", lambda table: None)


def plain_rms(patch: pytest.MonkeyPatch) -> None:
    """The last channel forgotten instead of derived."""
    from formery.claims.compression import Compressed

    patch.setattr(Compressed, "forward", lambda self, x, *_: F.rms_norm(x, x.shape[-1:], None, self.eps))


def ranked_backwards(patch: pytest.MonkeyPatch) -> None:
    from formery.rewrites import similarity

    whole = similarity.of_sublayers
    patch.setattr(similarity, "of_sublayers", lambda *args: {k: -v for k, v in whole(*args).items()})


def nothing_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Drop, "perform", lambda model, plan: None)


def attention_with_bias(patch: pytest.MonkeyPatch) -> None:
    whole = llm_drop.build

    def build(role: str, node: Any, dim: int) -> Any:
        return whole(role, node | {"bias": True} if role == "mixer" else node, dim)

    patch.setattr(llm_drop, "build", build)


def recentred_once(patch: pytest.MonkeyPatch) -> None:
    """Weights that are recentred before the training, and not again after its steps."""
    whole, first = checks.on_the_fly, {}

    def on_the_fly(parameters: dict[str, Tensor], step: Any) -> dict[str, Tensor]:
        first.update(whole(parameters, step) if not first else {})
        return first

    patch.setattr(checks, "on_the_fly", on_the_fly)


def slow_norm(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checks, "cost_of_norms", lambda: {"rms": 1.2, "layer": 1.0, "ratio": 1.2})


def other_window(patch: pytest.MonkeyPatch) -> None:
    whole = legendre_memory.readout
    patch.setattr(legendre_memory, "readout", lambda order, delays: whole(order, 1 - delays))


def forgetful_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(legendre_memory, "trajectory", lambda memory, tables, length: 0 * memory[:, :, None])


def late_gates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gated.GRU, "forward", lambda self, x, y: x + y)


def past_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(segment_attention, "last_tokens", lambda past, x, lengths: torch.zeros_like(past))


def one_tap_more(patch: pytest.MonkeyPatch) -> None:
    def shifted(x: Tensor, *args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        y, tail = temporal_convolution(x, *args, **more)
        return y.roll(1, dims=1), tail

    patch.setattr("formery.parts.mixers.temporal_convolution.temporal_convolution", shifted)


def chunks_elsewhere(patch: pytest.MonkeyPatch) -> None:
    module = "formery.parts.mixers.gated_chunk_attention"
    patch.setattr(f"{module}.along_rows", lambda rows, x, ctx, state: rows(x.roll(3, dims=1), ctx, state, None))


BREAKS: list[tuple[Check, Break]] = [
    *BROKEN,
    *claims_broken_caformer.BROKEN,
    *claims_broken_nextvit.BROKEN,
    *claims_broken_crossvit.BROKEN,
    *claims_broken_efficientformer.BROKEN,
    *claims_broken_crossformer.BROKEN,
    *claims_broken_swin.BROKEN,
    *claims_broken_tnt.BROKEN,
    *claims_broken_uniformer.BROKEN,
    *claims_broken_convolutions.BROKEN,
    (metaformer.identity_trains, hardly_trained),
    (metaformer.constant_map, pads_counted),
    (metaformer.constant_map, pooling_with_bias),
    (metaformer.zero_parameters, pooling_with_bias),
    (metaformer.any_size, bound_to_its_size),
    (cct.sequence_pooling, sums_without_softmax),
    (cct.any_size, with_positions),
    (convnext.layouts_agree, other_eps),
    (convnext.translation, norm_over_the_map),
    (convnext.near_identity, large_scale),
    (convnext.roadmap, road_backwards),
    (olmo_hybrid.chunks, wrong_decay),
    (olmo_hybrid.chunks, forgetful_cache),
    (olmo_hybrid.cache, attention_twice),
    (decoder.streams, forgetful_cache),
    (decoder.relative_positions, absolute_positions),
    (vit.patches_are_dense, scaled_patches),
    (vit.figures, wrong_card),
    (vit.positions_alone_order, without_places),
    (pre_rmsnorm.exact, not_recentred),
    (pre_rmsnorm.mean_of_stream, not_recentred),
    (pre_rmsnorm.compression, plain_rms),
    (pre_rmsnorm.others, not_recentred),
    (pre_rmsnorm.training, recentred_once),
    (pre_rmsnorm.cost, slow_norm),
    (llm_drop.planted, ranked_backwards),
    (llm_drop.identity, ranked_backwards),
    (llm_drop.decoding, forgetful_cache),
    (llm_drop.savings, nothing_dropped),
    (llm_drop.llama_layer, attention_with_bias),
    (lmuformer.window, other_window),
    (lmuformer.recurrence, forgetful_memory),
    (gtrxl.identity, late_gates),
    (gtrxl.segments, past_forgotten),
    (t2tvit.overlap, hard_splits),
    (t2tvit.split_is_convolution, other_padding),
    (t2tvit.performer_approximates, features_without_norm),
    (tcnca.reach, one_tap_more),
    (tcnca.ring_buffers, one_tap_more),
    (tcnca.chunks, chunks_elsewhere),
]


@pytest.mark.parametrize(("check", "broken"), BREAKS, ids=[f"{c.__name__}-{b.__name__}" for c, b in BREAKS])
def test_a_broken_claim_is_found(check: Check, broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    found = check()
    assert not found.passed
    assert found.said


def test_every_quick_check_is_broken() -> None:
    """Those of slow claims train for minutes; `figures` are one check for all cards, broken on one."""
    quick = {check_of(claim) for _, claim in chosen() if not claim.get("slow") and claim["id"] != "figures"}
    assert quick <= {check for check, _ in BREAKS}


def accuracies(found: dict[str, float]) -> Any:
    """Trainings that end with these accuracies, by the first mixer."""
    return lambda mixers, seed: found["attention" if "attention" in mixers else mixers[0]]


@pytest.mark.parametrize(("pooling", "identity", "passes"), [(0.5, 0.25, True), (0.25, 0.25, False), (0.2, 0.3, False)])
def test_what_decides_between_mixers(
    monkeypatch: pytest.MonkeyPatch, pooling: float, identity: float, passes: bool
) -> None:
    found = {"pooling": pooling, "identity": identity, "attention": identity}
    monkeypatch.setattr(metaformer_learning, "on_relations", accuracies(found))
    assert metaformer.pooling_over_identity().passed is passes
    assert metaformer.attention_in_late_stages().passed is (identity > pooling)


@pytest.mark.parametrize(("negative", "positive", "passes"), [(0.97, 0.5, True), (0.9, 0.5, False), (1.0, 0.7, False)])
def test_what_decides_about_parity(
    monkeypatch: pytest.MonkeyPatch, negative: float, positive: float, passes: bool
) -> None:
    monkeypatch.setattr(olmo_hybrid_learning, "learned", lambda spec, *_, **__: spec)
    reads = {True: negative, False: positive}
    monkeypatch.setattr(
        olmo_hybrid_learning, "accuracy", lambda spec, *_, **__: reads[spec["body"]["mixer"]["negative"]]
    )
    assert olmo_hybrid_learning.parity_of_bits().passed is passes


def test_the_clock_decides_about_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    for ratio in (0.8, 1.2):
        monkeypatch.setattr(checks, "cost_of_norms", lambda r=ratio: {"rms": r, "layer": 1.0, "ratio": r})
        found = pre_rmsnorm.cost()
        assert found.passed is (ratio < 1)
        assert bool(found.note) is not found.passed


def test_a_broken_check_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(**_: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(vit, "patches_are_dense", breaks)
    results = verify(["vit"], claims=["patches", "order"])
    assert [r["verdict"] for r in results] == ["broken", "passed"]
    assert results[0]["note"] == "RuntimeError: two lines"
