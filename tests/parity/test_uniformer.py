"""UniFormer under published weights computes what the published code computed: recorded outputs, float32."""

from __future__ import annotations

import torch

import formery
from tests import goldens
from tests.parity.agreement import assert_same

WANTED = 1e-5
"""Of the output's scale. Measured: at most 2e-6."""


def test_small() -> None:
    facts = goldens.facts("uniformer_small__64")
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model("uniformer_small", img_size=64).eval()
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    images = goldens.normal((1, 3, 64, 64))
    with torch.no_grad():
        outputs = {"features": model.forward_features(images), "logits": model(images)}
    assert goldens.worst_error("uniformer_small__64", outputs) < WANTED
    assert_same(model.to_published(), theirs)
