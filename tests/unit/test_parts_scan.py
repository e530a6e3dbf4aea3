"""Scans over maps: what each order sees, weights of directions, prefix tokens, and whole models."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import formery
from formery.context import NOTHING, Context
from formery.errors import BadSpec
from formery.parts.mixers.grids import on_grid
from formery.parts.mixers.scan import ORDERS, Scan
from formery.spec import Place, build
from tests.contract.subjects import moved

DIM = 8
HGRN = {"kind": "hgrn"}


def made(grid: tuple[int, ...], **options: Any) -> Scan:
    scan: Scan = moved(build("mixer", {"kind": "scan", "mixer": HGRN, **options}, DIM, place=Place(grid=grid))).eval()
    return scan.double()


def seen_by(mixer: Any, grid: tuple[int, ...]) -> Tensor:
    """(N, N) whether the output of token i, in raster order, depends on token j."""
    x = torch.randn(1, *grid, DIM, dtype=torch.float64, requires_grad=True)
    y = mixer(x).flatten(1, -2)
    rows = [torch.autograd.grad(y[0, i].sum(), x, retain_graph=True)[0].flatten(1, -2) for i in range(y.shape[1])]
    return torch.stack([row[0].abs().sum(-1) > 0 for row in rows])


def path_of(order: str, grid: tuple[int, ...]) -> list[int]:
    """The raster numbers of the tokens in the order of a direction's reading, written out plainly."""
    places = [divmod(n, grid[1]) for n in range(grid[0] * grid[1])]
    if order == "serpentine":
        places = [(r, c if r % 2 == 0 else grid[1] - 1 - c) for r, c in places]
    if order.startswith("across"):
        places = [(r, c) for c in range(grid[1]) for r in range(grid[0])]
    found = [r * grid[1] + c for r, c in places]
    return found[::-1] if order.endswith("backward") else found


def sees_along(path: list[int]) -> Tensor:
    """(N, N): each token sees itself and those before it on the path."""
    place = torch.empty(len(path), dtype=torch.long)
    place[path] = torch.arange(len(path))
    return place[:, None] >= place


@pytest.mark.parametrize("order", ["raster", "serpentine"])
def test_one_direction_sees_what_it_has_passed(order: str) -> None:
    assert torch.equal(seen_by(made((3, 4), order=order), (3, 4)), sees_along(path_of(order, (3, 4))))


NAMES = {"bidirectional": ["raster", "backward"], "cross": ["raster", "backward", "across", "across backward"]}


@pytest.mark.parametrize("order", list(NAMES))
def test_each_direction_alone_is_causal(order: str) -> None:
    """With all other directions silenced, a token sees what lies before it along this one; together, all of it."""
    for number, name in enumerate(NAMES[order]):
        scan = made((3, 4), order=order, tied=False)
        with torch.no_grad():
            for i, member in enumerate([scan.mixer, *scan.others]):
                if i != number:
                    for parameter in member.out.parameters():
                        parameter.zero_()
        assert torch.equal(seen_by(scan, (3, 4)), sees_along(path_of(name, (3, 4)))), name
    assert seen_by(made((3, 4), order=order), (3, 4)).all()


def test_tied_directions_are_the_mixer_on_each_path() -> None:
    scan, x = made((3, 4), order="cross", join="sum"), torch.randn(2, 3, 4, DIM, dtype=torch.float64)
    expected = torch.zeros_like(x).flatten(1, 2)
    for name in NAMES["cross"]:
        path = path_of(name, (3, 4))
        expected[:, path] += scan.mixer(x.flatten(1, 2)[:, path])
    torch.testing.assert_close(scan(x).flatten(1, 2), expected)
    scan.join = "mean"
    torch.testing.assert_close(scan(x).flatten(1, 2), expected / 4)
    untied = made((3, 4), order="cross", tied=False, join="sum")
    assert len(untied.others) == 3
    for member in untied.others:
        member.load_state_dict(untied.mixer.state_dict())
    scan.mixer.load_state_dict(untied.mixer.state_dict())
    scan.join = "sum"
    torch.testing.assert_close(untied(x), scan(x))


