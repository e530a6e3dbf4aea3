"""Drop against LLM-Drop's own scores (arXiv 2406.15786): a Llama of four layers, float32."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from torch import Tensor

from formery.model import Model
from formery.rewrites import anatomy, find, similarity
from tests import goldens

GOLDEN = "llm_drop_similarities"
WANTED = 1e-5
"""Of each output's largest value; float32 leaves about 1e-6."""

NORM = {"kind": "rms", "eps": 1e-6}
SPEC = {
    "name": "decoder_tiny",  # whose published names are Llama's
    "stem": {"kind": "tokens", "dim": 64, "vocab": 96},
    "body": {
        "kind": "stack",
        "depth": 4,
        "mixer": {
            "kind": "attention",
            "heads": 4,
            "kv_heads": 2,
            "position": "rope",
            "bias": False,
            "out_bias": False,
        },
        "channel": {"kind": "swiglu", "hidden": 128},
        "scheme": {"kind": "pre", "norm": NORM},
    },
    "head": {"kind": "next_token", "norm": NORM},
}


def state() -> dict[str, Tensor]:
    """The published tensors: early attention and late MLPs write more."""
    tensors = goldens.state_from(goldens.facts(GOLDEN)["tensors"])
    for i in range(4):
        tensors[f"model.layers.{i}.self_attn.o_proj.weight"] *= 1.5 / (1 + i)
        tensors[f"model.layers.{i}.mlp.down_proj.weight"] *= 0.5 + 0.4 * i
    return tensors


@pytest.fixture(scope="module")
def model() -> Model:
    model = Model(SPEC)
    assert model.load_published(state()) == []
    return model.eval()


@pytest.fixture(scope="module")
def sequences() -> list[Tensor]:
    return [goldens.tokens((1, 12), 96, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def hosted() -> torch.nn.Module:
    """The same weights in the model they were recorded from."""
    transformers = importlib.import_module("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        tie_word_embeddings=False,
    )
    llama = transformers.LlamaForCausalLM(config)
    llama.load_state_dict(state())
    return llama.eval()


def scores(model: torch.nn.Module, sequences: list[Tensor]) -> dict[str, Tensor]:
    """Everything the golden records, logits apart."""
    parts = anatomy.of(model)
    streams, outputs = (f(model, parts, sequences) for f in (similarity.of_sublayers, similarity.of_outputs))
    spans = similarity.of_spans(model, parts, sequences)
    matrix = torch.full((4, 4), -2.0)  # as undefined entries were written down
    for row, values in enumerate(spans.values()):
        matrix[row, : len(values)] = torch.tensor(values)
    found: dict[str, Tensor] = {}
    for role, name in (("mixer", "attn"), ("channel", "mlp")):
        paths = [sub.path for _, _, sub in parts.sublayers() if sub.role == role]
        found[name] = torch.tensor([streams[path] for path in paths])
        found[f"{name}_no_norm"] = torch.tensor([outputs[path] for path in paths])
    return found | {"block": matrix[:, 0], "consecutive": matrix}


@torch.no_grad()
def test_similarities(model: Model, sequences: list[Tensor]) -> None:
    outputs = scores(model, sequences) | {"logits0": model(sequences[0])}
    assert goldens.worst_error(GOLDEN, outputs) < WANTED


@torch.no_grad()
def test_similarities_in_the_host(hosted: torch.nn.Module, sequences: list[Tensor]) -> None:
    outputs = scores(hosted, sequences) | {"logits0": hosted(sequences[0]).logits}
    assert goldens.worst_error(GOLDEN, outputs) < WANTED


def recorded(name: str) -> Tensor:
    golden = goldens.recorded(GOLDEN)[name]
    return torch.from_numpy(golden["head"]).view(*golden["shape"])


@pytest.mark.parametrize(("unit", "names"), [("mixer", ["attn"]), ("channel", ["mlp"]), ("joint", ["attn", "mlp"])])
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_most_alike_goes(
    model: Model, hosted: torch.nn.Module, sequences: list[Tensor], unit: str, names: list[str], count: int
) -> None:
    ranked = sorted(((recorded(name)[i].item(), i, name) for name in names for i in range(4)), reverse=True)[:count]
    own = {"attn": "mixer", "mlp": "channel"}
    plan = find("drop").decide(model, sequences, unit=unit, count=count)
    wanted = [{"block": f"body.blocks.{i}", "sublayers": [own[name]]} for _, i, name in ranked]
    assert plan["steps"] == wanted
    theirs = {"attn": "self_attn", "mlp": "mlp"}
    plan = find("drop").decide(hosted, sequences, unit=unit, count=count)
    assert plan["steps"] == [{"block": f"model.layers.{i}", "sublayers": [theirs[name]]} for _, i, name in ranked]


def test_consecutive_blocks(model: Model, sequences: list[Tensor]) -> None:
    """The paper compares runs of as many blocks as go; the release runs of one more."""
    spans = recorded("consecutive")
    for count, off_by_one in ((1, False), (2, False), (1, True), (2, True)):
        first = int(spans[:, count - 1 + off_by_one].argmax())
        plan = find("drop").decide(
            model, sequences, unit="block", count=count, consecutive=True, published_off_by_one=off_by_one
        )
        assert [step["block"] for step in plan["steps"]] == [f"body.blocks.{first + i}" for i in range(count)]


@torch.no_grad()
def test_dropped_alike_here_and_in_the_host(model: Model, hosted: torch.nn.Module, sequences: list[Tensor]) -> None:
    """The same units gone, the same logits, streamed too."""
    for unit, count in (("mixer", 2), ("joint", 3), ("block", 2)):
        ours, theirs = copy.deepcopy(model), copy.deepcopy(hosted)
        find("drop").perform(ours, find("drop").decide(ours, sequences, unit=unit, count=count))
        find("drop").perform(theirs, find("drop").decide(theirs, sequences, unit=unit, count=count))
        wanted = theirs(sequences[0]).logits
        scale = wanted.abs().max()
        assert (ours(sequences[0]) - wanted).abs().max() < 1e-5 * scale
        past, logits = None, []
        for start, end in ((0, 5), (5, 6), (6, 12)):
            out = theirs(sequences[0][:, start:end], past_key_values=past, use_cache=True)
            past = out.past_key_values
            logits.append(out.logits)
        assert (torch.cat(logits, 1) - wanted).abs().max() < 1e-5 * scale
