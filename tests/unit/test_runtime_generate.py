"""Generation beside plain loops over the whole forward; sampling beside the distributions that it states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before transformers

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import formery
from formery.context import NOTHING
from formery.errors import BadFile, BadSpec, CannotRun
from formery.model import Model
from formery.runtime.generate import (
    Bytes,
    FileTokenizer,
    Sampling,
    Stops,
    distribution,
    drawn,
    generate,
    open_tokenizer,
    stream,
    tokenizer_of,
)

WINDOW = {"kind": "attention", "heads": 2, "window": 4, "position": "rope"}
LAYOUTS: dict[str, dict[str, Any]] = {
    "attention": {"depth": 2, "mixer": {"kind": "attention", "heads": 2, "position": "rope"}},
    "windows": {"depth": 2, "mixer": WINDOW},
    "recurrent": {"depth": 2, "mixer": {"kind": "gated_deltanet", "heads": 2, "head_dim": 4}},
    "hybrid": {
        "layout": "gated_deltanet attention",
        "blocks": {
            "gated_deltanet": {"mixer": {"kind": "gated_deltanet", "heads": 2, "head_dim": 4}},
            "attention": {"mixer": {"kind": "attention", "heads": 2, "kv_heads": 1}},
        },
    },
}


def model_of(layout: str, vocab: int = 32, **stem: Any) -> Model:
    torch.manual_seed(3)
    model = Model(
        {
            "stem": {"kind": "tokens", "dim": 16, "vocab": vocab, **stem},
            "body": {"kind": "stack", "channel": "swiglu", **LAYOUTS[layout]},
            "head": {"kind": "next_token", "vocab": vocab},
        }
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def by_whole_forwards(model: Model, prompt: Sequence[int], steps: int) -> list[int]:
    """The likeliest token of the whole text so far, again and again."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [2], [7, 1, 8, 2, 8]]


@pytest.mark.parametrize("chunk", [1, 3, 512])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_is_the_argmax_of_the_whole_forward(layout: str, chunk: int) -> None:
    model = model_of(layout)
    found = generate(model, PROMPTS, max_new_tokens=12, chunk=chunk)
    for prompt, one in zip(PROMPTS, found, strict=True):
        assert one.tokens == by_whole_forwards(model, prompt, 12)
        assert one.prompt == prompt
        assert one.finish == "length"
        assert one.text == ""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_draw_as_they_would_alone(layout: str) -> None:
    model = model_of(layout)
    options: dict[str, Any] = {"max_new_tokens": 10, "temperature": 1.3, "top_k": 9, "top_p": 0.95, "min_p": 0.01}
    together = generate(model, PROMPTS, seed=5, chunk=4, **options)
    for i, prompt in enumerate(PROMPTS):
        assert generate(model, [prompt], seed=5 + i, **options)[0].tokens == together[i].tokens
    assert [one.tokens for one in generate(model, PROMPTS, seed=6, **options)] != [one.tokens for one in together]


def test_rows_that_are_over_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("hybrid")
    alone = [by_whole_forwards(model, prompt, 12) for prompt in PROMPTS]
    ends = [alone[0][2], alone[2][5]]
    sizes: list[int] = []
    forward = model.forward

    def counted(ids: Tensor, **options: Any) -> Any:
        sizes.append(len(ids))
        return forward(ids, **options)

    monkeypatch.setattr(model, "forward", counted)
    found = generate(model, PROMPTS, max_new_tokens=12, end=ends)
    for tokens, one in zip(alone, found, strict=True):
        stop = next((i for i, token in enumerate(tokens) if token in ends), None)
        assert one.tokens == (tokens if stop is None else tokens[: stop + 1])
        assert one.finish == ("length" if stop is None else "end")
    assert sizes[0] == 3
    assert sizes[-1] < 3


