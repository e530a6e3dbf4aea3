"""Parameters and MACs, against torch's own counter and against formulas."""

from __future__ import annotations

import json
from functools import partial
from io import StringIO

import tests.tvshim  # noqa: F401

import pytest
import timm
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import formery
from formery.context import NOTHING, Context
from formery.errors import BadSpec, UnknownName
from formery.measure import count_macs, count_parameters
from formery.measure.inputs import without_values
from formery.model import Model
from formery.ops import gated_delta_rule as rule
from formery.ops.linear import using
from formery.parts.mixers.mixer import Mixer

IMAGES = {"vit_tiny": (2, 3, 224, 224), "convnext_tiny": (1, 3, 64, 96), "poolformer_s12": (2, 3, 64, 64)}
HYBRID = {
    "stem": {"kind": "tokens", "dim": 32, "vocab": 64},
    "body": {
        "kind": "stack",
        "layout": "gated_deltanet*2 attention",
        "blocks": {
            "gated_deltanet": {"mixer": {"kind": "gated_deltanet", "heads": 2, "head_dim": 8}, "channel": "swiglu"},
            "attention": {"mixer": {"kind": "attention", "heads": 4, "kv_heads": 2}, "channel": "mlp"},
        },
    },
    "head": {"kind": "next_token"},
}


def torchs_count(model: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """MACs by operator, as torch's counter has them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return {str(op).rpartition(".")[2]: n // 2 for op, n in counter.get_flop_counts().get("Global", {}).items()}


@pytest.fixture(scope="module")
def decoder() -> Model:
    return formery.create_model("decoder_tiny").eval()


@pytest.mark.parametrize("name", IMAGES)
def test_images_agree_with_torchs_counter_where_every_product_is_seen(name: str) -> None:
    with torch.device("meta"):  # attention there is made of plain products, which torch's counter knows
        model = formery.create_model(name).eval()
    counted = count_macs(model, *IMAGES[name])
    assert (
        counted.total == counted.executed == sum(torchs_count(model, torch.empty(IMAGES[name], device="meta")).values())
    )


def test_a_decoder_agrees_with_torchs_counter_where_every_product_is_seen(decoder: Model) -> None:
    hollow, ids = without_values(decoder), torch.zeros(3, 40, dtype=torch.long, device="meta")
    counted = count_macs(hollow, ids)
    assert counted.total == counted.executed == sum(torchs_count(hollow, ids).values())


def test_torchs_counter_misses_fused_attention_on_a_cpu_and_nothing_else() -> None:
    model = formery.create_model("vit_tiny").eval()
    counted = count_macs(model, *IMAGES["vit_tiny"])
    attention = 2 * 12 * 2 * 3 * 64 * 197 * 197  # images x blocks x (q k, weighted v) x heads x head width x pairs
    assert counted.kinds["mixer"] == attention
    assert counted.total - attention == sum(torchs_count(model, torch.zeros(IMAGES["vit_tiny"])).values())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_tiny", "poolformer_s12"])
def test_timms_models_count_the_same_as_ours(name: str) -> None:
    theirs, shape = timm.create_model(name).eval(), (1, 3, 224, 224)
    ours = count_macs(name, *shape)
    assert count_macs(theirs, *shape).total == ours.total
    with torch.device("meta"):
        assert count_parameters(theirs).total == count_parameters(formery.create_model(name)).total


def test_the_gated_delta_rule_counts_its_recurrence_whatever_form_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "chunked", partial(rule.chunked, chunk=32))
    model = Model(HYBRID).eval()
    batch, length, layers, heads, key, value = 2, 150, 2, 2, 8, 16
    counted = count_macs(model, batch, length)
    step = 3 * key * value  # prediction, correction, reading
    short = 4 * heads * (2 * key + value)  # the convolution before q, k and v
    attention = 2 * 4 * 8 * length * length
    assert counted.kinds["mixer"] == batch * (layers * length * (heads * step + short) + attention)
    # In chunks of C tokens each costs 4 products more: k k^T, q k^T (C x C x key), and two by C x C (C x C x value).
    sizes = [min(32, length - start) for start in range(0, length, 32)]
    more = sum(2 * size * size * (key + value) for size in sizes)
    assert counted.executed - counted.total == layers * batch * heads * more
    # torch's counter knows neither fused attention on a CPU nor what is added in place (P U and the next state).
    unseen = layers * batch * heads * length * 2 * key * value + batch * attention
    assert counted.executed - unseen == sum(torchs_count(model, torch.zeros(batch, length, dtype=torch.long)).values())


def test_one_more_token_counts_what_it_looks_back_at(decoder: Model) -> None:
    state = decoder.new_state(1, 21)
    with torch.no_grad():
        decoder(torch.zeros(1, 20, dtype=torch.long), state=state)
    with_past = count_macs(decoder, torch.zeros(1, 1, dtype=torch.long), state=state)
    alone = count_macs(decoder, 1, 1)
    mixers = [mixer for _, mixer in decoder.mixers()]
    assert with_past.total - alone.total == sum(m.macs(1, 20) - m.macs(1) for m in mixers) > 0
    assert with_past.executed == with_past.total


def test_packed_sequences_count_one_by_one() -> None:
    mixer = formery.create_model("decoder_tiny").body.blocks[0].mixer

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = mixer

        def forward(self, x: Tensor) -> Tensor:
            return self.mixer(x, Context(causal=True, bounds=torch.tensor([0, 5, 12])))

    report = count_macs(Packed(), torch.zeros(1, 12, mixer.qkv.in_features))
    assert report.kinds["mixer"] == mixer.macs(5) + mixer.macs(7)


@pytest.mark.parametrize("backend", ["torch", "onednn"])
def test_every_product_of_dense_layers_is_seen(backend: str) -> None:
    layer = formery.create_model("vit_tiny").body.blocks[0].channel.eval()
    with using(backend):  # type: ignore[arg-type]
        report = count_macs(layer, torch.randn(4, 197, 192))
        with torch.inference_mode():
            inferred = count_macs(layer, torch.randn(4, 197, 192))
    assert report.total == inferred.total == 4 * 197 * 192 * 768 * 2
    assert report.kinds == inferred.kinds == {"linear": report.total}


class Doubled(Mixer):
    """Declares the same number whatever it does; holds a dense layer, which counts beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.inner = nn.Linear(4, 4, bias=False), nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: None = None) -> Tensor:  # type: ignore[override]
        return self.dense(x) @ self.inner + x @ self.dense.weight

    def macs(self, tokens: int, past: int = 0) -> int:
        return 7 * tokens


