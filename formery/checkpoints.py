"""Checkpoint files: recognised by what is in them, and read as tensors alone; no code from them is run."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import saving
from .errors import BadFile, BadWeights
from .files import read_json, saved_in
from .parts.norms.batch import COUNTER

AVERAGED = ("state_dict_ema", "model_ema")
"""Keys of weights that were averaged over a training; they are taken before the raw ones, as timm takes them."""
WRAPPERS = (*AVERAGED, "model", "state_dict", "model_state_dict", "module", "params")
"""Keys under which published files keep the state dict, those taken first in front."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
DEEPEST = 4
"""How many of the wrappers may lie in each other."""
log = logging.getLogger("formery")


class Left:
    """In the place of a plain object that is no tensor (a run's options): nothing of it is looked at, or run."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


HARMLESS = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    *(f"pathlib{inner}.{name}" for inner in ("", "._local") for name in ("Path", "PosixPath", "WindowsPath")),
)
"""Types beside the tensors of training scripts' files (timm's train.py), which are passed over."""


def read(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a state dict, of a file of safetensors or of torch.save, or of a folder with one (shards included; a
    saved model's, a run's).

    Averaged weights are taken before raw ones where there are both, and a line of the log says so.
    """
    if isinstance(source, Mapping):
        found: Mapping[str, Any] = source
    else:
        path = Path(source)
        found = _folder(saved_in(path)) if path.is_dir() else _file(path)
    found = _unwrapped(found)
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    tensors = {name: value for name, value in tensors.items() if name.rpartition(".")[2] != COUNTER}
    if not tensors:
        raise BadWeights("the checkpoint holds no tensors; give a state dict, or a file or folder with one")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _unwrapped(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """What lies in a file's wrappers."""
    for _ in range(DEEPEST):
        held = [key for key in WRAPPERS if isinstance(found.get(key), Mapping) and found[key]]
        if not held:
            break
        raw = [key for key in held if key not in AVERAGED]
        if raw and held[0] in AVERAGED:
            log.warning(
                "the checkpoint has raw weights (%s) and averaged ones (%s): the averaged are taken, as timm does",
                raw[0],
                held[0],
            )
        found = found[held[0]]
    return found


def _file(path: Path) -> dict[str, Any]:
    """What a file holds, whatever it is called; BadFile says what it is where that is no weights."""
    if not path.is_file():
        raise BadFile(f"{path} does not exist")
    with open(path, "rb") as file:
        head = file.read(512)
    known = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27  # the length of a header of JSON
    if known or (path.suffix == ".safetensors" and not _of_torch(head)):
        return saving.read_tensors(path)
    if what := _archive(path) if _of_torch(head) else _other(head):
        raise BadFile(f"{path} holds no weights that formery reads: it is {what}")
    try:
        # opened here: by the name of a file torch would choose another reader
        with open(path, "rb") as file, torch.serialization.safe_globals([(Left, name) for name in HARMLESS]):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise BadFile(
                f"{path} holds objects of {code[1]} beside its tensors, which only its code could read; save the state "
                "dict alone, or as safetensors"
            ) from None
        raise BadFile(
            f"{path} is a file of torch.save that cannot be read as tensors alone ({type(error).__name__}): it is "
            "truncated or damaged, or holds code; get it again, or convert it to safetensors"
        ) from None
    if not isinstance(loaded, Mapping):
        raise BadFile(f"{path} holds {type(loaded).__name__}, not a state dict")
    return dict(loaded)


def _of_torch(head: bytes) -> bool:
    """Whether a file begins as those of torch.save do: as a zip archive, or (before torch 1.6) as a pickle."""
    return head.startswith((b"PK\x03\x04", b"\x80"))


def _archive(path: Path) -> str | None:
    """What a zip archive is that torch.save did not write; None for others, and for damaged ones."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None
    if any(name.endswith("/data.pkl") for name in names):
        scripted = any(name.endswith("/constants.pkl") for name in names)
        return "a program of TorchScript; load it with torch.jit.load and save its state dict" if scripted else None
    arrays = any(name.endswith(".npy") for name in names)
    return "an archive of numpy's arrays; convert it to safetensors" if arrays else "a zip archive; unpack it"


def _other(head: bytes) -> str:
    """What a file is that is neither safetensors' nor torch's."""
    for start, what in (
        (b"version https://git-lfs", "the pointer that git LFS leaves for it; run 'git lfs pull'"),
        (b"\x1f\x8b", "compressed (gzip); unpack it"),
        (b"\x89HDF", "an HDF5 file; convert it to safetensors"),
    ):
        if head.startswith(start):
            return what
    if not head:
        return "empty; get it again"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    text = head.decode("utf-8", errors="ignore").strip()
    if len(text.encode()) < len(head.strip()) - 3 or any(ord(c) < 32 and not c.isspace() for c in text):
        return "neither of safetensors nor of torch.save, or damaged; get it again"
    page = text.lower().startswith(("<!doctype", "<html"))
    return "a web page; get the file itself" if page else f"a text ({text.splitlines()[0][:40]!r}); get the file itself"


def _folder(folder: Path) -> dict[str, Any]:
    """The shards that an index lists, else `model.safetensors`, else the one file of weights there is."""
    for index in sorted([*folder.glob("*.safetensors.index.json"), *folder.glob("*.bin.index.json")]):
        content = read_json(index)
        named = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
            raise BadFile(f"{index} lists no shards: its weight_map names the file of each tensor; it is damaged")
        shards = sorted(set(named.values()))
        if any(Path(shard).name != shard for shard in shards):
            raise BadFile(f"{index} names files outside its folder")
        return {name: t for shard in shards for name, t in _file(folder / shard).items()}
    if (folder / saving.WEIGHTS).is_file():
        return _file(folder / saving.WEIGHTS)
    files = sorted(path for kind in ("safetensors", "bin", "pth", "pt", "tar") for path in folder.glob(f"*.{kind}"))
    if len(files) != 1:
        found = "no weights" if not files else f"{len(files)} files of weights"
        raise BadFile(f"{folder} holds {found}; name one file")
    return _file(files[0])
