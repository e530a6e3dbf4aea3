"""Options that several commands share, and what their values may be."""

from __future__ import annotations

import math

import typer

from ..errors import BadSpec

MODEL_HELP = "A name ('formery list'), the folder of a saved model or of a run, or a spec in a .yaml or .json file."
DATA_HELP = "digits, pydoc, a folder of images by class, a text file or a folder of texts."
MOST_THREADS = 1024
LARGEST_SEED = 2**63 - 1


def finite(value: float | None) -> float | None:
    """A callback for options with a fraction: neither infinity nor nan."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def above_zero(value: float | None) -> float | None:
    """A callback for times and the like."""
    if finite(value) is not None and value is not None and value <= 0:
        raise typer.BadParameter(f"{value} is not above 0")
    return value


SET = typer.Option(None, "--set", metavar="PATH=VALUE", help="Replace a node of the spec; may be given often.")
BATCH = typer.Option(1, min=1, help="Items at a time.")
SIZE = typer.Option(None, min=1, help="Side of the images, or length of the text; the model's own unless given.")
THREADS = typer.Option(None, min=1, max=MOST_THREADS, help="Threads; torch's own choice unless given.")


def one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    """The value; BadSpec where it is none of `choices`."""
    if value not in choices:
        raise BadSpec(f"{option} is one of {', '.join(choices)}, got {value!r}")
    return value
