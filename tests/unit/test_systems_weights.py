"""Rules between tensor names run both ways, for any shapes; what does not fit is named, not forced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from formery.errors import BadWeights
from formery.weights import Dialect, Rule, expected, match, to_ours, to_theirs

SIZES = st.integers(1, 5)
SHAPES = st.lists(SIZES, min_size=2, max_size=4).map(tuple)


def both_ways(rules: list[Rule], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, after checking that they come back as ours, to the bit."""
    dialect = Dialect("somebody", tuple(rules))
    theirs = to_theirs(ours, dialect)
    assert theirs.keys() == expected(list(ours), dialect)
    back, wrong = to_ours(theirs, {name: tensor.shape for name, tensor in ours.items()}, dialect)
    assert wrong == []
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    return theirs


def tensor(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape)


@given(SHAPES, st.booleans(), st.booleans(), st.sets(st.integers(0, 3), max_size=2))
def test_axes(shape: tuple[int, ...], transpose: bool, channels_first: bool, ones: set[int]) -> None:
    """Swapped, moved and inserted axes, alone and together."""
    ones = {axis for axis in ones if axis <= len(shape)}
    shape = tuple(size + 1 for size in shape)  # an axis of length 1 of ours and one that is inserted look alike
    rule = Rule("a", "b", ones=tuple(ones), transpose=transpose, channels_first=channels_first)
    theirs = both_ways([rule], {"a.weight": tensor(shape)})["b.weight"]
    assert theirs.dim() == len(shape) + len(ones)
    assert all(theirs.shape[axis] == 1 for axis in ones)


@given(st.lists(SIZES, min_size=2, max_size=4), st.lists(SIZES, max_size=2))
def test_several_of_theirs(sizes: list[int], rest: list[int]) -> None:
    rule = Rule("qkv", tuple(f"p{i}" for i in range(len(sizes))), sizes=tuple(sizes))
    theirs = both_ways([rule], {"qkv.weight": tensor((sum(sizes), *rest)), "qkv.bias": tensor((sum(sizes),))})
    assert [theirs[f"p{i}.weight"].shape[0] for i in range(len(sizes))] == sizes


@given(SIZES, SIZES, SIZES, st.integers(0, 3))
def test_positions_as_rows(height: int, width: int, dim: int, prefix: int) -> None:
    names = ("prefix", "table") if prefix else ("table",)
    ours = {"table": tensor((height, width, dim))} | ({"prefix": tensor((prefix, dim))} if prefix else {})
    theirs = both_ways([Rule(names, "pos_embed", ones=(0,), rows=True)], ours)["pos_embed"]
    assert theirs.shape == (1, prefix + height * width, dim)
    assert torch.equal(theirs[0, prefix:], ours["table"].flatten(0, 1))


@given(SIZES, SIZES, SIZES, SIZES)
def test_pixels(dim: int, height: int, width: int, channels: int) -> None:
    """A dense layer over patches, channels last, is the convolution with that kernel."""
    kernel = tensor((dim, channels, height, width))
    theirs = both_ways([Rule("conv", "dense", pixels=(height, width, channels))], {"conv.weight": kernel})[
        "dense.weight"
    ]
    patch = torch.randn(channels, height, width)
    wanted = torch.nn.functional.conv2d(patch[None], kernel)[0, :, 0, 0]
    torch.testing.assert_close(theirs @ patch.permute(1, 2, 0).flatten(), wanted)


def test_indices_and_the_longest_prefix() -> None:
    rules = (
        Rule("blocks.{i}.{j}", "layers.{2i+1}.{j}"),
        Rule("blocks.{i}.{j}.norm", "norms.{i-1}_{j}"),
        Rule("blocks.0", "first"),
    )
    found = {
        name: match(name, rules)
        for name in ("blocks.3.0.fc.weight", "blocks.12.4.norm.bias", "blocks.30", "blocks.0.7.a")
    }
    assert found["blocks.3.0.fc.weight"].theirs == ("layers.7.0.fc.weight",)
    assert found["blocks.12.4.norm.bias"].theirs == ("norms.11_4.bias",)
    assert found["blocks.30"] is None  # neither {j}, nor "blocks.0" with something behind it
    assert found["blocks.0.7.a"].theirs == ("layers.1.7.a",)
    assert match("blocksy.1.1", rules) is None