def test_only_the_last_token_is_scored_and_memory_is_that_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("hybrid")
    scored: list[int] = []
    seen: list[int] = []
    model.head.scores.register_forward_hook(lambda _m, args, _out: scored.append(args[0].shape[1]))
    model.body.register_forward_hook(lambda _m, args, _out: seen.append(args[0].shape[1]))
    generate(model, [list(range(30))], max_new_tokens=3, chunk=8)
    assert seen == [8, 8, 8, 6, 1, 1]
    assert scored == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("last", [0, 1, 3, 99])
def test_last_scores(last: int) -> None:
    model = model_of("hybrid")
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        whole, some = model(ids), model(ids, ctx=NOTHING.but(last=last))
    torch.testing.assert_close(some, whole[:, max(0, 10 - last) :])


def test_pieces_come_step_by_step() -> None:
    model = model_of("attention", vocab=256)
    pieces = stream(model, ["one", "three"], max_new_tokens=3, tokenizer=Bytes())
    first = next(pieces)
    assert (first.row, first.finish) == (0, None)
    rest = list(pieces)
    assert [piece.row for piece in rest] == [1, 0, 1, 0, 1]
    assert [piece.finish for piece in rest[-2:]] == ["length", "length"]
    whole = generate(model, ["one", "three"], max_new_tokens=3)
    for row, one in enumerate(whole):
        mine = [piece for piece in (first, *rest) if piece.row == row]
        assert [piece.token for piece in mine] == one.tokens
        assert "".join(piece.text for piece in mine) == one.text == bytes(one.tokens).decode(errors="replace")


def test_training_and_gradients_are_left_as_they_were() -> None:
    model = model_of("hybrid").train()
    model.body.blocks[0].eval()
    pieces = stream(model, PROMPTS, max_new_tokens=2)
    next(pieces)
    assert model.training
    assert not model.body.blocks[0].training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    list(pieces)
    model(torch.tensor([[1, 2]])).sum().backward()


class Scripted(nn.Module):
    """Says the same tokens whatever it reads."""

    def __init__(self, model: Model, tokens: Sequence[int]) -> None:
        super().__init__()
        self.tokens = list(tokens)
        self.step = 0
        self.real = model

    def __call__(self, ids: Tensor, **options: Any) -> Tensor:
        scores = torch.zeros(len(ids), 1, 256)
        scores[:, 0, self.tokens[min(self.step, len(self.tokens) - 1)]] = 1.0
        self.step += 1
        return scores


def saying(text: bytes, monkeypatch: pytest.MonkeyPatch) -> Model:
    model = model_of("attention", vocab=256)
    monkeypatch.setattr(model, "forward", Scripted(model, text).__call__)
    return model


@pytest.mark.parametrize(
    ("said", "stop", "text", "finish"),
    [
        (b"abcdef", ["cd"], "ab", "stop"),
        (b"abcdef", ["zz", "de", "cdef"], "abc", "stop"),
        (b"ababac", ["abac"], "ab", "stop"),
        (b"abcd", ["cdx"], "abcd", "length"),
        ("aé漢b".encode(), ["漢"], "aé", "stop"),
        ("aé漢".encode()[:-1], [], "aé�", "length"),
        (b"a\xff\xfeb", [], "a��b", "length"),
    ],
)
def test_stop_strings(said: bytes, stop: list[str], text: str, finish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = generate(saying(said, monkeypatch), "p", max_new_tokens=len(said), stop=stop)
    assert (one.text, one.finish) == (text, finish)
    assert bytes(one.tokens) == said[: len(one.tokens)]
    shown = "".join(p.text for p in stream(saying(said, monkeypatch), "p", max_new_tokens=len(said), stop=stop))
    assert shown == text


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_stops_in_any_pieces(pieces: list[str], stops: list[str]) -> None:
    """Whatever the pieces, what comes out is the text before the first stop string, and nothing is taken back."""
    whole = "".join(pieces)
    reader, out = Stops(stops), ""
    seen = ""
    for piece in pieces:
        out += reader.feed(piece)
        seen += piece
        ends = [seen.find(stop) for stop in stops if stop in seen]
        assert seen[: min(ends)].startswith(out) if ends else seen.startswith(out)
    out += reader.end()
    first = None
    for size in range(len(whole) + 1):  # the stop string that is whole first
        found = [whole[:size].find(stop) for stop in stops if stop in whole[:size]]
        if found:
            first = min(found)
            break
    if first is None:
        assert out == whole
        assert not reader.stopped
    else:
        assert reader.stopped
        assert whole.startswith(out)
        assert not any(stop in out for stop in stops)


# ------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 1.0, "min_p": 0.2},
        {"temperature": 0.9, "top_k": 12, "top_p": 0.9, "min_p": 0.05},
        {"temperature": 1.0, "top_k": 99, "top_p": 1.0, "min_p": 0.0},
    ],
)
def test_distributions_are_those_of_transformers(options: dict[str, Any]) -> None:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    scores = torch.randn(6, 40, dtype=torch.float64) * 3
    warpers = LogitsProcessorList([TemperatureLogitsWarper(options["temperature"])])
    kinds = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    for name, kind in kinds.items():
        if name in options:
            warpers.append(kind(options[name]))
    wanted = warpers(torch.zeros(6, 1, dtype=torch.long), scores.clone()).softmax(-1)
    torch.testing.assert_close(distribution(scores, Sampling(**options)), wanted)


