"""A contact sheet: pictures in rows, each with a caption and the colour of its frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

INK, PAPER, WRONG, RIGHT = "#222222", "#ffffff", "#c62828", "#2e7d32"
SIDE, FRAME, GAP, LETTERS = 112, 3, 8, 13
"""Pixels: of an image in a sheet at least, of its frame, between images, of a line of text."""

Cell = tuple[Tensor, str, str]
"""Pixels (C, H, W) uint8, caption, colour."""
EntryT = TypeVar("EntryT")


def evenly(entries: Sequence[EntryT], most: int) -> list[EntryT]:
    """At most so many of the entries, from all places alike."""
    count = min(most, len(entries))
    return [entries[i * len(entries) // count] for i in range(count)]


def judged(pixels: Tensor, guess: str, probability: float, truth: str | None) -> Cell:
    """An image with the class that a model takes it for, and what it is where that is known and another."""
    said, good = f"{guess} {100 * probability:.0f}%", guess == truth
    if truth is None:
        return pixels, said, INK
    return pixels, said if good else f"{said}\nis {truth}", RIGHT if good else WRONG


def sheet(cells: Sequence[Cell], columns: int, title: str) -> Image:
    """Images (C, H, W) uint8 with a caption and the colour of its frame each, in rows of `columns`, under a title."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = cells[0][0].shape[1:]
    scale = max(1, -(-SIDE // max(height, width))) if max(height, width) < SIDE else SIDE / max(height, width)
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    lines = max(text.count("\n") + 1 if text else 0 for _, text, _ in cells)
    font, heading = ImageFont.load_default(LETTERS - 1), ImageFont.load_default(LETTERS + 2)
    columns = min(columns, len(cells))
    step_x, step_y = wide + 2 * FRAME + GAP, high + 2 * FRAME + GAP + lines * (LETTERS + 2)
    rows, top = -(-len(cells) // columns), GAP + LETTERS + 10
    made = Image.new("RGB", (max(GAP + columns * step_x, 0), top + rows * step_y + GAP), PAPER)
    pen = ImageDraw.Draw(made)
    pen.text((GAP, GAP - 2), _fitting(pen, title, heading, made.width - 2 * GAP), fill=INK, font=heading)
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR
    for number, (pixels, text, colour) in enumerate(cells):
        x, y = GAP + number % columns * step_x, top + number // columns * step_y
        array = pixels.permute(1, 2, 0).numpy()
        picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
        if colour != INK:
            pen.rectangle((x, y, x + wide + 2 * FRAME - 1, y + high + 2 * FRAME - 1), fill=colour)
        made.paste(picture.resize((wide, high), method), (x + FRAME, y + FRAME))
        for line, words in enumerate(text.split("\n")):
            words = _fitting(pen, words, font, wide + 2 * FRAME + GAP - 2)
            at = (x + FRAME, y + high + 2 * FRAME + 1 + line * (LETTERS + 2))
            pen.text(at, words, fill=colour, font=font)
    return made


def _fitting(pen: Any, text: str, font: Any, width: float) -> str:
    """The text, cut to a width."""
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
