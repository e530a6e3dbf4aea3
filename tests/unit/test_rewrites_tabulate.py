"""Networks that make biases become tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from formery import rewrites
from formery.errors import CannotRewrite
from formery.model import Model
from formery.parts.positions.relative_table import RelativeTable
from tests.contract.subjects import moved

POSITIONS = {
    "crossformer": {"kind": "offset_mlp"},
    "swin v2": {"kind": "log_offsets", "hidden": 8},
    "trained with another window": {"kind": "log_offsets", "hidden": 8, "trained": 6},
}


def drawn(position: dict[str, object]) -> Model:
    torch.manual_seed(0)
    mixer = {"kind": "window_attention", "window": 4, "heads": 2, "position": position}
    spec = {
        "stem": {"kind": "patches", "dim": 16, "size": 4, "img_size": 32},
        "body": {"kind": "stack", "depth": 2, "mixer": mixer},
        "head": {"kind": "classes", "num_classes": 3},
    }
    return moved(Model(spec)).double().eval()  # type: ignore[return-value]


@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS)
def test_outputs_stay_equal_and_networks_are_gone(position: dict[str, object], tmp_path: Path) -> None:
    model = drawn(position)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = model(images)
    model, plan, report = rewrites.apply(model, "tabulate", [images])
    assert len(plan["steps"]) == 2
    assert report["difference"] < 1e-12
    assert [type(m.position) for _, m in model.mixers()] == [RelativeTable] * 2
    torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path).double().eval()
    torch.testing.assert_close(again(images), expected, rtol=1e-12, atol=1e-12)
    assert rewrites.find("tabulate").why_not(model) == "no bias of its attention comes from a network"
    assert rewrites.apply(model, "tabulate")[1]["steps"] == []
    with pytest.raises(CannotRewrite, match="is a RelativeTable, no network that makes biases"):
        rewrites.find("tabulate").perform(model, plan)


def test_what_may_be_trained_may_be_trained_on() -> None:
    model = drawn(POSITIONS["crossformer"])
    model.requires_grad_(False)
    rewrites.apply(model, "tabulate")
    assert not any(p.requires_grad for p in model.parameters())
