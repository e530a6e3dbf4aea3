"""Mamba, Mamba-2 and their hybrid under published weights: recorded outputs, and transformers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before transformers

import pytest
import torch
import transformers
from torch import Tensor
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

import formery
from formery.context import State
from formery.errors import BadSpec, CannotExport
from formery.interop.transformers import config_of, load, spec_from_config
from formery.model import Model
from formery.published import recognise
from formery.systems.language import mamba as system
from tests import goldens
from tests.parity.agreement import (
    WANTED,
    assert_same,
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

# ------------------------------------------------------------------------------------------------ recorded

TINY: dict[str, tuple[dict[str, Any], int, int]] = {  # mixer, tokens, of which the prefill
    "mamba_tiny": ({"kind": "mamba"}, 24, 20),
    "mamba2_tiny": ({"kind": "mamba2", "heads": 8, "head_dim": 8, "state": 16}, 27, 23),
}


def recorded(golden: str) -> tuple[Model, Tensor, int]:
    """Our model with the golden's weights, its tokens, and how many of them are the prefill."""
    mixer, length, prefill = TINY[golden]
    model = Model({"name": "mamba", **system.spec(dim=32, depth=2, vocab=64, mixer=mixer)}).eval()
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    assert recognise(model, theirs).name == "transformers"
    theirs["lm_head.weight"] = theirs["backbone.embeddings.weight"]
    assert model.load_published(theirs) == []
    return model, goldens.tokens((2, length), 64), prefill


def outputs(model: Model, ids: Tensor, prefill: int) -> dict[str, Tensor]:
    """What was recorded: scores whole and of single steps, and the first layer's state after the prefill.

    transformers keeps four columns before the convolution, of which ours are the last three: the oldest is found one
    token earlier.
    """
    state, tails, steps = model.new_state(len(ids), ids.shape[1]), [], []
    for chunk in (ids[:, : prefill - 1], ids[:, prefill - 1 : prefill]):
        model(chunk, state=state)
        own = state.parts.under("blocks.0.mixer")
        assert isinstance(own, State)
        tails.append(own.slot("tail").value.clone())
    memory = own.slot("memory").value.clone().mT
    for i in range(prefill, ids.shape[1]):
        steps.append(model(ids[:, i : i + 1], state=state))
    return {
        "logits": model(ids),
        "decode_logits": torch.cat(steps, dim=1),
        "layer0.conv_states": torch.cat([tails[0][:, :1], tails[1]], dim=1).mT,
        "layer0.recurrent_states": memory.squeeze(1) if memory.shape[1] == 1 else memory,
    }


@pytest.mark.parametrize("golden", TINY)
def test_recorded_outputs(golden: str) -> None:
    model, ids, prefill = recorded(golden)
    assert sum(p.numel() for p in model.parameters()) == goldens.facts(golden)["params"]
    with torch.no_grad():
        assert goldens.worst_error(golden, outputs(model, ids, prefill)) < WANTED
        assert goldens.worst_error(golden, outputs(model.double(), ids, prefill)) < WANTED


@pytest.mark.parametrize("golden", TINY)
@pytest.mark.parametrize("dialect", ["transformers", "authors"])
def test_published_names(golden: str, dialect: str) -> None:
    model, ids, _ = recorded(golden)
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    names = model.to_published(dialect)
    if dialect == "authors":
        names["backbone.embeddings.weight"] = names.pop("backbone.embedding.weight")
    assert torch.equal(names.pop("lm_head.weight"), theirs["backbone.embeddings.weight"])
    assert_same(names, theirs)
    again = Model(model.resolved)
    assert again.load_published(model.to_published(dialect)) == []
    with torch.no_grad():
        assert torch.equal(again.eval()(ids), model(ids))


