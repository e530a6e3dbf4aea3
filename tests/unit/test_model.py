"""Models: rows of any length, streams, packed sequences, dtypes, copies, and requests they refuse."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formery.context import Context
from formery.errors import BadSpec, CannotRun
from formery.model import Model
from formery.spec import override, resolve

VOCAB = 13
ATTENTION = {"mixer": {"kind": "attention", "heads": 4, "position": "rope", "window": 5}}
TEXT: dict[str, Any] = {
    "stem": {"kind": "tokens", "dim": 32, "vocab": VOCAB, "length": 24},
    "body": {"kind": "stack", "layout": "(gated_deltanet attention)*2 conv", "scheme": {"kind": "pre", "norm": "rms"}},
    "head": {"kind": "next_token", "tie": True},
}
TEXT["body"]["blocks"] = {
    "attention": ATTENTION,
    "gated_deltanet": {"mixer": {"kind": "gated_deltanet", "heads": 2, "head_dim": 8}},
    "conv": {"mixer": {"kind": "depthwise_conv", "size": 4}},
}
IMAGE: dict[str, Any] = {
    "stem": {"kind": "patches", "dim": 32, "size": 4, "img_size": 16},
    "body": {
        "kind": "stack",
        "depth": 2,
        "mixer": {"kind": "attention", "heads": 4},
        "position": "learned",
        "prefix": 1,
    },
    "head": {"kind": "classes", "num_classes": 5, "pool": "token"},
}


@pytest.fixture
def text() -> Model:
    return Model(TEXT).double().eval()


@pytest.fixture
def image() -> Model:
    return Model(IMAGE).double().eval()


def ids(batch: int = 3, length: int = 20) -> Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("left", [True, False])
def test_padded_rows_are_what_they_are_alone(text: Model, left: bool) -> None:
    tokens, lengths = ids(), [20, 7, 13]
    rows, padding = torch.zeros_like(tokens), torch.ones(3, 20, dtype=torch.bool)
    for row, length in enumerate(lengths):
        at = slice(20 - length, 20) if left else slice(0, length)
        rows[row, at], padding[row, at] = tokens[row, :length], False
    logits = text(rows, ctx=Context(padding=padding))
    for row, length in enumerate(lengths):
        close(logits[row][~padding[row]], text(tokens[row : row + 1, :length])[0])


def test_packed_sequences_are_what_they_are_alone(text: Model) -> None:
    tokens, lengths = ids(1), [3, 9, 1, 7]
    bounds = torch.tensor([0, 3, 12, 13, 20])
    alone = torch.cat([text(sequence) for sequence in tokens.split(lengths, dim=1)], dim=1)
    close(text(tokens, ctx=Context(bounds=bounds)), alone)


@pytest.mark.parametrize(
    ("rows", "bounds", "says"),
    [
        (2, [0, 3, 6], "packed sequences stand in one row, got 2 rows"),
        (1, [0, 3, 7], r"rise from 0 to the 6 tokens, got \[0, 3, 7\]"),
        (1, [0, 3], r"got \[0, 3\]"),
        (1, [1, 6], r"got \[1, 6\]"),
        (1, [0, 4, 3, 6], r"got \[0, 4, 3, 6\]"),
        (1, [0, 3, 3, 6], r"got \[0, 3, 3, 6\]"),
        (1, [6], r"got \[6\]"),
        (1, [], "got "),
        (1, [0.0, 6.0], r"got torch\.float32 \[2\]"),
        (1, [[0, 6]], r"got torch\.int64 \[1, 2\]"),
    ],
)
def test_bounds_that_no_sequences_have(text: Model, rows: int, bounds: list[Any], says: str) -> None:
    with pytest.raises(CannotRun, match=says) as caught:
        text(ids(rows, 6), ctx=Context(bounds=torch.tensor(bounds)))
    assert "\n" not in str(caught.value)


def test_streams_of_rows_of_different_lengths(text: Model) -> None:
    """Prompts padded on the left, then tokens one by one, then a row that drops out."""
    tokens, lengths = ids(), [9, 4, 6]
    whole = text(tokens)
    rows, padding = torch.zeros(3, 9, dtype=torch.long), torch.ones(3, 9, dtype=torch.bool)
    for row, length in enumerate(lengths):
        rows[row, 9 - length :], padding[row, 9 - length :] = tokens[row, :length], False
    state = text.new_state(3, 20)
    with torch.no_grad():
        logits = text(rows, ctx=Context(padding=padding), state=state)
        for row, length in enumerate(lengths):
            close(logits[row, -length:], whole[row, :length])
        for step in range(4):
            new = torch.stack([tokens[row, length + step] for row, length in enumerate(lengths)])[:, None]
            logits = text(new, state=state)
            for row, length in enumerate(lengths):
                close(logits[row, 0], whole[row, length + step])
        state = state.select(torch.tensor([2, 0]))
        logits = text(torch.stack([tokens[2, 10:13], tokens[0, 13:16]]), state=state)
        close(logits, torch.stack([whole[2, 10:13], whole[0, 13:16]]))


def test_truncated_learning_through_a_stream(text: Model) -> None:
    tokens = ids(2)
    whole, state, chunks = text(tokens), text.new_state(2, 20), []
    for chunk in tokens.split(5, dim=1):
        logits = text(chunk, state=state)
        logits.square().sum().backward()
        chunks.append(logits.detach())
        state = state.detach()
    close(torch.cat(chunks, dim=1), whole.detach())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in text.parameters())


def test_padding_that_a_part_cannot_see_is_refused() -> None:
    padding = torch.zeros(2, 24, dtype=torch.bool)
    classes = {**TEXT, "head": {"kind": "classes", "num_classes": 2}}
    for mixer, where in (("spatial_fc", "body.blocks.0.mixer"), ("random", "body.blocks.0.mixer")):
        model = Model({**classes, "body": {"kind": "stack", "depth": 1, "mixer": mixer}})
        assert model(ids(2, 24)).shape == (2, 2)
        for ctx in (Context(padding=padding), Context(bounds=torch.tensor([0, 24]))):
            with pytest.raises(CannotRun, match=f"{where} cannot tell padding or packed sequences apart"):
                model(ids(1 if ctx.padding is None else 2, 24), ctx=ctx)
    normed = {"kind": "stack", "depth": 1, "mixer": "attention", "scheme": {"kind": "pre", "norm": "group1"}}
    with pytest.raises(CannotRun, match=r"body\.blocks\.0\.scheme\.norms\.0 cannot tell padding"):
        Model({**classes, "body": normed})(ids(2, 24), ctx=Context(padding=padding))


def test_padding_of_another_shape(text: Model) -> None:
    with pytest.raises(CannotRun) as caught:
        text(ids(2, 6), ctx=Context(padding=torch.zeros(2, 5, dtype=torch.bool)))
    assert str(caught.value) == "padding is (batch, length) as the tokens (2, 6), got (2, 5)"


def test_class_tokens_before_texts() -> None:
    """A classifier with a class token gives a padded row what it gives its tokens alone."""
    body = {**TEXT["body"], "layout": "attention*2", "prefix": 2, "position": "learned"}
    model = (
        Model({**TEXT, "body": body, "head": {"kind": "classes", "num_classes": 3, "pool": "token"}}).double().eval()
    )
    padding = torch.zeros(3, 20, dtype=torch.bool)
    padding[1, 8:] = padding[2, :5] = True
    tokens = ids()
    scores = model(tokens, ctx=Context(padding=padding))
    close(scores[:1], model(tokens[:1]))
    close(scores[1:2], model(tokens[1:2, :8]))
    close(scores[2:], model(tokens[2:, 5:]))
    with pytest.raises(CannotRun, match="packed sequences have no place for this model's prefix tokens"):
        model(tokens[:1], ctx=Context(bounds=torch.tensor([0, 20])))


# ------------------------------------------------------------------------------------------------ streams refused


def test_who_streams(text: Model, image: Model) -> None:
    assert text.streams
    assert not image.streams
    with pytest.raises(CannotRun, match="custom does not stream: its head does not predict tokens in order"):
        image.new_state(1, 5)
    state = text.new_state(1, 4)
    with pytest.raises(CannotRun, match="this state holds 4 tokens, 5 are needed; make it with a larger capacity"):
        text(ids(1, 5), state=state)
    with pytest.raises(CannotRun, match="packed sequences do not stream"):
        text(ids(1, 3), ctx=Context(bounds=torch.tensor([0, 3])), state=state)


def test_a_windowed_state_does_not_grow_with_its_capacity(text: Model) -> None:
    assert text.new_state(2, 100).nbytes() == text.new_state(2, 10_000).nbytes()


# ------------------------------------------------------------------------------------------------ surface


def test_first_weights() -> None:
    torch.manual_seed(0)
    model = Model({**TEXT, "stem": {**TEXT["stem"], "dim": 256}, "head": "next_token"})
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert module.bias is None or not module.bias.any()
    model.init_weights(std=None)
    weight = model.body.blocks[1].channel.reduce.weight  # type: ignore[union-attr, index]
    assert weight.std().item() == pytest.approx(1 / math.sqrt(weight.shape[1]), rel=0.2)


def test_facts_of_features(image: Model) -> None:
    info = image.feature_info
    assert (info.channels(), info.reduction(), info.module_name()) == (
        [32, 32],
        [4, 4],
        ["body.blocks.0", "body.blocks.1"],
    )
    assert (info.channels(1), info.channels([1])) == (32, [32])
    assert info.get_dicts(["num_chs"], [0]) == [{"num_chs": 32}]
    assert info.get_dicts()[1] == {"num_chs": 32, "reduction": 4, "module": "body.blocks.1"}
    assert (image.embed_dim, image.num_features, image.num_prefix_tokens) == (32, 32, 1)


def test_intermediates_with_norm_and_prefix(image: Model) -> None:
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    last, ((tokens, prefix),) = image.forward_intermediates(x, indices=1, norm=True, return_prefix_tokens=True)
    close(torch.cat([prefix, tokens.flatten(2).mT], dim=1), last)
    for wrong in ([2], [-3]):
        with pytest.raises(BadSpec, match="out_indices: this body has maps 0 to 1, got "):
            image.forward_intermediates(x, indices=wrong)


def test_another_image_size(image: Model) -> None:
    """Tables of positions are resized on the fly; what is no whole number of patches is refused."""
    assert image(torch.randn(1, 3, 24, 16, dtype=torch.float64)).shape == (1, 5)
    for size in ((18, 16), (16, 15)):
        with pytest.raises(CannotRun, match="is not a whole number of patches of 4"):
            image(torch.randn(1, 3, *size, dtype=torch.float64))
    shapes = (torch.randn(3, 16, 16).double(), torch.randn(1, 16, 16, 3).double())
    for wrong in (*shapes, torch.zeros(1, 3, 16, 16, dtype=torch.uint8)):
        with pytest.raises(CannotRun, match=r"^images are "):
            image(wrong)


def test_texts_are_whole_numbers(text: Model) -> None:
    with pytest.raises(CannotRun, match=r"tokens are whole numbers \(int64\), got torch.float32"):
        text(torch.zeros(1, 3))


def test_classifiers_are_reset_in_place(image: Model, text: Model) -> None:
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    image.reset_classifier(9, global_pool="avg")
    assert image.get_classifier().weight.dtype == torch.float64
    assert image(x).shape == (2, 9)
    assert (image.spec["head"]["num_classes"], image.resolved["head"]["pool"]) == (9, "avg")
    with pytest.raises(BadSpec, match=r"head\.pool: input should be 'avg', 'max', 'token', 'sequence' or ''"):
        image.reset_classifier(9, global_pool="mean")
    assert image(x).shape == (2, 9)
    with pytest.raises(CannotRun, match="custom has no classifier to reset"):
        text.reset_classifier(3)


def test_pooling_by_learned_weights_comes_and_goes(image: Model, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    image.reset_classifier(4, global_pool="sequence")
    assert image.head.weigh.weight.dtype == torch.float64
    weigh, scores = image.head.weigh, image(x)
    assert scores.shape == (2, 4)
    image.save_pretrained(tmp_path)
    close(Model.from_pretrained(tmp_path).eval()(x), scores)
    image.reset_classifier(3)
    assert image.head.weigh is weigh
    image.reset_classifier(3, global_pool="avg")
    assert not [name for name in image.state_dict() if "weigh." in name]


@pytest.mark.parametrize("modality", ["text", "series"])
def test_padding_has_no_weight_in_sequence_pooling(modality: str) -> None:
    stem = {"kind": "tokens", "dim": 32, "vocab": VOCAB} if modality == "text" else {"kind": "frames", "dim": 32}
    head = {"kind": "classes", "num_classes": 3, "pool": "sequence"}
    model = Model({"stem": stem, "body": {"kind": "stack", "depth": 1, "mixer": "attention"}, "head": head}).double()
    inputs = ids() if modality == "text" else torch.randn(3, 20, 32, dtype=torch.float64)
    padding = torch.zeros(3, 20, dtype=torch.bool)
    padding[1, :4] = padding[1, 15:] = True
    close(model(inputs, ctx=Context(padding=padding))[1:2], model(inputs[1:2, 4:15]))


def test_rebuilt_models_keep_device_dtype_and_mode(image: Model) -> None:
    image.train().rebuild(override(image.resolved, {"stem.img_size": 32, "body.mixer": "identity"}))
    assert image.training
    assert {p.dtype for p in image.parameters()} == {torch.float64}
    assert image(torch.randn(1, 3, 32, 32, dtype=torch.float64)).shape == (1, 5)


def test_copies_are_models_of_their_own(text: Model) -> None:
    tokens = ids()
    again = copy.deepcopy(text)
    assert torch.equal(again(tokens), text(tokens))
    assert again.head.scores.weight is again.stem.embed.weight  # type: ignore[union-attr]
    file = io.BytesIO()
    torch.save(text, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(tokens), text(tokens))


def test_half_precision_is_near(text: Model) -> None:
    half, tokens = copy.deepcopy(text).to(torch.bfloat16), ids()
    exact, rounded = half.float()(tokens).double(), copy.deepcopy(text).to(torch.bfloat16)(tokens)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.double() - exact).norm() < 0.05 * exact.norm()


def test_autocast_streams(text: Model) -> None:
    model, tokens = text.float(), ids(2)
    state = model.new_state(2, 20)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = model(tokens)
        chunks = torch.cat([model(chunk, state=state) for chunk in tokens.split([7, 1, 12], dim=1)], dim=1)
    assert (chunks.float() - whole.float()).norm() < 0.05 * whole.float().norm()


def test_stochastic_depth_is_reproducible(image: Model) -> None:
    model = Model(override(resolve(IMAGE), {"body.drop_path": 0.5})).train()
    x = torch.randn(8, 3, 16, 16)
    torch.manual_seed(3)
    first = model(x)
    torch.manual_seed(3)
    assert torch.equal(model(x), first)
    assert not torch.equal(model(x), first)
    assert torch.equal(model.eval()(x), model(x))


def test_what_it_prints(text: Model) -> None:
    assert "name=custom, head=next_token" in repr(text)