def test_draws_follow_their_distribution() -> None:
    """Chi-square of many draws, by the numbers and by the generator of a row; nothing impossible is drawn."""
    from scipy.stats import chi2

    scores = torch.tensor([[2.0, -1.0, 0.5, 0.0, 1.0, -3.0, 0.2, 0.1]])
    shares = distribution(scores, Sampling(temperature=0.8, top_k=6))[0]
    model = model_of("attention", vocab=8)
    forward = model.forward
    model.forward = lambda ids, **o: scores.expand(len(ids), -1)[:, None] + 0 * forward(ids, **o)[:, :1, :1]  # type: ignore[method-assign]
    num = 4000
    rows = [[0]] * 40
    tokens = [one.tokens for one in generate(model, rows, max_new_tokens=num // 40, temperature=0.8, top_k=6)]
    for sample in (
        torch.tensor(tokens).flatten(),
        drawn(shares.expand(num, -1), torch.rand(num, dtype=torch.float64)),
    ):
        counts = torch.bincount(sample, minlength=8).double()
        possible = shares > 0
        assert counts[~possible].sum() == 0
        statistic = ((counts - num * shares)[possible].square() / (num * shares[possible])).sum()
        assert float(statistic) < chi2.ppf(0.999, int(possible.sum()) - 1)


def test_the_ends_of_the_uniform_numbers() -> None:
    shares = torch.tensor([[0.0, 0.25, 0.75, 0.0]], dtype=torch.float64)
    below_one = torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    for uniform, token in ((0.0, 1), (0.2499, 1), (0.25, 2), (float(below_one), 2)):
        assert drawn(shares, torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


# ------------------------------------------------------------------------------------------------ tokenizers


def word_pieces(folder: Path) -> FileTokenizer:
    """A byte-level tokenizer with merges, saved as transformers saves one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(["the quick brown fox jumps over the lazy dog", "the end"] * 9, trainer)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<end>", "__type": "AddedToken"}})
    )
    return FileTokenizer(folder)


@given(st.text(max_size=30))
def test_bytes_unfold(text: str) -> None:
    tokenizer = Bytes()
    try:
        tokens = tokenizer.encode(text)
    except UnicodeEncodeError:
        return
    unfolding = tokenizer.unfolding([])
    assert "".join(map(unfolding.add, tokens)) + unfolding.end() == tokenizer.decode(tokens)


def test_tokens_of_a_file_unfold(tmp_path: Path) -> None:
    tokenizer = word_pieces(tmp_path)
    assert tokenizer.end == {tokenizer.tokenizer.token_to_id("<end>")}
    for text in ("the quick 漢字 fox über é", "\n the  dog", "😀😀 the"):
        tokens = tokenizer.encode(text)
        for cut in range(len(tokens)):
            unfolding = tokenizer.unfolding(tokens[:cut])
            pieces = [unfolding.add(token) for token in tokens[cut:]] + [unfolding.end()]
            before = tokenizer.decode(tokens[:cut])
            if not before.endswith("\ufffd"):
                assert before + "".join(pieces) == text
                assert not any("\ufffd" in piece for piece in pieces)


def test_texts_by_the_tokenizer_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = word_pieces(tmp_path)
    model = model_of("hybrid", vocab=300)
    found = tokenizer_of(model, tmp_path)
    (one,) = generate(model, "the quick", max_new_tokens=6, tokenizer=found)
    assert one.prompt == tokenizer.encode("the quick")
    assert one.tokens[:6] == by_whole_forwards(model, one.prompt, 6)[: len(one.tokens)]
    said = tokenizer.encode(" brown fox over") + sorted(tokenizer.end) + [5]
    script = iter(said)

    def forward(ids: Tensor, **_: Any) -> Tensor:
        scores = torch.zeros(len(ids), 1, 300)
        scores[:, 0, next(script)] = 1
        return scores

    monkeypatch.setattr(model, "forward", forward)
    (one,) = generate(model, "the quick", tokenizer=found)
    assert (one.text, one.finish) == (" brown fox over", "end")
    script = iter(said)
    (one,) = generate(model, "the quick", tokenizer=found, stop=["wn f"])  # begins and ends amid tokens
    assert (one.text, one.finish) == (" bro", "stop")


def test_which_tokenizer(tmp_path: Path) -> None:
    assert isinstance(tokenizer_of(formery.create_model("olmo_hybrid_tiny")), Bytes)
    assert open_tokenizer(tmp_path) is None
    other = model_of("attention", vocab=32)
    with pytest.raises(CannotRun, match=r"has 32 tokens, .*give prompts as token numbers"):
        generate(other, "text")
    word_pieces(tmp_path)
    with pytest.raises(BadSpec, match="has 290 tokens, custom knows 32"):
        tokenizer_of(other, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadFile, match="is no tokenizer"):
        open_tokenizer(tmp_path)
    model = model_of("attention", vocab=256)
    model.extra["tokens"] = "words"
    with pytest.raises(CannotRun, match="give prompts as token numbers"):
        generate(model, "text")


@pytest.mark.parametrize(
    ("prompts", "options", "says"),
    [
        ([], {}, "no prompt is given"),
        ([[]], {}, "a prompt is empty"),
        ("", {}, "a prompt is empty"),
        ([[1, 300]], {}, "token 300 of a prompt"),
        ([[-1]], {}, "token -1 of a prompt"),
        ([1, 2], {}, "a list of their own"),
        (torch.zeros(3, dtype=torch.long), {}, r"got \[3\]"),
        ("a", {"max_new_tokens": 0}, "max_new_tokens is at least 1"),
        ("a", {"chunk": 0}, "chunk is at least 1"),
        ("a", {"temperature": -1.0}, "temperature is at least 0"),
        ("a", {"temperature": float("nan")}, "temperature is at least 0"),
        ("a", {"top_k": 3}, "goes with a temperature above 0"),
        ("a", {"temperature": 1.0, "top_k": 0}, "top_k is at least 1"),
        ("a", {"temperature": 1.0, "top_p": 0.0}, "top_p is above 0"),
        ("a", {"temperature": 1.0, "min_p": 1.5}, "min_p is at least 0"),
        ("a", {"stop": [""]}, "at least one letter"),
        ("a", {"stop": 5}, "at least one letter each, got 5"),
        (torch.zeros(0, 3, dtype=torch.long), {}, "no prompt is given"),
        (torch.zeros(3, 0, dtype=torch.long), {}, "a prompt is empty"),
        (torch.ones(1, 3), {}, r"whole numbers of tokens, got torch\.float32"),
        (torch.ones(1, 3, dtype=torch.bool), {}, r"got torch\.bool"),
        ([[1.5]], {}, r"a token of a prompt is a whole number, got 1\.5"),
        ([["1"]], {}, "a token of a prompt is a whole number, got '1'"),
        ([None], {}, "a prompt is a text or a list of token numbers, got None"),
        (None, {}, "got NoneType"),
        ({"input_ids": [[1]]}, {}, "got dict"),
        ("a", {"top_q": 3}, "generation takes no option 'top_q'; did you mean top_p or top_k"),
        ("a", {"max_new_tokens": 2.5}, r"max_new_tokens is a whole number of at least 1, got 2\.5"),
        ("a", {"max_new_tokens": "3"}, "max_new_tokens is a whole number of at least 1, got '3'"),
        ("a", {"max_new_tokens": True}, "max_new_tokens is a whole number of at least 1, got True"),
        ("a", {"chunk": None}, "chunk is a whole number of at least 1, got None"),
        ("a", {"temperature": 1.0, "top_k": 2.5}, r"top_k is a whole number of at least 1, got 2\.5"),
        ("a", {"temperature": "hot"}, "temperature is a number, got 'hot'"),
        ("a", {"temperature": 1.0, "top_p": "most"}, "top_p is a number, got 'most'"),
        ("a", {"seed": 0.5}, r"seed is a whole number, got 0\.5"),
        ("a", {"seed": 2**70}, "seed is at most"),
        ("a", {"end": 5}, "end is a list of token numbers, got 5"),
        ("a", {"end": ["x"]}, "a token of end is a whole number, got 'x'"),
        ("a", {"end": [256]}, "token 256 of end is none of the model's, which are 0 to 255"),
        ("a", {"tokenizer": "gpt2"}, r"tokenizer is one of formery's, got str; open_tokenizer\(folder\)"),
    ],
)
def test_mistakes(prompts: Any, options: dict[str, Any], says: str) -> None:
    """Before anything is read, and before the first piece is asked for."""
    model = model_of("attention", vocab=256)
    model.register_forward_pre_hook(lambda *_: pytest.fail("something was read"))
    for start in (generate, stream):
        with pytest.raises(BadSpec, match=says) as caught:
            start(model, prompts, **options)
        assert "\n" not in str(caught.value)


def test_numbers_of_other_libraries() -> None:
    model, ids = model_of("attention"), np.array([[3, 1], [4, 1]])
    wanted = [one.tokens for one in generate(model, ids.tolist(), max_new_tokens=3)]
    for prompts in (ids, list(ids), torch.from_numpy(ids), torch.from_numpy(ids).to(torch.uint8)):
        assert [one.tokens for one in generate(model, prompts, max_new_tokens=np.int64(3))] == wanted
    generate(model, ids, max_new_tokens=1, temperature=np.float32(0.5), top_k=np.int64(2), seed=np.int64(7))


def test_models_that_cannot(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="does not stream"):
        generate(formery.create_model("vit_tiny", img_size=32), [[1]])
    for other in (nn.Linear(2, 2), "olmo_hybrid_tiny"):
        with pytest.raises(CannotRun, match=f"formery generates with its own models, got {type(other).__name__}"):
            generate(other, [[1]])  # type: ignore[arg-type]
    damaged = model_of("attention")
    with torch.no_grad():
        damaged.head.scores.weight.fill_(torch.nan)
    with pytest.raises(CannotRun, match="no finite numbers"):
        generate(damaged, [[1]])
    spec = {
        "stem": {"kind": "tokens", "dim": 16, "vocab": 8, "length": 6},
        "body": {"kind": "stack", "position": "learned", **LAYOUTS["attention"]},
        "head": "next_token",
    }
    short = Model(spec).eval()
    assert len(generate(short, [[1, 2]], max_new_tokens=5)[0].tokens) == 5
    with pytest.raises(CannotRun, match="the positions end at 6 tokens"):
        generate(short, [[1, 2]], max_new_tokens=6)
