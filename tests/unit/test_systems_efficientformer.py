"""EfficientFormer beyond what every system promises: tables at other sizes, hybrids, formulas, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import formery
from formery.context import NOTHING
from formery.errors import BadSpec, CannotRun
from formery.parts.merges.convolved_attention import EVERY_SECOND
from formery.parts.positions.distance_table import DistanceTable, distance_numbers, resize_distances
from formery.parts.positions.offset_bias import offset_numbers
from formery.parts.positions.relative_table import resize_offsets
from formery.spec import Place, build

NAMES = ("efficientformer_l1", "efficientformerv2_s0")


def first_seen(height: int, width: int, stride: int) -> list[list[int]]:
    """Numbers of distances in the order in which pairs show them, queries outer: the published rule, spelled out."""
    keys = [(y, x) for y in range(height) for x in range(width)]
    queries = [(y, x) for y in range(0, height, stride) for x in range(0, width, stride)]
    seen: dict[tuple[int, int], int] = {}
    return [[seen.setdefault((abs(a - y), abs(b - x)), len(seen)) for y, x in keys] for a, b in queries]


@pytest.mark.parametrize(("height", "width", "stride"), [(7, 7, 1), (4, 6, 1), (14, 14, 2), (5, 3, 2)])
def test_distances_are_numbered_as_they_are_first_seen(height: int, width: int, stride: int) -> None:
    assert distance_numbers((height, width), stride).tolist() == first_seen(height, width, stride)


def test_a_resized_table_is_the_relative_ones() -> None:
    """Spread over all offsets, a table of distances is resized as `relative_table` resizes those."""
    old, new, table = (5, 4), (8, 7), torch.randn(20, 3)
    spread = torch.zeros(9 * 7, 3)
    spread[offset_numbers(old).flatten()] = table[distance_numbers(old).flatten()]
    wanted = resize_offsets(spread, old, new)[offset_numbers(new).flatten()]
    torch.testing.assert_close(resize_distances(table, old, new)[distance_numbers(new).flatten()], wanted)
    assert torch.equal(resize_distances(table, old, old), table)
    torch.testing.assert_close(resize_distances(torch.ones(20, 1), old, new), torch.ones(56, 1))
    assert resize_distances(torch.ones(1, 2), (1, 1), (3, 2)).shape == (6, 2)


@pytest.mark.parametrize("name", NAMES)
def test_weights_at_another_size(name: str) -> None:
    """Asked for, tables are resized by their rule; saved at another size, the size is adopted."""
    source = formery.create_model(name, num_classes=5)
    for module in source.modules():
        if isinstance(module, DistanceTable):
            nn.init.normal_(module.table)
    theirs = source.to_published()
    model = formery.create_model(name, num_classes=5)
    assert model.load_published(theirs, img_size=256) == []
    pairs = [(one, model.get_submodule(path)) for path, one in source.named_modules() if isinstance(one, DistanceTable)]
    assert pairs
    for one, other in pairs:
        assert isinstance(other, DistanceTable)
        assert other.grid == tuple(n * 8 // 7 for n in one.grid)
        assert torch.equal(other.table, resize_distances(one.table, one.grid, other.grid))
    images = torch.randn(1, 3, 256, 256)
    scores = model.eval()(images)
    again = formery.create_model(name)
    assert again.load_published(model.to_published("timm")) == []
    assert (again.resolved["stem"]["img_size"], again.num_classes) == (256, 5)
    torch.testing.assert_close(again.eval()(images), scores)


def test_another_image_is_refused_in_a_line() -> None:
    tokens = (
        r"biased_attention is bound to 4 tokens \(2 x 2\), got 3 x 3",
        "convolved_attention is bound to 16 tokens",
    )
    for name, said in zip(NAMES, tokens, strict=True):
        model = formery.create_model(name, num_classes=2, img_size=64).eval()
        with pytest.raises(CannotRun, match=f"{said}.*; set img_size"):
            model(torch.zeros(1, 3, 96, 96))


def test_sides_that_are_no_multiples_of_32() -> None:
    """The second version's coarse maps are scaled up and cut."""
    for name in NAMES:
        model = formery.create_model(name, num_classes=2, img_size=[72, 104]).eval()
        assert model(torch.randn(1, 3, 72, 104)).isfinite().all()
        assert model.body.grid == (3, 4)


def test_hybrids() -> None:
    images = torch.randn(1, 3, 64, 64)
    first = formery.create_model(NAMES[0], img_size=64, override={"body.stages.3.mixer": "gated_deltanet"}).eval()
    assert first(images).isfinite().all()
    second = formery.create_model(NAMES[1], img_size=64, override={"body.stages.2.mixer": "pooling"}).eval()
    assert second(images).isfinite().all()
    kinds = [block["channel"]["kind"] for block in second.resolved["body"]["stages"][2]["blocks"]]
    assert set(kinds) == {"inverted_bottleneck"}  # the feed-forward networks stay


def test_positions_that_do_not_fit() -> None:
    place = Place("here", grid=(4, 4))
    with pytest.raises(BadSpec, match="distance_table, log_offsets, offset_mlp, relative_table; put others"):
        build("mixer", {"kind": "biased_attention", "position": "rope"}, 16, place=place)
    with pytest.raises(BadSpec, match="every place asks: give the position stride 1, not 2"):
        build("mixer", {"kind": "biased_attention", "position": EVERY_SECOND}, 16, place=place)
    with pytest.raises(BadSpec, match="every 2 places along each axis one asks: give the position stride 2, not 1"):
        build("merge", {"kind": "convolved_attention", "position": "distance_table"}, 16, 24, place=place)
    with pytest.raises(BadSpec, match="a map of known size"):
        build("mixer", "biased_attention", 16, place=Place("here", grid=(0,)))


def test_attention_among_convolutions_is_what_it_says() -> None:
    """Against the formula, spelled out head by head and pair by pair."""
    torch.manual_seed(0)
    mixer = build(
        "mixer",
        {"kind": "convolved_attention", "heads": 2, "key_dim": 3, "value_dim": 4, "norm": "layer"},
        6,
        place=Place(grid=(3, 3)),
    ).double()
    x = torch.randn(1, 3, 3, 6).double()
    qkv = mixer.qkv_norm(mixer.qkv(x), NOTHING)
    q, k, v = qkv.flatten(1, 2)[0].split([6, 6, 8], dim=-1)
    scores = torch.stack([q[:, 3 * h : 3 * h + 3] @ k[:, 3 * h : 3 * h + 3].T / 3**0.5 for h in range(2)])
    for a in range(9):
        for b in range(9):
            dy, dx = abs(a // 3 - b // 3), abs(a % 3 - b % 3)
            scores[:, a, b] += mixer.position.table[3 * dy + dx]
    scores = torch.einsum("gh,hnm->gnm", mixer.before.weight, scores) + mixer.before.bias[:, None, None]
    weights = torch.einsum("gh,hnm->gnm", mixer.behind.weight, scores.softmax(-1)) + mixer.behind.bias[:, None, None]
    y = torch.cat([weights[h] @ v[:, 4 * h : 4 * h + 4] for h in range(2)], dim=-1).unflatten(0, (3, 3))
    local = mixer.local_norm(mixer.local(v.unflatten(0, (3, 3)).permute(2, 0, 1)[None]).permute(0, 2, 3, 1), NOTHING)
    wanted = mixer.out_norm(mixer.out(nn.functional.gelu(y + local)), NOTHING)
    torch.testing.assert_close(mixer(x), wanted)
