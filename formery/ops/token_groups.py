"""Maps cut into groups of tokens that meet: windows of neighbours (Swin, arXiv 2103.14030, section 3.2) and tokens at
equal distances (CrossFormer, arXiv 2108.00154, section 3.2).

Maps are (B, H, W, C), groups (B groups, N, C): those of the first item first, in raster order, and so the N tokens of
each. A map that is no whole number of groups is filled up with zeros.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

APART = -100.0
"""What Swin adds to the scores of tokens that the roll brought into one window, and that are no neighbours."""
FILLING = 4
"""The region of what fills up a map."""

Grid = tuple[int, int]


class Cut(NamedTuple):
    """Groups of `size` x `size` tokens, `interval` apart along each axis.

    Before, the map is rolled back by `shift`, or filled up by `front` rows and columns in front. What fills it up takes
    part as tokens of zeros where it is `seen`.
    """

    size: int
    interval: int = 1
    shift: int = 0
    front: int = 0
    seen: bool = False

    def filled(self, length: int) -> int:
        """Tokens along an axis of `length` that is filled up to whole groups."""
        unit = self.size * self.interval
        return -(-(length + self.front) // unit) * unit


def grid_of(x: Tensor) -> Grid:
    """(H, W) of maps (B, H, W, C). `torch.jit.trace`, which makes tensors of sizes, gets numbers: it keeps one size."""
    height, width = x.shape[1], x.shape[2]
    return (int(height), int(width)) if torch.jit.is_tracing() else (height, width)  # type: ignore[attr-defined, no-untyped-call]


def for_map(cut: Cut, grid: Grid) -> Cut:
    """The cut for a map: neither shift nor front nor interval where the shorter side fits in one group."""
    if not (cut.shift or cut.front) and cut.interval == 1:
        return cut
    moves = torch.sym_min(1, (torch.sym_min(*grid) - 1) // cut.size)  # 0 or 1, without asking a free size
    return cut._replace(shift=cut.shift * moves, front=cut.front * moves, interval=1 + (cut.interval - 1) * moves)


def is_free(cut: Cut, grid: Grid) -> bool:
    """Whether an exporter or compiler leaves the size of the map open."""
    return any(isinstance(size, torch.SymInt) for size in (*grid, cut.shift, cut.front, cut.interval))


def is_whole(cut: Cut, grid: Grid) -> bool:
    """Whether nothing is filled up and nothing rolled; never said of a free size."""
    if is_free(cut, grid) or cut.shift or cut.front:
        return False
    return (cut.filled(grid[0]), cut.filled(grid[1])) == grid


def partition(x: Tensor, cut: Cut) -> Tensor:
    """(B, H, W, C) to (B groups, N, C)."""
    batch, dim = x.shape[0], x.shape[3]
    grid, n, apart = grid_of(x), cut.size, cut.interval
    height, width = grid
    if is_free(cut, grid):
        rows = torch.cat([x.flatten(1, 2), x.new_zeros(batch, 1, dim)], dim=1)
        found = rows[:, order(cut, grid, x.device)]
        return found.reshape(batch * (found.shape[1] // n**2), n * n, dim)
    high, wide = cut.filled(height), cut.filled(width)
    if not is_whole(cut, grid):
        x = F.pad(x, (0, 0, cut.front, wide - width - cut.front, cut.front, high - height - cut.front))
    if cut.shift:
        x = x.roll((-cut.shift, -cut.shift), (1, 2))
    x = x.reshape(batch, high // (n * apart), n, apart, wide // (n * apart), n, apart, dim)
    return x.permute(0, 1, 3, 4, 6, 2, 5, 7).reshape(-1, n * n, dim)


def merge(y: Tensor, cut: Cut, grid: Grid) -> Tensor:
    """What `partition` undoes: (B groups, N, C) to the maps (B, H, W, C) of `grid`."""
    (height, width), n, apart, dim = grid, cut.size, cut.interval, y.shape[-1]
    high, wide = cut.filled(height), cut.filled(width)
    if is_free(cut, grid):
        batch = y.shape[0] * n * n // (high * wide)
        rows = y.reshape(batch, high * wide, dim)
        return rows[:, back(cut, grid, y.device)].reshape(batch, height, width, dim)
    y = y.reshape(-1, high // (n * apart), apart, wide // (n * apart), apart, n, n, dim)
    x = y.permute(0, 1, 5, 2, 3, 6, 4, 7).reshape(-1, high, wide, dim)
    if cut.shift:
        x = x.roll((cut.shift, cut.shift), (1, 2))
    return x if is_whole(cut, grid) else x[:, cut.front :, cut.front :][:, :height, :width]


def places(cut: Cut, grid: Grid, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """(groups N,) the row, and the column, of the map that each place of the groups holds; beyond it for filling."""
    high, wide = cut.filled(grid[0]), cut.filled(grid[1])
    # Division of plain numbers: exporters tie axes of one group, which broadcasting would ask for, to that size.
    number = torch.arange(high * wide, device=device)
    group, place = number // cut.size**2, number % cut.size**2
    across = wide // cut.size  # groups along a row
    rows = _along(group // across, place // cut.size, cut, high, grid[0])
    return rows, _along(group % across, place % cut.size, cut, wide, grid[1])


def _along(group: Tensor, place: Tensor, cut: Cut, full: int, length: int) -> Tensor:
    """Where a place of a group is along an axis of `length`, filled up to `full`."""
    step = (group // cut.interval * cut.size + place) * cut.interval + group % cut.interval
    found = (step + cut.shift) % full - cut.front
    return torch.where(found >= 0, found, length)


def order(cut: Cut, grid: Grid, device: torch.device | None = None) -> Tensor:
    """(groups N,) the number in raster order of the token that each place of the groups holds; H W for filling."""
    rows, columns = places(cut, grid, device)
    there = (rows < grid[0]) & (columns < grid[1])
    return torch.where(there, rows * grid[1] + columns, grid[0] * grid[1])


def back(cut: Cut, grid: Grid, device: torch.device | None = None) -> Tensor:
    """(H W,) the number of the place of the groups, one after another, that holds each token."""
    groups, inside = [], []
    for length in grid:
        step = (torch.arange(length, device=device) + cut.front - cut.shift) % cut.filled(length)
        unit, rest = step // (cut.size * cut.interval), step % (cut.size * cut.interval)
        groups.append(unit * cut.interval + rest % cut.interval)
        inside.append(rest // cut.interval)
    across = cut.filled(grid[1]) // cut.size  # groups along a row
    group = groups[0][:, None] * across + groups[1]
    return (group * cut.size**2 + inside[0][:, None] * cut.size + inside[1]).flatten()


def regions(cut: Cut, grid: Grid, device: torch.device | None = None) -> Tensor:
    """(groups, N) a number for each place: those of a group that have the same may meet."""
    rows, columns = places(cut, grid, device)
    numbers = 2 * (rows < cut.shift) + 1 * (columns < cut.shift)  # what the roll carries to the other end
    if not cut.seen:
        numbers = torch.where((rows < grid[0]) & (columns < grid[1]), numbers, FILLING)
    return numbers.reshape(-1, cut.size**2)


def mask_of(numbers: Tensor) -> Tensor:
    """(groups, N, N) from `regions`: 0 where two tokens may meet, APART in other regions, -inf for filling."""
    queries, keys = numbers[:, :, None], numbers[:, None]
    apart = torch.where(queries == keys, 0.0, APART)
    return apart.masked_fill((queries == FILLING) ^ (keys == FILLING), -torch.inf)


class Arrangement(NamedTuple):
    """One gather for fill, roll and partition of a whole batch, and one back, with the groups that need a mask last."""

    order: Tensor
    """(B groups N,) the row of (B H W, C) that each place holds; B H W for filling."""
    back: Tensor
    """(B H W,) the place that holds each row."""
    num_free: int
    """Groups of the batch that need no mask; the others come behind them, item by item."""
    mask: Tensor | None
    """(others of one item, 1, N, N)."""
    fills: bool
    """Whether some places are filled up."""


@lru_cache(maxsize=64)
def arrangement(batch: int, grid: tuple[int, int], cut: Cut) -> Arrangement:
    """What a batch of maps of one size needs, kept for the next one; on the CPU."""
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        numbers, count = regions(cut, grid), grid[0] * grid[1]
        masked = (numbers != numbers[:, :1]).any(1)
        chosen = torch.cat([(~masked).nonzero(), masked.nonzero()]).flatten()
        num_free = int((~masked).sum())
        held = order(cut, grid).view_as(numbers)[chosen]
        items = torch.arange(batch)[:, None, None]
        rows = (held + items * count).where(held < count, batch * count)  # (B, groups, N)
        flat = torch.cat([part.flatten() for part in (rows[:, :num_free], rows[:, num_free:])])
        there = torch.empty(batch * count + 1, dtype=torch.long)
        there[flat] = torch.arange(len(flat))
        mask = mask_of(numbers[chosen[num_free:]])[:, None] if num_free < len(numbers) else None
        return Arrangement(flat, there[:-1].clone(), num_free * batch, mask, len(flat) > batch * count)
