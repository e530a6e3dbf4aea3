"""A saved or exported model over files: one row a file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadData, BadFile, BadSpec
from ..files import atomic, saved_in
from ..model import Model
from . import facts
from .deploy.opening import REPORT, Deployed, opened
from .onnx_model import OnnxModel

Row = dict[str, Any]
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
READERS = 4
"""Threads that decode images."""


def open_predictor(path: str | Path) -> Model | OnnxModel | Deployed:
    """The saved model in a folder (or in a run's folder), a deployed one in its chosen form, or an exported one in an
    .onnx file; BadFile for others."""
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        return OnnxModel(path)
    if path.is_file():
        raise BadFile(f"{path} is no model; give the folder of a saved model, or an .onnx file")
    path = saved_in(path)
    if (path / REPORT).is_file():
        return opened(path)
    return Model.from_pretrained(path).eval()


def predict(
    model: Model | OnnxModel | Deployed,
    source: str | Path,
    *,
    batch_size: int = 64,
    top: int = 1,
    skip_broken: bool = False,
) -> Iterator[Row]:
    """Rows of plain data, one a file below `source` (or for that file), in the order of their paths.

    Image classifiers: file, class, probability, and the `top` classes with theirs where more than one is asked for.
    Language models: file, bytes, and bits per byte, each byte but the first predicted once from at least half a window
    before it (as `Language` judges). BadData for a broken file and BadFile for a link to nothing, unless `skip_broken`,
    which gives a row with the reason; BadFile for a model that does not say how it is to be used.
    """
    if batch_size < 1 or top < 1:
        raise BadSpec("batch_size and top are at least 1")
    path = Path(source)
    if not path.exists():
        raise BadFile(f"{source} does not exist")
    kind = facts.kind_of(model.extra)
    if kind == "language":
        if top > 1:
            raise BadSpec("top goes with classes; this is a language model")
        return _texts(model, path, facts.read(facts.TextFacts, model.extra), batch_size, skip_broken)
    if kind != "classify":
        raise BadFile(f"this model was trained for {kind!r}; predict knows classify and language")
    known = facts.read(facts.ImageFacts, model.extra)
    if top > len(known.classes):
        raise BadSpec(f"top is at most {len(known.classes)}, the number of classes, got {top}")
    return _images(model, path, known, batch_size, top, skip_broken)


# ------------------------------------------------------------------------------------------------ images


def _images(
    model: nn.Module, path: Path, known: facts.ImageFacts, batch_size: int, top: int, skip_broken: bool
) -> Iterator[Row]:
    from ..data import load_image
    from ..data.folders import is_image, walk

    files = [file for file in walk(path) if is_image(file)] if path.is_dir() else [path]
    if not files:
        raise BadData(f"{path} holds no images")
    preprocess = known.preprocess.model_dump()

    def read(file: Path) -> Tensor | BadData | BadFile:
        try:
            return load_image(file, preprocess)
        except (BadData, BadFile) as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(files), batch_size):
            chosen = files[start : start + batch_size]
            images = list(pool.map(read, chosen))
            if not skip_broken:
                for image in images:
                    if not isinstance(image, Tensor):
                        raise image
            good = [image for image in images if isinstance(image, Tensor)]
            chances = iter(_chances(model, torch.stack(good), len(known.classes)) if good else ())
            for file, image in zip(chosen, images, strict=True):
                if not isinstance(image, Tensor):
                    yield {"file": str(file), "class": None, "probability": None, "error": str(image)}
                else:
                    yield _row(file, next(chances), known.classes, top)


def _chances(model: nn.Module, images: Tensor, num_classes: int) -> Tensor:
    """(N, classes) probabilities; BadFile where the model has other outputs than it says, or no numbers."""
    scores = _scores(model, images)
    if scores.shape != (len(images), num_classes):
        raise BadFile(f"the model gives {list(scores.shape[1:])} scores an image, but names {num_classes} classes")
    if not scores.isfinite().all():
        raise BadFile("the model's scores are no finite numbers; it is damaged, or was not trained to the end")
    return scores.softmax(-1)


def _scores(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(inputs)
    return found.float()


def _row(file: Path, chances: Tensor, classes: Sequence[str], top: int) -> Row:
    values, indices = chances.topk(top)
    best = [
        {"class": classes[index], "probability": round(value, 6)}
        for value, index in zip(values.tolist(), indices.tolist(), strict=True)
    ]
    return {"file": str(file), **best[0]} | ({"top": best} if top > 1 else {})


# ------------------------------------------------------------------------------------------------ texts


def _texts(model: nn.Module, path: Path, known: facts.TextFacts, batch_size: int, skip_broken: bool) -> Iterator[Row]:
    from ..data.decode import read_bytes
    from ..data.folders import walk
    from ..data.texts import refuse

    files = list(walk(path)) if path.is_dir() else [path]
    if not files:
        raise BadData(f"{path} holds no files")
    for file in files:
        try:
            refuse([file])
            text = read_bytes(file)
            if len(text) < 2:
                raise BadData(f"{file} has {len(text)} bytes; at least 2 are needed, one to see and one to predict")
        except (BadData, BadFile) as error:
            if not skip_broken:
                raise
            yield {"file": str(file), "bytes": None, "bits_per_byte": None, "error": str(error)}
            continue
        bits = bits_of(model, torch.frombuffer(bytearray(text), dtype=torch.uint8), known.task.length, batch_size)
        yield {"file": str(file), "bytes": len(text), "bits_per_byte": round(bits / (len(text) - 1), 6)}


def bits_of(model: nn.Module, text: Tensor, length: int, batch_size: int = 64) -> float:
    """Bits of all bytes of `text` (uint8, at least 2) but the first, each predicted once.

    Windows of `length` overlap by half, so that every byte is seen with at least half a window before it, where there
    is that much: what `Language.evaluate` does, for a text that stands alone.
    """
    stride, num = max(1, length // 2), len(text)
    spans = []
    for first in range(1, num, stride):
        end = min(first + stride, num)
        spans.append((max(0, end - 1 - length), first, end))
    nats = 0.0
    for _, alike in groupby(spans, key=lambda span: (span[2] - span[0], span[2] - span[1])):
        group = list(alike)
        for at in range(0, len(group), batch_size):
            nats += _nats(model, text, group[at : at + batch_size])
    if not math.isfinite(nats):
        raise BadFile("the model's scores are no finite numbers; it is damaged, or was not trained to the end")
    return nats / math.log(2)


def _nats(model: nn.Module, text: Tensor, spans: list[tuple[int, int, int]]) -> float:
    """Of windows of one shape: (start of what is seen, first byte that counts, end)."""
    seen = torch.stack([text[start : end - 1] for start, _, end in spans]).long()
    wanted = torch.stack([text[first:end] for _, first, end in spans]).long()
    scores = _scores(model, seen)[:, -wanted.shape[1] :]
    return F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="none").double().sum().item()


# ------------------------------------------------------------------------------------------------ writing


def write(rows: Iterable[Row], out: str | Path, *, top: int = 1) -> int:
    """Write rows as CSV or JSON lines, by the name of `out`; returns how many. Whole or not at all."""
    kind = FORMATS.get(Path(out).suffix.lower())
    if kind is None:
        raise BadSpec(f"{out}: predictions are written as .csv or .jsonl")
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    # A name of a file need not be text in any encoding; what is none is written with escapes.
    with atomic(out) as temporary, open(
        temporary, "w", encoding="utf-8", errors="backslashreplace", newline=""
    ) as file:  # fmt: skip
        for line in lines(counted(), kind, top=top):
            file.write(line)
    return count


def lines(rows: Iterable[Row], kind: str, *, top: int = 1) -> Iterator[str]:
    """Text of the rows, line by line, as `csv` or `jsonl`.

    CSV begins with a header; the classes after the likeliest have columns of their own (class_2, probability_2, ...),
    and the last column says why a file has no prediction.
    """
    header: list[str] = []
    for row in rows:
        if kind == "jsonl":
            yield json.dumps(row, ensure_ascii=False) + "\n"
            continue
        if not header:
            header = _header(row, top)
            yield _csv(header)
        flat = _flat(row)
        yield _csv([flat.get(column) for column in header])


def _header(row: Row, top: int) -> list[str]:
    if "bits_per_byte" in row:
        return ["file", "bytes", "bits_per_byte", "error"]
    more = [f"{name}_{place}" for place in range(2, top + 1) for name in ("class", "probability")]
    return ["file", "class", "probability", *more, "error"]


def _flat(row: Row) -> Row:
    best = row.get("top", [])
    return row | {f"{name}_{place}": entry[name] for place, entry in enumerate(best, 1) for name in entry}


def _csv(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(["" if cell is None else cell for cell in cells])
    return buffer.getvalue()
