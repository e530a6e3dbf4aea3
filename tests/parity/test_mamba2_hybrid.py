"""Mamba-2-Hybrid beside transformers' `nemotron_h`: checkpoints load and save, with equal scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before transformers

import pytest
import torch
import transformers
from torch import nn
from transformers import NemotronHConfig, NemotronHForCausalLM

import formery
from formery.errors import BadSpec, CannotExport
from formery.interop.transformers import config_of, load, spec_from_config
from tests.parity.agreement import (
    WANTED,
    computes_there,
    config_comes_back,
    error,
    randomised,
    saved,
    scores_agree,
    weights_go_back,
)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "intermediate_size": 48,
    "ssm_state_size": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "chunk_size": 8,
    "pad_token_id": 0,
}
PEERS = {
    "nemotron_h": {"hybrid_override_pattern": "M-M*-M"},
    "biased": {
        "layers_block_type": ["full_attention", "linear_attention", "mlp"],
        "attention_bias": True,  # which their attention does not ask for
        "mlp_bias": True,
        "use_bias": True,
        "use_conv_bias": False,
        "conv_kernel": 3,
        "n_groups": 4,
        "mlp_hidden_act": "gelu",
        "layer_norm_epsilon": 1e-3,
    },
    "bounded": {"hybrid_override_pattern": "M*M", "time_step_min": 0.5},
    "mlps": {"hybrid_override_pattern": "-*-"},
}


def peer_of(name: str) -> nn.Module:
    """transformers' model, every number moved off its initial value."""
    return randomised(NemotronHForCausalLM(NemotronHConfig(**SIZES | PEERS[name])))


@pytest.mark.parametrize("name", PEERS)
def test_transformers_models(name: str, tmp_path: Path) -> None:
    peer = peer_of(name)
    model = load(saved(peer, tmp_path)).eval()
    # With a bias, their padding reaches the convolution of the first tokens.
    ids = scores_agree(model, peer, padded=name != "biased")
    for dialect in ("transformers", "transformers_files"):
        again = formery.Model(model.resolved)
        assert again.load_published(model.to_published(dialect)) == []
        with torch.no_grad():
            assert torch.equal(again.eval()(ids), model(ids))
    weights_go_back(model, peer, ids)


def test_their_steps_are_ours(tmp_path: Path) -> None:
    """Prefill and single steps with their cache, whose steps they do not bound: none is below the bound here."""
    peer = peer_of("nemotron_h")
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if name.endswith("dt_bias"):
                parameter.fill_(1.0)
    model = load(saved(peer, tmp_path)).eval()
    ids = torch.randint(3, 64, (2, 12))
    with torch.no_grad():
        theirs = peer(ids[:, :9], use_cache=True)
        state = model.new_state(2, 12)
        assert error(model(ids[:, :9], state=state), theirs.logits) < WANTED
        for i in range(9, 12):
            theirs = peer(ids[:, i : i + 1], past_key_values=theirs.past_key_values, use_cache=True)
            assert error(model(ids[:, i : i + 1], state=state), theirs.logits) < WANTED


@pytest.mark.parametrize("name", PEERS)
def test_configs_come_back(name: str, tmp_path: Path) -> None:
    config_comes_back(peer_of(name), tmp_path)


def test_our_variant_in_transformers(tmp_path: Path) -> None:
    model, ids = formery.create_model("mamba2_hybrid_tiny").eval(), torch.randint(0, 256, (2, 13))
    peer = computes_there(model, transformers.AutoModelForCausalLM, tmp_path, ids)
    assert peer.config.hybrid_override_pattern == "M-M-*-M-"


def test_older_configs() -> None:
    """Symbols, or the kinds' older names, say the same layers."""
    config = {"model_type": "nemotron_h", **SIZES}
    found = [
        spec_from_config(config | layers)["body"]["layout"]
        for layers in (
            {"hybrid_override_pattern": "M-M*-M"},
            {"layers_block_type": ["mamba", "mlp", "mamba", "attention", "mlp", "mamba"]},
        )
    ]
    assert found == ["mamba2 mlp mamba2 attention mlp mamba2"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hybrid_override_pattern": "M-ME"}, "layers_block_type: layer 3 is a mixture of experts, which has no part"),
        ({"hybrid_override_pattern": "M?"}, r"layers_block_type: a layer is one of .*, got '\?'"),
        ({"hybrid_override_pattern": "M", "mamba_hidden_act": "gelu"}, "hidden_act: .*'gelu'"),
        ({"hybrid_override_pattern": "M-", "mlp_hidden_act": "relu6"}, "hidden_act: no activation is called 'relu6'"),
        ({}, "lacks 'hybrid_override_pattern'"),
    ],
)
def test_configs_that_cannot_be_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec, match=message) as caught:
        spec_from_config({"model_type": "nemotron_h", **SIZES} | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"body.blocks.1.mixer": "mamba2"}, "a layer is one of mamba2, attention, mlp alone, got mamba2 and mlp"),
        ({"body.blocks.1.channel": "swiglu"}, "a layer is one of mamba2, attention, mlp alone, got swiglu"),
        ({"body.blocks.4.mixer.position": "rope"}, r"position would be null"),
        ({"body.blocks.0.mixer.max_step": 0.5}, r"max_step would be null, here it is 0\.5"),
        ({"body.blocks.0.mixer.groups": 4, "body.blocks.0.mixer.state": 16}, r"groups would be"),
        ({"head.tie": True}, "tie"),
    ],
)
def test_what_transformers_has_no_model_for(override: dict[str, Any], message: str) -> None:
    with torch.device("meta"):
        model = formery.create_model("mamba2_hybrid_tiny", override=override)
    with pytest.raises(CannotExport, match=message):
        config_of(model)
