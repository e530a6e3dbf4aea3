from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import formery
from tests.cli.conftest import Answer

Ask = Callable[..., Answer]


@pytest.mark.usefixtures("shop", "brisk")
def test_figures_of_a_saved_model(ask: Ask) -> None:
    facts = ask("measure", "image", "--json", "--layers", "--batch", 2).json
    model = formery.Model.from_pretrained("image/model")
    assert facts["input"] == [2, 1, 8, 8]
    assert facts["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert facts["macs"]["total"] > 0
    assert facts["latency"]["lower"] <= facts["latency"]["median"] <= facts["latency"]["upper"]
    assert facts["memory"]["peak"] == facts["memory"]["weights"] + facts["memory"]["activations"]
    assert "layers" in facts


@pytest.mark.usefixtures("shop", "brisk")
def test_a_table_for_people(ask: Ask) -> None:
    out = ask("measure", "image.yaml").out
    assert "1x1x8x8" in out
    assert "items a second" in out


@pytest.mark.usefixtures("shop", "brisk")
def test_context_of_a_streaming_model(ask: Ask) -> None:
    points = ask("measure", "text", "--size", 8, "--context", "4, 8", "--json").json["context"]["points"]
    assert [point["tokens"] for point in points] == [4, 8]
    assert points[1]["state_bytes"] == 2 * points[0]["state_bytes"] > 0


def test_a_model_of_7_billion_is_counted_without_memory(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.empty

    def watched(*args, **kwargs):  # type: ignore[no-untyped-def]
        made = real(*args, **kwargs)
        assert made.is_meta or made.numel() < 1e7
        return made

    monkeypatch.setattr(torch, "empty", watched)
    facts = ask("measure", "olmo_hybrid_7b", "--count", "--json").json
    assert facts["parameters"]["total"] == 7_430_870_688
    assert set(facts) == {"model", "input", "parameters", "macs"}


@pytest.mark.usefixtures("shop", "brisk")
def test_counting_is_the_same_with_and_without_values(ask: Ask) -> None:
    counted, measured = ask("measure", "image", "--count", "--json").json, ask("measure", "image", "--json").json
    assert counted["macs"] == measured["macs"]
    assert counted["parameters"] == measured["parameters"]


def test_overrides_and_sizes(ask: Ask) -> None:
    facts = ask("measure", "poolformer_s12", "--set", "head.num_classes=10", "--size", 64, "--count", "--json").json
    assert facts["input"] == [1, 3, 64, 64]
    assert facts["parameters"]["nodes"]["head"] < 10_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["image", "--batch", "0"], "--batch"),
        (["image", "--batch", "two"], "--batch"),
        (["image", "--batch", str(10**14)], "memory"),
        (["image", "--size", "-1"], "--size"),
        (["image", "--size", str(10**9)], "memory"),
        (["image", "--size", "7"], "patches"),
        (["image", "--threads", "0"], "--threads"),
        (["image", "--threads", str(10**9)], "--threads"),
        (["image", "--count", "--layers"], "--count"),
        (["image", "--context", "4"], "does not stream"),
        (["image", "--context", "four"], "lengths with commas"),
        (["text", "--context", "0"], "at least 1"),
        (["text", "--context", str(10**12)], "GiB"),
        (["text", "--context", str(10**30)], "GiB"),
        (["text", "--size", str(10**13)], "memory"),
        (["image", "--set", "head.num_classes=3"], "as it was saved"),
        (["vit_tiny", "--set", "stem.dim=0"], "stem.dim"),
        (["nosuch"], "no model is called"),
        (["photos"], "no saved model"),
        (["types.yaml"], "stem"),
        (["garbage.onnx"], "exported model"),
        (["image", "extra"], "unexpected extra argument"),
        ([], "missing argument"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes(arguments: list[str], says: str, refused: Callable[..., str]) -> None:
    assert says in refused("measure", *arguments)
