"""A saved or exported model over files: one row a file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadData, BadFile, BadSpec
from ..files import atomic
from ..model import Model
from .onnx_model import OnnxModel

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def open_predictor(path: str | Path) -> Model | OnnxModel:
    """The saved model in a folder, or an exported one in an .onnx file; BadFile for anything else."""
    path = Path(path)
    if path.suffix == ".onnx":
        return OnnxModel(path)
    if path.is_dir() and not (path / "config.json").is_file() and (path / "model.onnx").is_file():
        return OnnxModel(path / "model.onnx")
    if path.is_file():
        raise BadFile(f"{path} is no model; give the folder of a saved model, or an .onnx file")
    return Model.from_pretrained(path).eval()


def predict(
    model: Model | OnnxModel, source: str | Path, *, batch_size: int = 64, top: int = 1, skip_broken: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows of plain data, one a file below `source` (or for that file).

    Image classifiers: file, class, probability, and the `top` classes with theirs. Language models: file, bytes, and
    bits per byte. BadData for a broken file, unless `skip_broken`, which gives a row with the reason.
    """
    if batch_size < 1 or top < 1:
        raise BadSpec("batch_size and top are at least 1")
    facts = model.extra
    kind = facts.get("task", {}).get("kind", "classify" if "preprocess" in facts else "language")
    path = Path(source)
    if not path.exists():
        raise BadFile(f"{source} does not exist")
    if kind == "language":
        return _language(model, path, facts)
    if "preprocess" not in facts or "classes" not in facts:
        raise BadFile(
            "this model carries no classes and preprocessing; save it with extra={'classes': ..., 'preprocess': ...}"
        )
    return _classes(model, path, facts, batch_size, top, skip_broken)


def _files(path: Path) -> list[Path]:
    from ..data.folders import walk

    return list(walk(path)) if path.is_dir() else [path]


def _classes(
    model: nn.Module, path: Path, facts: Mapping[str, Any], batch_size: int, top: int, skip_broken: bool
) -> Iterator[dict[str, Any]]:
    from ..data import load_image
    from ..data.folders import is_image

    files = [file for file in _files(path) if path.is_file() or is_image(file)]
    if not files:
        raise BadData(f"{path} holds no images")
    top = min(top, len(facts["classes"]))
    for start in range(0, len(files), batch_size):
        images: list[Tensor | str] = []
        for file in files[start : start + batch_size]:
            try:
                images.append(load_image(file, facts["preprocess"]))
            except BadData as error:
                if not skip_broken:
                    raise
                images.append(str(error))
        good = [image for image in images if isinstance(image, Tensor)]
        scores = iter(_scores(model, torch.stack(good)).softmax(-1)) if good else iter(())
        for file, image in zip(files[start : start + batch_size], images, strict=True):
            yield _row(file, next(scores), facts["classes"], top) if isinstance(image, Tensor) else _failed(file, image)


def _scores(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model(inputs).float()


def _row(file: Path, probabilities: Tensor, classes: Sequence[str], top: int) -> dict[str, Any]:
    chances, indices = probabilities.topk(top)
    best = [
        {"class": classes[i], "probability": round(p, 6)}
        for p, i in zip(chances.tolist(), indices.tolist(), strict=True)
    ]
    return {"file": str(file), **best[0]} | ({"top": best} if top > 1 else {})


def _failed(file: Path, reason: str) -> dict[str, Any]:
    return {"file": str(file), "class": None, "probability": None, "error": reason}


def _language(model: nn.Module, path: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from ..data.decode import read_bytes

    length = int(facts.get("task", {}).get("length", 256))
    files = _files(path)
    if not files:
        raise BadData(f"{path} holds no files")
    for file in files:
        text = read_bytes(file)
        if len(text) < 2:
            raise BadData(f"{file} holds {len(text)} bytes; at least 2 are needed, one to see and one to predict")
        bits = _bits(model, torch.tensor(list(text)), length)
        yield {"file": str(file), "bytes": len(text), "bits_per_byte": round(bits / (len(text) - 1), 6)}


def _bits(model: nn.Module, tokens: Tensor, length: int) -> float:
    """Bits of all tokens but the first, each predicted once, from at least half a window where there is that much."""
    stride, nats, done = max(1, length // 2), 0.0, 1
    while done < len(tokens):
        end = min(done + stride, len(tokens))
        start = max(0, end - 1 - length)
        scores = _scores(model, tokens[None, start : end - 1])[0]
        fresh = slice(done - 1 - start, None)
        nats += F.cross_entropy(scores[fresh], tokens[done:end], reduction="sum").item()
        done = end
    return nats / math.log(2)


def write(rows: Iterator[dict[str, Any]], out: str | Path) -> int:
    """Write rows as CSV or JSON lines, by the name of `out`; returns how many. Whole or not at all."""
    kind = FORMATS.get(Path(out).suffix.lower())
    if kind is None:
        raise BadSpec(f"{out}: predictions are written as .csv or .jsonl")
    count = 0
    with atomic(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        for line in lines(rows, kind):
            file.write(line)
            count += 1
    return count - (kind == "csv")


def lines(rows: Iterator[dict[str, Any]], kind: str) -> Iterator[str]:
    """Text of the rows, line by line; CSV begins with its header and puts what is nested into JSON."""
    header: list[str] | None = None
    for row in rows:
        if kind == "jsonl":
            yield json.dumps(row, ensure_ascii=False) + "\n"
            continue
        if header is None:
            header = [*row, *(() if "error" in row or "bits_per_byte" in row else ("error",))]
            yield _csv(header)
        yield _csv([json.dumps(row[k]) if isinstance(row.get(k), list | dict) else row.get(k, "") for k in header])


def _csv(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(["" if cell is None else cell for cell in cells])
    return buffer.getvalue()