def test_a_declared_count_stands_for_all_but_dense_layers() -> None:
    report = count_macs(Doubled(), torch.zeros(2, 3, 4))
    assert report.kinds == {"linear": 2 * (2 * 3 * 4 * 4), "mixer": 2 * 3 * 7}
    assert report.executed == 3 * (2 * 3 * 4 * 4)


def test_nodes_and_modules_add_up_to_the_total() -> None:
    report = count_macs("poolformer_s12", 3, 3, 64, 64)
    assert sum(report.nodes.values()) == sum(report.kinds.values()) == report.below("") == report.total
    assert report.below("body.stages") == report.nodes["body"]
    assert report.per_item * 3 == report.total == 3 * count_macs("poolformer_s12", 1, 3, 64, 64).total


@pytest.mark.slow
def test_seven_billion_parameters_are_counted_without_memory() -> None:
    report = count_macs("olmo_hybrid_7b", 1, 64)
    with torch.device("meta"):
        model = formery.create_model("olmo_hybrid_7b")
    counted = count_parameters(model)
    assert counted.total == 7_430_870_688
    assert counted.nodes["stem"] == counted.nodes["head"] - 3840 == 100352 * 3840
    small = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    conv = 24 * 11520 * 4
    assert report.kinds["linear"] == 64 * (counted.total - counted.nodes["stem"] - small - conv)


def test_shared_weights_count_once() -> None:
    spec = {**HYBRID, "head": {"kind": "next_token", "tie": True}}
    tied, free = count_parameters(Model(spec)), count_parameters(Model(HYBRID))
    assert free.total - tied.total == 64 * 32
    assert tied.total == sum(tied.nodes.values()) == sum(p.numel() for p in Model(spec).parameters())
    assert tied.bytes == 4 * tied.total


def test_parameters_tell_trainable_ones_and_buffers_apart() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].requires_grad_(False)
    counted = count_parameters(model)
    assert (counted.total, counted.trainable) == (16 + 8, 8)
    assert counted.buffer_bytes == 4 * (4 + 4) + 8
    assert counted.nodes == {"0": 16, "1": 8}


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    before = [module.training for module in model.modules()]
    count_macs(model, 5, 3)
    assert [module.training for module in model.modules()] == before
    assert int(model[1].num_batches_tracked) == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_reports_are_json_and_tables() -> None:
    for report in (count_macs("vit_tiny"), count_parameters(formery.create_model("vit_tiny"))):
        assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
        out = StringIO()
        Console(file=out, width=120).print(report)
        assert "stem" in out.getvalue()


def test_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(UnknownName, match="vit_tiny"):
        count_macs("vit_tinny")
    with pytest.raises(BadSpec, match="any length"):
        count_macs(HYBRID)
    with pytest.raises(BadSpec, match="shape"):
        count_macs(nn.Linear(2, 2))