# ------------------------------------------------------------------------------------------------ live

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}
SECOND: dict[str, Any] = SIZES | {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8}
PEERS = {
    "mamba": lambda: MambaForCausalLM(MambaConfig(**SIZES)),
    "mamba other": lambda: MambaForCausalLM(
        MambaConfig(
            **SIZES,
            expand=3,
            conv_kernel=3,
            time_step_rank=5,
            use_bias=True,
            use_conv_bias=False,
            layer_norm_epsilon=1e-3,
            tie_word_embeddings=False,
        )
    ),
    "mamba2": lambda: Mamba2ForCausalLM(Mamba2Config(**SECOND)),
    "mamba2 other": lambda: Mamba2ForCausalLM(
        Mamba2Config(
            **SECOND | {"n_groups": 4, "conv_kernel": 3},
            use_bias=True,
            use_conv_bias=False,
            layer_norm_epsilon=1e-3,
            tie_word_embeddings=True,
        )
    ),
    "mamba2 limits": lambda: Mamba2ForCausalLM(Mamba2Config(**SECOND, time_step_limit=(0.3, 0.8))),
}


@pytest.mark.parametrize("name", PEERS)
def test_transformers_models(name: str, tmp_path: Path) -> None:
    peer = randomised(PEERS[name]())
    model = load(saved(peer, tmp_path)).eval()
    # With a bias, their padding reaches the convolution of the first tokens.
    weights_go_back(model, peer, scores_agree(model, peer, padded="other" not in name))


@pytest.mark.parametrize("name", PEERS)
def test_their_steps_are_ours(name: str, tmp_path: Path) -> None:
    """Prefill and single steps with their cache; they do not bound single steps, so unbounded models only."""
    peer = randomised(PEERS[name]())
    model = load(saved(peer, tmp_path)).eval()
    ids = torch.randint(3, 64, (2, 12))
    bounded = "limits" in name
    with torch.no_grad():
        theirs = peer(ids[:, :9], use_cache=True)
        state = model.new_state(2, 12)
        assert error(model(ids[:, :9], state=state), theirs.logits) < WANTED
        for i in range(9, 12):
            theirs = peer(ids[:, i : i + 1], cache_params=theirs.cache_params, use_cache=True)
            ours = model(ids[:, i : i + 1], state=state)
            assert (error(ours, theirs.logits) < WANTED) is not bounded


@pytest.mark.parametrize("name", PEERS)
def test_configs_come_back(name: str, tmp_path: Path) -> None:
    config_comes_back(PEERS[name](), tmp_path)


@pytest.mark.parametrize("name", ["mamba_tiny", "mamba2_tiny"])
def test_our_variants_in_transformers(name: str, tmp_path: Path) -> None:
    model, ids = formery.create_model(name).eval(), torch.randint(0, 256, (2, 13))
    computes_there(model, transformers.AutoModelForCausalLM, tmp_path, ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act: .*'gelu'"),
        ({"model_type": "mamba2", "num_heads": 3, "head_dim": 8}, "num_heads: 3 heads of 8 are not the 64 channels"),
        ({"time_step_rank": "small"}, "entry of the wrong type"),
        ({"vocab_size": None}, "entry of the wrong type"),
    ],
)
def test_configs_that_cannot_be_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        spec_from_config({"model_type": "mamba", **SIZES} | change)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("mamba_tiny", {"body.blocks.1.mixer": "mamba2"}, "it differs in body.blocks.1.mixer"),
        ("mamba_tiny", {"body.blocks.*.mixer.inner": 200}, "inner: .* multiple of the width 128"),
        ("mamba_tiny", {"body.blocks.0.mixer.selective": False}, "selective would be true, here it is false"),
        ("mamba2_tiny", {"body.blocks.2.mixer.max_step": 0.5}, r"max_step would be null, here it is 0\.5"),
        ("mamba2_tiny", {"body.blocks.2.mixer.eps": 0.5}, r"eps would be 1e-05, here it is 0\.5"),
        ("mamba2_tiny", {"body.blocks.2.channel": "mlp"}, "it differs in body.blocks.2.channel"),
    ],
)
def test_what_transformers_has_no_model_for(name: str, override: dict[str, Any], message: str) -> None:
    with torch.device("meta"):
        model = formery.create_model(name, override=override)
    with pytest.raises(CannotExport, match=message):
        config_of(model)