def test_in_three_dimensions() -> None:
    grid = (2, 3, 4)
    x = torch.arange(24.0).view(1, *grid, 1)
    rows = {order: [d.lay(x).flatten().long().tolist() for d in ORDERS[order]] for order in ORDERS}
    assert rows["serpentine"][0] == [
        0,
        1,
        2,
        3,
        7,
        6,
        5,
        4,
        8,
        9,
        10,
        11,
        23,
        22,
        21,
        20,
        16,
        17,
        18,
        19,
        15,
        14,
        13,
        12,
    ]
    across = [t * 12 + r * 4 + c for c in range(4) for r in range(3) for t in range(2)]
    assert rows["cross"] == [list(range(24)), list(range(23, -1, -1)), across, across[::-1]]
    for order, directions in ORDERS.items():
        for direction in directions:
            assert torch.equal(direction.undo(direction.lay(x)), x), order
    assert made(grid, order="cross")(torch.randn(2, *grid, DIM, dtype=torch.float64)).shape == (2, *grid, DIM)


@pytest.mark.parametrize("order", list(ORDERS))
def test_prefix_tokens(order: str) -> None:
    """First: every direction begins with them. Apart: they get nothing, and nobody sees them."""
    x, prefix = torch.randn(2, 3, 4, DIM, dtype=torch.float64), torch.randn(2, 2, DIM, dtype=torch.float64)
    rows, ctx = torch.cat([prefix, x.flatten(1, 2)], dim=1), Context(grid=(3, 4), prefix=2)
    apart = made((3, 4), order=order, prefix="apart")
    y = on_grid(apart, rows, ctx, None)
    assert not y[:, :2].any()
    torch.testing.assert_close(y[:, 2:], apart(x).flatten(1, 2))
    first = made((3, 4), order=order, join="sum")
    y = on_grid(first, rows, ctx, None)
    directions = ORDERS[order]
    torch.testing.assert_close(y[:, :2], len(directions) * first.mixer(prefix))
    mixed = [first.mixer(torch.cat([prefix, d.lay(x).flatten(1, 2)], dim=1))[:, 2:] for d in directions]
    maps = [d.undo(m.unflatten(1, d.lay(x).shape[1:3])) for d, m in zip(directions, mixed, strict=True)]
    torch.testing.assert_close(y[:, 2:], torch.stack(maps).sum(0).flatten(1, 2))


def test_raster_is_what_an_unwrapped_mixer_does() -> None:
    scan, x = made((3, 4), order="raster"), torch.randn(2, 3, 4, DIM, dtype=torch.float64)
    torch.testing.assert_close(scan(x), on_grid(scan.mixer, x, NOTHING, None))
    again = pickle.loads(pickle.dumps(copy.deepcopy(scan)))
    assert torch.equal(again(x), scan(x))


def test_what_cannot_be_scanned() -> None:
    with pytest.raises(BadSpec, match="a scan reads a sequence token by token, which mixer 'pooling' does not"):
        made((3, 4), mixer="pooling")
    with pytest.raises(BadSpec, match="order 'cross' is one of maps, here the grid is 1-D; take raster or bidirec"):
        made((12,))


CROSS = {"kind": "scan", "mixer": "gated_deltanet", "order": "cross"}


def test_a_stage_of_a_convolutional_network_scans() -> None:
    model = formery.create_model("convnext_tiny", override={"body.stages.2.mixer": CROSS}, img_size=64).eval()
    assert model.resolved["body"]["stages"][2]["blocks"][0]["mixer"]["order"] == "cross"
    mixers = [mixer for path, mixer in model.mixers() if path.startswith("body.stages.2")]
    assert all(isinstance(mixer, Scan) for mixer in mixers)
    small = formery.create_model(
        {**model.resolved, "body": {"kind": "pyramid", "dims": [16, 32], "depths": [1, 1], "mixer": CROSS}}
        | {"stem": {**model.resolved["stem"], "dim": 16}},
        num_classes=3,
    ).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = small(x)
        torch.compiler.reset()
        compiled = torch.compile(small, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        free = {0: torch.export.Dim.DYNAMIC}
        program = torch.export.export(small, (x,), dynamic_shapes={"inputs": free}).module()
        other = torch.randn(3, 3, 64, 64)
        torch.testing.assert_close(program(other), small(other), rtol=1e-4, atol=1e-5)
