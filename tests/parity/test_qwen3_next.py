"""Qwen3-Next under published weights: recorded outputs, and transformers' own model beside ours, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before transformers

import pytest
import torch
import transformers
from torch import Tensor
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

import formery
from formery.context import NOTHING, State
from formery.errors import BadSpec, BadWeights, CannotExport
from formery.interop.transformers import config_of, load, save, spec_from_config
from formery.model import Model
from formery.parts.channels.mixture_of_experts import BALANCE
from formery.runtime.generate import generate
from formery.spec import override
from tests import goldens
from tests.parity.agreement import WANTED, assert_same, error, randomised, saved, scores_agree, weights_go_back

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 128,
}
STRETCHED = {"rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
OTHERS: dict[str, dict[str, Any]] = {
    "as released": {},
    "other sizes": {
        "linear_value_head_dim": 6,
        "linear_num_value_heads": 6,
        "linear_conv_kernel_dim": 3,
        "num_attention_heads": 6,
        "head_dim": 16,
        "rms_norm_eps": 1e-3,
        "shared_expert_intermediate_size": 24,
    },
    "weights as they are": {"norm_topk_prob": False, "tie_word_embeddings": True},
    "some layers dense": {"decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "stretched as Llama 3": {
        "rope_parameters": STRETCHED | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
    "stretched by YaRN": {"head_dim": 16, "rope_parameters": STRETCHED | {"rope_type": "yarn"}},
    "stretched by YaRN, in full": {
        "rope_parameters": STRETCHED
        | {"rope_type": "yarn", "partial_rotary_factor": 1.0, "attention_factor": 1.3, "beta_fast": 4.0},
    },
    "attention first": {
        "layer_types": ["full_attention", "linear_attention", "linear_attention", "full_attention"],
        "attention_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5},
    },
}


def test_recorded_outputs() -> None:
    golden = "qwen3_next_tiny"
    facts = goldens.facts(golden)
    theirs = goldens.state_from(facts["tensors"])
    model = Model(spec_from_config({"model_type": "qwen3_next", **SIZES})).eval()
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    ids = goldens.tokens((2, 66), 64)

    def outputs() -> dict[str, Tensor]:
        state, tails = model.new_state(2, 66), []
        with torch.no_grad():
            for chunk in (ids[:, :61], ids[:, 61:62]):
                model(chunk, state=state)
                mixer = state.parts.under("blocks.0.mixer")
                assert isinstance(mixer, State)
                tails.append(mixer.slot("tail").value.clone())
            memory = mixer.slot("memory").value.clone()
            steps = [model(ids[:, i : i + 1], state=state) for i in range(62, 66)]
            whole = model(ids)
        return {
            "logits": whole,
            "decode_logits": torch.cat(steps, dim=1),
            "layer0.conv_states": torch.cat([tails[0][:, :1], tails[1]], dim=1).mT,
            "layer0.recurrent_states": memory,
        }

    assert goldens.worst_error(golden, outputs()) < 4e-5  # measured 2.9e-5
    model.double()  # measured 6.1e-5; transformers' own model in float64, its recurrence apart, is 6.7e-5 off
    assert goldens.worst_error(golden, outputs()) < 1e-4
    model.float()
    assert_same(model.to_published("transformers"), theirs)


@pytest.mark.parametrize("name", OTHERS)
def test_beside_transformers(name: str, tmp_path: Path) -> None:
    """A folder in shards loads with equal scores, whole, streamed and padded; saved, transformers opens it again."""
    peer = randomised(Qwen3NextForCausalLM(Qwen3NextConfig(**SIZES | OTHERS[name])))
    folder = saved(peer, tmp_path / "theirs", max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    model = load(folder).eval()
    ids = scores_agree(model, peer, positions=True)
    with torch.no_grad():
        ours = [one.tokens for one in generate(model, ids, max_new_tokens=5, end=[])]
        assert peer.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)[:, 19:].tolist() == ours
    save(model, tmp_path / "ours")
    again = Qwen3NextForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert error(again(ids).logits, peer(ids).logits) < WANTED
    weights_go_back(model, peer, ids)
    assert load(tmp_path / "ours").resolved == model.resolved
    assert (
        "model.layers.0.mlp.experts.0.gate_proj.weight" in model.to_published("transformers_files") or "dense" in name
    )


@pytest.mark.parametrize("change", [{"gain": 1.0}, {"factor": 1.0}], ids=["gain", "factor"])
def test_what_yarn_does_is_seen(change: dict[str, float], tmp_path: Path) -> None:
    """Its gain and its slower turning move scores by far more than the tests above allow."""
    peer = randomised(Qwen3NextForCausalLM(Qwen3NextConfig(**SIZES | OTHERS["stretched by YaRN"])))
    model = load(saved(peer, tmp_path)).eval()
    changes = {f"body.blocks.3.mixer.position.{option}": value for option, value in change.items()}
    other = Model(override(model.resolved, changes)).eval()
    other.load_state_dict(model.state_dict())
    ids = torch.randint(3, 64, (2, 19))
    with torch.no_grad():
        assert error(other(ids), peer(ids).logits) > 100 * WANTED


def test_what_the_prediction_layer_of_files_is() -> None:
    model = Model(spec_from_config({"model_type": "qwen3_next", **SIZES}))
    theirs = model.to_published("transformers_files")
    assert model.load_published(theirs | {"mtp.norm.weight": torch.zeros(32)}) == []
    short = {n: t for n, t in theirs.items() if "experts.3.down" not in n}
    with pytest.raises(BadWeights, match=r"experts\.3\.down_proj\.weight is missing"):
        model.load_published(short)
    wrong = theirs | {"model.layers.0.linear_attn.in_proj_ba.weight": torch.zeros(10, 32)}
    with pytest.raises(BadWeights, match=r"in_proj_ba\.weight has 10 rows, 8 are needed"):
        model.load_published(wrong)


def test_balance_is_that_of_transformers() -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import load_balancing_loss_func

    model = randomised(Model(spec_from_config({"model_type": "qwen3_next", **SIZES})))
    assert isinstance(model, Model)
    mixture, x = model.body.blocks[0].channel, torch.randn(2, 9, 32)
    padding = torch.zeros(2, 9, dtype=torch.bool)
    padding[1, :4] = True
    for given in (None, padding):
        losses: list[Tensor] = []
        mixture(x, NOTHING.but(record={BALANCE: losses}, padding=given))
        mask = None if given is None else (~given).long()
        wanted = load_balancing_loss_func((mixture.router(x.flatten(0, 1)),), 4, 2, mask)
        torch.testing.assert_close(losses[0] * 2, torch.as_tensor(wanted))  # they sum over the 2 choices


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["a"] * 4}, "layer_types: 4 times"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' needs factor and original_max_position"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "rope_type: .*'longrope'"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": None}}, "rope_theta: .* got null"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_configs_that_cannot_be_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        spec_from_config({"model_type": "qwen3_next", **SIZES} | change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body.blocks.0.mixer.negative": True}, "negative would be false"),
        ({"body.blocks.3.mixer.gated": False}, "it differs in body.blocks.3.mixer.qkv"),
        ({"body.blocks.1.channel.top": 3}, "top would be 2, here it is 3"),
        ({"body.blocks.3.mixer.position": None}, "rope_theta: .* got null"),
        ({"body.blocks.*.scheme.norm": "rms"}, "norm"),
    ],
)
def test_what_transformers_has_no_model_for(changes: dict[str, Any], message: str) -> None:
    with torch.device("meta"):
        model = formery.create_model("qwen3_next_tiny", override=changes)
    with pytest.raises(CannotExport, match=message):
        config_of(model)
