"""Stop strings, wherever in a token they begin or end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import BadSpec


class Stops:
    """Text comes in piece by piece; out comes what no stop string can take back any more."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if isinstance(stops, str):
            stops = [stops]
        if not isinstance(stops, Iterable) or not all(isinstance(stop, str) and stop for stop in stops):
            raise BadSpec(f"stop strings are texts of at least one letter each, got {stops!r}")
        self.stops = tuple(stops)
        self.held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The part of everything so far that is certain and was not given yet; `stopped` says that this was all."""
        if self.stopped:
            return ""
        self.held += text
        places = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        self.stopped = bool(places)
        keep = min(places) if places else len(self.held) - self._open()
        out, self.held = self.held[:keep], self.held[keep:]
        return out

    def end(self) -> str:
        """What was held back for a stop string that did not come."""
        out, self.held = ("" if self.stopped else self.held), ""
        return out

    def _open(self) -> int:
        """Letters at the end that a stop string may begin with."""
        longest = max((len(stop) for stop in self.stops), default=1) - 1
        for size in range(min(longest, len(self.held)), 0, -1):
            if any(stop.startswith(self.held[-size:]) for stop in self.stops):
                return size
        return 0
