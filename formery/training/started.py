"""What a training was started with, kept beside its checkpoints so that it goes on without being told again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadFile
from ..files import read_json, write_json

NAME = "started.json"
TRAINING = "training"
"""Where a run keeps its training."""

Started = dict[str, Any]
"""model and data as they were called, where they can be; `steps` in all; options as they were given."""


def note(folder: Path, told: Mapping[str, Any], steps: int) -> None:
    """Write what a training begins with into its folder."""
    write_json(folder / NAME, {"format": 1, **_plain(told), "steps": steps})


def recall(out: str | Path) -> Started:
    """What the training of the run in `out` was started with; nothing where that is not known."""
    path = Path(out) / TRAINING / NAME
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != 1 or type(found.get("steps")) is not int:
        raise BadFile(f"{path} does not say how a training was started; remove it, and give the options again")
    return found


def how_to_go_on(out: str | Path) -> str | None:
    """Where an interrupted training in `out` stands, and the command that goes on with it; None where there is none."""
    out = Path(out)
    done = sorted((out / TRAINING / "checkpoints").glob("step-*.safetensors"))
    if not done:
        return None
    told = recall(out)
    step = done[-1].stem.removeprefix("step-").lstrip("0") or "0"
    what = [told.get("model") or "MODEL", *([] if told.get("recipe") else [told.get("data") or "DATA"])]
    words = [word if word in ("MODEL", "DATA") else shlex.quote(word) for word in what]
    of = f" of {told['steps']}" if told else ""
    return f"after step {step}{of}; go on by: formery train {' '.join(words)} --out {shlex.quote(str(out))} --resume"


def merged(told: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were, with those that are given again instead; mappings entry by entry."""
    found = dict(told)
    for name, value in given.items():
        before = found.get(name)
        found[name] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return found


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """Without what JSON cannot hold: data and models that somebody has in memory have no name."""

    def holds(value: Any) -> bool:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            return False
        return True

    return {name: value for name, value in told.items() if value is not None and holds(value)}
