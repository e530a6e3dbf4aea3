"""Pathfinder of the Long Range Arena (arXiv 2011.04006; Linsley et al., arXiv 1805.08315): does a dashed path join the
two discs? Drawn here after the published rules; the images are not the released ones."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .probe import Probe, Sizes, checked, long_enough, nothing_counts

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 16
"""Grey values that tokens tell apart."""
ANSWERS = (LEVELS, LEVELS + 1)
"""No path, path."""
ASK = LEVELS + 2
TRIES = 60


@dataclass(frozen=True)
class Drawing:
    """Sizes of a picture, in pixels."""

    side: int = 32
    contour: int = 14
    """Paddles of a path: 6 is easy, 9 harder, 14 the Arena's."""
    distractor: int = 4
    distractors: int = 5
    length: float = 2.0
    thickness: float = 0.5
    margin: float = 1.0
    radius: float = 1.5
    apart: float = 7.0
    """Of the two paths' first paddles."""
    continuity: float = 1.0
    padding: int = 1


ARENA = Drawing()
PATH_X = Drawing(128, 14, 4, 8, 5.0, 1.5, 2.0, 3.0, 20.0, 1.8)


class _Canvas:
    """Where ink may still go."""

    def __init__(self, drawing: Drawing, draw: random.Random) -> None:
        self.drawing, self.draw = drawing, draw
        self.taken = np.zeros((drawing.side, drawing.side), dtype=bool)
        self.paddles: list[tuple[float, float, float]] = []
        rows, columns = np.mgrid[: drawing.side, : drawing.side]
        self.rows, self.columns = rows + 0.5, columns + 0.5

    def near(self, x: float, y: float, angle: float, margin: float) -> NDArray[np.bool_]:
        """Pixels within `margin` of the paddle that is centred at (x, y)."""
        half = self.drawing.length / 2
        dx, dy = self.columns - x, self.rows - y
        along = np.clip(dx * math.cos(angle) + dy * math.sin(angle), -half, half)
        distance = np.hypot(dx - along * math.cos(angle), dy - along * math.sin(angle))
        return distance < self.drawing.thickness / 2 + margin

    def fits(self, x: float, y: float, angle: float) -> bool:
        """Whether a paddle lies inside the picture and off all ink."""
        edge = self.drawing.padding + self.drawing.length / 2
        inside = edge <= x <= self.drawing.side - edge and edge <= y <= self.drawing.side - edge
        return inside and not bool((self.taken & self.near(x, y, angle, self.drawing.margin / 2)).any())

    def snake(self, num: int, start: tuple[float, float, float] | None = None) -> list[tuple[float, float, float]]:
        """A path of up to `num` paddles, each turned a little from the one before; empty where none fits."""
        path: list[tuple[float, float, float]] = []
        own = np.zeros_like(self.taken)
        for _ in range(TRIES):
            first = start or (
                self.draw.uniform(0, self.drawing.side), self.draw.uniform(0, self.drawing.side),
                self.draw.uniform(0, 2 * math.pi),
            )  # fmt: skip
            if self.fits(*first):
                path.append(first)
                break
        while 0 < len(path) < num:
            x, y, angle = path[-1]
            step = self.drawing.length + self.drawing.margin
            for _ in range(TRIES):
                turn = self.draw.uniform(-math.pi / 2, math.pi / 2)
                likely = max(0.0, math.cos(min(self.drawing.continuity * abs(turn), math.pi / 2))) ** 2
                if self.draw.random() > likely:
                    continue
                middle = angle + turn / 2
                following = (x + step * math.cos(middle), y + step * math.sin(middle), angle + turn)
                beyond = self.near(*following, self.drawing.margin / 2) & own
                if self.fits(*following) and not beyond.any():
                    own |= self.near(x, y, angle, self.drawing.margin / 2)
                    path.append(following)
                    break
            else:
                break
        for paddle in path:
            self.taken |= self.near(*paddle, self.drawing.margin)
        self.paddles += path
        return path


def picture(draw: random.Random, drawing: Drawing = ARENA) -> tuple[NDArray[np.uint8], int]:
    """((side, side) grey values, whether a path joins the discs). Both answers have the same ink."""
    while True:
        canvas = _Canvas(drawing, draw)
        edge = drawing.side - drawing.padding - drawing.length
        x, y = (draw.uniform(drawing.padding + drawing.length, edge) for _ in range(2))
        around = draw.uniform(0, 2 * math.pi)
        starts = [
            (x, y, draw.uniform(0, 2 * math.pi)),
            (x + drawing.apart * math.cos(around), y + drawing.apart * math.sin(around), draw.uniform(0, 2 * math.pi)),
        ]
        paths = [canvas.snake(drawing.contour, start) for start in starts]
        if any(len(path) < drawing.contour for path in paths):
            continue
        for _ in range(drawing.distractors):
            canvas.snake(drawing.distractor)
        joined = draw.random() < 0.5
        discs = (paths[0][0], paths[0][-1]) if joined else (paths[0][0], paths[1][-1])
        return _rendered(canvas, discs), int(joined)


def _rendered(canvas: _Canvas, discs: Sequence[tuple[float, float, float]]) -> NDArray[np.uint8]:
    """Drawn at twice the size and made smaller, so that edges are soft."""
    from PIL import Image, ImageDraw

    drawing, scale = canvas.drawing, 2
    image = Image.new("L", (drawing.side * scale, drawing.side * scale))
    pen = ImageDraw.Draw(image)
    half = drawing.length / 2
    for x, y, angle in canvas.paddles:
        dx, dy = half * math.cos(angle), half * math.sin(angle)
        ends = [(x - dx) * scale, (y - dy) * scale, (x + dx) * scale, (y + dy) * scale]
        pen.line(ends, fill=191, width=max(1, round(drawing.thickness * scale)))
    for x, y, _ in discs:
        r = drawing.radius
        pen.ellipse([(x - r) * scale, (y - r) * scale, (x + r) * scale, (y + r) * scale], fill=255)
    return np.asarray(image.resize((drawing.side, drawing.side), Image.Resampling.LANCZOS))


@checked
def pathfinder(*, sizes: Sizes = (16, 24, 32), trained: Sizes = (16,)) -> Probe:
    """Pictures as rows of pixels in 16 grey values, and the answer at the end. A size is a side: 32 with paths of 14
    paddles is the Arena's hard task; smaller pictures have shorter paths."""
    long_enough("pathfinder", 12, sizes, trained, "paths")

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        source = random.Random(f"pathfinder {seed} {step}")
        pictures = [picture(source, drawing_of(size)) for _ in range(batch)]
        pixels = torch.from_numpy(np.stack([image for image, _ in pictures])).long() * LEVELS // 256
        ids = torch.cat([pixels.flatten(1), torch.full((batch, 1), ASK)], dim=1)
        targets = nothing_counts(ids)
        targets[:, -1] = torch.tensor([ANSWERS[label] for _, label in pictures])
        return ids, targets

    return Probe("pathfinder", LEVELS + 3, draw, tuple(sizes), tuple(trained), "pixels a side", 0.5,
                 lambda n: n * n + 1)  # fmt: skip


def drawing_of(side: int) -> Drawing:
    """The drawing of a side: paths grow from 4 paddles at 16 pixels to the Arena's 14 at 32."""
    if side >= 128:
        return PATH_X
    if side >= 32:
        return Drawing(side)
    return Drawing(side, max(3, round(4 + (side - 16) * 10 / 16)), 2, 2, apart=5.0)
