"""The test case: runs inside transformers' tests (see __main__), where the relative imports lead."""

from __future__ import annotations

import unittest
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

import formery.interop.transformers  # noqa: F401 # registers
from formery.interop.transformers.auto import FormeryConfig, FormeryForCausalLM, FormeryModel

from ...generation.test_utils import GenerationTesterMixin  # type: ignore[import-not-found]
from ...test_modeling_common import ModelTesterMixin, ids_tensor  # type: ignore[import-not-found]

# The common tests ask these tables, which hold the names of transformers' own classes, which kind a class is of.
MODEL_MAPPING_NAMES["formery"] = "FormeryModel"
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["formery"] = "FormeryForCausalLM"

SPEC = {
    "stem": {"kind": "tokens", "dim": 32, "vocab": 99},
    "body": {
        "kind": "stack",
        "layout": "gated_deltanet attention",
        "channel": "swiglu",
        "scheme": {"kind": "pre", "norm": "rms"},
        "blocks": {
            "gated_deltanet": {"mixer": {"kind": "gated_deltanet", "heads": 2, "head_dim": 8}},
            "attention": {
                "mixer": {"kind": "attention", "heads": 4, "kv_heads": 2, "position": "rope"},
                "scheme": {"kind": "reordered", "norm": "rms"},
            },
        },
    },
    "head": {"kind": "next_token", "norm": "rms"},
}
CHECKPOINTS = "blocks are worked out again by formery's own means, no GradientCheckpointingLayer of transformers"


class Tester:
    base_model_class = FormeryModel
    is_training = True
    batch_size, seq_length, encoder_seq_length, key_length = 3, 7, 7, 7
    hidden_size, num_hidden_layers, num_attention_heads, vocab_size = 32, 2, 4, 99

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> FormeryConfig:
        return FormeryConfig(spec=SPEC, pad_token_id=0, bos_token_id=1, eos_token_id=2)

    def prepare_config_and_inputs_for_common(self) -> tuple[FormeryConfig, dict[str, Any]]:
        ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class FormeryModelTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (FormeryModel, FormeryForCausalLM)
    all_generative_model_classes = (FormeryForCausalLM,)
    has_attentions = False

    def setUp(self) -> None:
        self.model_tester = Tester(self)

    @unittest.skip(CHECKPOINTS)
    def test_gradient_checkpointing_enable_disable(self) -> None: ...

    @unittest.skip(CHECKPOINTS)
    def test_training_gradient_checkpointing(self) -> None: ...

    @unittest.skip(CHECKPOINTS)
    def test_training_gradient_checkpointing_use_reentrant_false(self) -> None: ...

    @unittest.skip(CHECKPOINTS)
    def test_training_gradient_checkpointing_use_reentrant_true(self) -> None: ...