CASES: list[tuple[list[Rule], dict[str, Any], dict[str, Any], str]] = [
    ([Rule("a", "b")], {"a": (2, 3)}, {"b": (3, 2)}, "b is [3, 2], a is [2, 3]"),
    ([Rule("a", "b")], {"a": (2, 3)}, {"c": (2, 3)}, "b is missing"),
    ([], {"a": (2, 3)}, {"b": (2, 3)}, "a: somebody have no name for it"),
    ([Rule(("a", "p"), "b")], {"a": (2, 3), "p": (1, 3)}, {"b": (4, 3)}, "b has 4 rows, 3 are needed"),
    ([Rule("a", ("q", "k"))], {"a": (4, 3)}, {"q": (2, 3)}, "k is missing"),
    ([Rule("a", "b", rows=True)], {"a": (2, 3, 5)}, {"b": (7, 5)}, "b has 7 rows, 6 are needed"),
    ([Rule("a", "b", pixels=(2, 2, 3))], {"a": (5, 3, 2, 2)}, {"b": (5, 16)}, "b is [5, 16], a is [5, 3, 2, 2]"),
]


@pytest.mark.parametrize(("rules", "ours", "theirs", "message"), CASES)
def test_what_does_not_fit(rules: list[Rule], ours: dict[str, Any], theirs: dict[str, Any], message: str) -> None:
    shapes = {name: torch.Size(shape) for name, shape in ours.items()}
    state, wrong = to_ours(
        {name: tensor(shape) for name, shape in theirs.items()}, shapes, Dialect("somebody", tuple(rules))
    )
    assert message in wrong
    assert not state


def test_what_cannot_be_written() -> None:
    with pytest.raises(BadWeights, match="a has no name in the dialect of somebody"):
        to_theirs({"a": tensor((2, 2))}, Dialect("somebody", ()))
    with pytest.raises(BadWeights, match=r"a has 5 rows; somebody split them as \[2, 2\]"):
        to_theirs({"a": tensor((5, 2))}, Dialect("somebody", (Rule("a", ("q", "k")),)))
    with pytest.raises(BadWeights, match=r"a has 5 rows; somebody split them as \[1, 3\]"):
        to_theirs({"a": tensor((5, 2))}, Dialect("somebody", (Rule("a", ("q", "k"), sizes=(1, 3)),)))


@given(
    st.lists(st.tuples(SIZES, st.lists(SIZES, min_size=1, max_size=3).map(tuple)), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_rows_in_groups(pieces: list[tuple[int, tuple[int, ...]]], random: Any) -> None:
    """Each of theirs has its pieces head by head; ours have them one after another, in any order."""
    order = list(range(sum(len(sizes) for _, sizes in pieces)))
    random.shuffle(order)
    names = tuple(f"p{i}" for i in range(len(pieces)))
    rule = Rule("a", names, pieces=tuple(pieces), order=tuple(order))
    ours = {"a.weight": tensor((sum(groups * sum(sizes) for groups, sizes in pieces), 3))}
    theirs = both_ways([rule], ours)
    expected_rows = [
        torch.cat([head[start : start + size] for head in heads])
        for name, (groups, sizes) in zip((f"{n}.weight" for n in names), pieces, strict=True)
        for heads in [theirs[name].chunk(groups)]
        for start, size in zip([sum(sizes[:i]) for i in range(len(sizes))], sizes, strict=True)
    ]
    assert torch.equal(ours["a.weight"], torch.cat([expected_rows[i] for i in order]))
    wrong = {name: torch.cat([value, value[:1]]) for name, value in theirs.items()}
    _, said = to_ours(wrong, {"a.weight": ours["a.weight"].shape}, Dialect("somebody", (rule,)))
    assert len(said) == 1
    assert "rows" in said[0]
