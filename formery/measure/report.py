"""What every result of this room is: plain data that also prints itself as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Report:
    """A result: `as_dict()` is JSON, `table()` is for people; rich prints it as that table."""

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and mappings."""
        return asdict(self)

    def table(self) -> Table:
        """The result as a table."""
        raise NotImplementedError

    def __rich__(self) -> Table:
        return self.table()


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> Table:
    """A table whose first `texts` columns are texts and whose others are numbers."""
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < texts else "right", no_wrap=index < texts)
    for row in rows:
        made.add_row(*row)
    return made


def count(number: float) -> str:
    """A count with three digits and a unit: 11.9 M, 1.82 G."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= factor:
            return f"{number / factor:.3g}{unit}" if abs(number) < 999.5 * factor else f"{number / factor:.0f}{unit}"
    return f"{number:.3g}" if number % 1 else f"{number:.0f}"


def size(number: float) -> str:
    """Bytes in binary units."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if abs(number) >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number:.0f} B"


def time(seconds: float) -> str:
    """A time with three digits: 1.23 s, 45.6 ms, 7.89 us."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}" if seconds < 999.5 * factor else f"{seconds / factor:.0f} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def share(part: float | None) -> str:
    """A part of a whole in per cent; "-" where it is not known."""
    return "-" if part is None else f"{100 * part:.1f} %"
