"""Which product is faster on this machine: measured once, remembered in a file, overridden by whoever asks.

Products are told apart by their number of rows (one, few, many) and their work (medium, large). The choices
are remembered by processor, torch version and threads (see `formery.host`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch

from ... import host
from ...errors import BadSpec
from ..switch import Switch
from .products import available, onednn, plain

Mode = Literal["auto", "torch", "onednn"]

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
"""Where there is a choice."""

SHAPES = {
    "one medium": (1, 1024, 4096),
    "one large": (1, 4096, 4096),
    "few medium": (8, 512, 1024),
    "few large": (8, 2048, 4096),
    "many medium": (128, 128, 256),
    "many large": (197, 384, 1536),
}
"""Class of product -> the (rows, in, out) that speaks for it."""

SMALL, LARGE = 2**20, 2**24
"""Multiply-accumulates below which torch's product is taken unasked (20 us at most: nothing wins back what choosing
costs, and oneDNN's own call is the slower one), and from which on a product is large."""

SMALL_ROW = 2**17
"""The same for a single row: it takes as long as its weights take from memory, where oneDNN's product is the faster one
(768 x 1152 that no cache holds: 168 us against 247, two threads of an AMD EPYC, torch 2.13)."""

FEW = 16
"""Rows from which on there are many."""

COLD = 2**26
"""Bytes of weights that are gone through before one comes again where rows are few: a model's own come from memory too,
and from a cache another product may win."""

ROUNDS = 9
MARGIN = 0.95
"""A form is chosen over the simpler one if its fastest round takes less than this part of the other's fastest."""


class Choice(NamedTuple):
    """For one class of product: oneDNN's product instead of torch's, its packed weight instead of either, and oneDNN's
    product where an activation follows, which it fuses (in bfloat16 torch's product is oneDNN's, without fusing)."""

    onednn: bool
    packed: bool
    fused: bool


Table = dict[str, dict[str, Choice]]
"""Name of the dtype -> class of product -> choice."""


class Memory:
    """What this process knows: the tables by number of threads, and the table that was imposed."""

    def __init__(self) -> None:
        self.tables: dict[int, Table] = {}
        self.imposed: Table | None = None
        self.lock = threading.RLock()

    def table(self) -> Table:
        """The choices in force, found in the file or measured if need be."""
        if self.imposed is not None:
            return self.imposed
        threads = torch.get_num_threads()
        found = self.tables.get(threads)
        if found is None:
            with self.lock:
                if threads not in self.tables:
                    self.tables[threads] = _from_json(host.remembered("linear", threads)) or _measured_and_kept(threads)
                found = self.tables[threads]
        return found


MEMORY = Memory()
SWITCH = Switch("the linear backend", "FORMERY_LINEAR", get_args(Mode))


def mode() -> Mode:
    """What decides: what `using`, else FORMERY_LINEAR, asks for; without either 'auto', the measurements."""
    return SWITCH()  # type: ignore[return-value]


def using(name: Mode) -> AbstractContextManager[None]:
    """Within the block, dense layers use the product `name` wherever it applies ('auto': the faster one)."""
    return SWITCH.using(name)


def choose(rows: int, inner: int, outer: int, dtype: torch.dtype) -> Choice:
    """The product for x (rows, inner) and a weight (outer, inner) of `dtype`."""
    asked = mode()
    if asked != "auto":
        return _all(asked == "onednn")
    work = rows * inner * outer
    many = "one" if rows == 1 else "few" if rows < FEW else "many"
    return MEMORY.table()[DTYPES[dtype]][f"{many} {'medium' if work < LARGE else 'large'}"]


def chosen() -> dict[str, Any]:
    """The choices in force as plain data for a journal; `impose` of it repeats them."""
    table = MEMORY.table() if available() else _everywhere(_all(False))
    return {"mode": mode(), **_to_json(table)}


def impose(data: dict[str, Any] | None) -> None:
    """Choose in this process as `data` (from `chosen`) says, so that a resumed run rounds as it did; None lifts it.

    BadSpec if it is not what `chosen` gives. A mode other than 'auto' in it holds for every product; `using` and
    FORMERY_LINEAR still come first. The number of threads is not in it: sums are split by it, so keep it equal too.
    """
    if data is None:
        MEMORY.imposed = None
        return
    name = SWITCH.valid(str(data.get("mode")), "the mode of the imposed linear choices")
    table = _from_json(data)
    if table is None:
        raise BadSpec(
            "the imposed linear choices are not what ops.linear.chosen() gives; take them from a journal unchanged"
        )
    MEMORY.imposed = table if name == "auto" else _everywhere(_all(name == "onednn"))


@contextmanager
def imposed(data: dict[str, Any] | None) -> Iterator[None]:
    """`impose(data)` for a block of code; afterwards what was imposed before holds again. None changes nothing."""
    before = MEMORY.imposed
    if data is not None:
        impose(data)
    try:
        yield
    finally:
        MEMORY.imposed = before


def _all(onednn: bool) -> Choice:
    return Choice(onednn, onednn, onednn)


def _everywhere(choice: Choice) -> Table:
    return {dtype: dict.fromkeys(SHAPES, choice) for dtype in DTYPES.values()}


def _to_json(table: Table) -> dict[str, Any]:
    return {dtype: {name: choice._asdict() for name, choice in choices.items()} for dtype, choices in table.items()}


def _from_json(data: Any) -> Table | None:
    """The table in `data`; None if anything is missing or of another type."""
    try:
        table = {d: {name: Choice(**data[d][name]) for name in SHAPES} for d in DTYPES.values()}
    except (KeyError, TypeError):
        return None
    values = [value for choices in table.values() for choice in choices.values() for value in choice]
    return table if all(isinstance(value, bool) for value in values) else None


def _measured_and_kept(threads: int) -> Table:
    table = measure()
    host.remember("linear", threads, _to_json(table))
    return table


def measure() -> Table:
    """Time the products of every class and dtype here, interleaved; the random state is left alone. About a second."""
    if not available():
        return _everywhere(_all(False))
    with torch.inference_mode():
        return {
            name: {shape: _race(*sizes, dtype) for shape, sizes in SHAPES.items()} for dtype, name in DTYPES.items()
        }


def _race(rows: int, inner: int, outer: int, dtype: torch.dtype) -> Choice:
    x = torch.full((rows, inner), 0.5, dtype=dtype)
    size = outer * inner * dtype.itemsize
    copies = 1 if rows >= FEW else -(-COLD // size) + 1
    weights = [torch.full((outer, inner), 0.5, dtype=dtype) for _ in range(copies)]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight) for weight in weights]
    bias = torch.zeros(outer, dtype=dtype)
    runs: list[tuple[Callable[..., Any], list[torch.Tensor], str | None]] = [
        (plain, weights, None),
        (onednn, weights, None),
        (onednn, packed, None),
        (plain, weights, "gelu"),
        (onednn, weights, "gelu"),
    ]
    best = [float("inf")] * len(runs)
    for turn in range(ROUNDS + 1):
        for index, (product, matrices, activation) in enumerate(runs):
            matrix = matrices[(turn * len(runs) + index) % copies]
            start = time.perf_counter()
            product(x, matrix, bias, activation)
            if turn:  # the first turn warms up
                best[index] = min(best[index], time.perf_counter() - start)
    own, other, laid_out, activated, fused = best
    return Choice(other < MARGIN * own, laid_out < MARGIN * min(own, other), fused < MARGIN * activated)
