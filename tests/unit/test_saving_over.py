"""Saving over a saved model leaves one of the two whenever it breaks off; a config that was edited is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from formery import saving
from formery.errors import BadFile, BadSpec
from formery.interop import transformers
from formery.model import Model
from formery.saving import CONFIG, PREVIOUS, WEIGHTS


def model_of(heads: int) -> Model:
    """Two of these differ in what no tensor's shape shows."""
    body = {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": heads}}
    stem = {"kind": "tokens", "dim": 16, "vocab": 11}
    return Model({"stem": stem, "body": body, "head": "next_token"}).eval()


IDS = torch.arange(10).reshape(2, 5)


def breaking(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The process dies when `after` files have got their names."""
    real, count = Path.replace, 0

    def replace(self: Path, target: Any) -> Path:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("twice", [False, True])
def test_a_save_that_dies_leaves_the_old_model_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, twice: bool
) -> None:
    models = [model_of(2), model_of(4), model_of(8)]
    models[0].save_pretrained(tmp_path)
    for new in models[1 : 3 if twice else 2]:
        with monkeypatch.context() as patch:
            breaking(patch, after)
            try:
                new.save_pretrained(tmp_path)
                assert after == 3
            except KeyboardInterrupt:
                assert after < 3
    loaded = Model.from_pretrained(tmp_path).eval()
    newest = models[2 if twice else 1]
    wanted = models[0] if after < 2 else newest
    assert loaded.resolved == wanted.resolved
    assert torch.equal(loaded(IDS), wanted(IDS))
    newest.save_pretrained(tmp_path)
    assert torch.equal(Model.from_pretrained(tmp_path).eval()(IDS), newest(IDS))
    assert PREVIOUS not in json.loads((tmp_path / CONFIG).read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("key", ["spec", "resolved", "plans", "extra", "version", "new"])
def test_no_entry_of_a_config_is_edited_by_hand(tmp_path: Path, key: str) -> None:
    model = model_of(2)
    model.extra = {"classes": ["a"]}
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config[key] = [] if key == "spec" else {**config[key], "name": "x"} if isinstance(config.get(key), dict) else ["x"]
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(BadFile, match=r"lacks 'spec'|was edited after saving; put it back, load the model, change"):
        Model.from_pretrained(tmp_path)


def test_extra_is_plain_data(tmp_path: Path) -> None:
    model = model_of(2)
    model.extra = {"names": {10: "a", 9: "b"}}
    model.save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).extra == {"names": {"10": "a", "9": "b"}}
    model.extra = {"names": {"a", "b"}}
    with pytest.raises(BadSpec, match="extra are plain data: "):
        model.save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).extra == {"names": {"10": "a", "9": "b"}}


def test_a_path_is_never_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: Any, **kwargs: Any) -> str:
        raise AssertionError("nobody asked for the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for load in (Model.from_pretrained, saving.fetch, transformers.load):
        with pytest.raises(BadFile, match=r"runs/typo does not exist; .* or hf-hub:owner/name on the hub"):
            load("runs/typo")
