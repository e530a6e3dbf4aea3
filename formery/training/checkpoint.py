"""Checkpoints of a training: one safetensors file each, its plain state as JSON in the header, its digest beside it.

Nothing is unpickled. A file is written under a temporary name, flushed to disk and renamed; the last two are kept, so
that one which is damaged all the same leaves another to go on from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadFile
from ..files import atomic
from ..saving import write_tensors

FORMAT = 1
FOLDER = "checkpoints"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A training as it stood after some step: tensors by name, and plain data."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint of `checkpoint.state["step"]` and drop what is older than the last two."""
    path = folder / FOLDER / f"step-{checkpoint.state['step']:09d}.safetensors"
    write(path, checkpoint)
    for old in found(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def found(folder: Path) -> list[Path]:
    """The checkpoints of a training's folder, newest first."""
    return sorted((folder / FOLDER).glob("step-*.safetensors"), reverse=True)


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and what is wrong with newer ones; (None, []) where there is none at all.

    BadFile where there are some and all are damaged.
    """
    faults: list[str] = []
    for path in found(folder):
        try:
            return read(path), faults
        except BadFile as error:
            faults.append(str(error))
    if faults:
        raise BadFile(f"no checkpoint in {folder / FOLDER} is whole; start again in another folder ({faults[0]})")
    return None, []


def best_path(folder: Path, step: int) -> Path:
    """Where the best weights, of step `step`, are kept."""
    return folder / FOLDER / f"best-{step:09d}.safetensors"


def save_best(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the best weights so far. Earlier ones stay until a checkpoint no longer speaks of them."""
    write(best_path(folder, step), Checkpoint(dict(tensors), {"step": step}))


def drop_bests(folder: Path, kept: set[int]) -> None:
    """Remove best weights of other steps than `kept`."""
    for path in (folder / FOLDER).glob("best-*.safetensors"):
        if path not in {best_path(folder, step) for step in kept}:
            path.unlink(missing_ok=True)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as a whole or not at all; Unwritable where that cannot be done."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    state = {"format": FORMAT, **checkpoint.state}
    text = json.dumps(state, allow_nan=False)
    metadata = {"state": text, "sha256": digest(tensors, text)}
    with atomic(path) as temporary:
        write_tensors(tensors, temporary, metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())


def read(path: Path) -> Checkpoint:
    """A checkpoint of `write`; BadFile where it is missing, truncated, altered or of another format."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["state"]
        state = json.loads(text)
    except FileNotFoundError:
        raise BadFile(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadFile(f"{path} is no whole checkpoint ({error}); it is truncated or damaged") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else state
        raise BadFile(f"{path} has format {found!r}, this formery reads {FORMAT}")
    if digest(tensors, text) != metadata.get("sha256"):
        raise BadFile(f"{path} is not what was written: its bytes were altered")
    return Checkpoint(tensors, state)


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """sha256 over a text and the tensors' names, shapes, types and bytes."""
    total = hashlib.sha256(f"{len(text)} {text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def put(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into the module's own memory, exactly; BadFile where names or shapes differ.

    Copied, not exchanged: products round by how memory is aligned, and a file's is not aligned as a model's.
    """
    ours = module.state_dict()
    if wrong := sorted(n for n, t in tensors.items() if n not in ours or ours[n].shape != t.shape):
        raise BadFile(f"{source} is of another model: {wrong[0]} does not fit; start again in another folder")
    pointers = {ours[name].data_ptr() for name in tensors}
    if missing := sorted(n for n, t in ours.items() if n not in tensors and t.numel() and t.data_ptr() not in pointers):
        raise BadFile(f"{source} is of another model: it lacks {missing[0]}; start again in another folder")
    with torch.no_grad():
        for name, tensor in tensors.items():
            ours[name].copy_(tensor)
