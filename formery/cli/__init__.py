"""The command line: one file a command."""

from __future__ import annotations

import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    from types import FrameType


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises. Of this kind because Python's compiler, at work in every import, swallows any other."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> None:
    """Run `formery`; user mistakes are one line on stderr and exit code 2, an interrupt is exit code 130."""
    try:  # all imports stand inside: whoever interrupts at once wants no traceback
        import signal

        _speak_anything()
        signal.signal(signal.SIGTERM, _leave)
        from .app import run

        code = run(sys.argv[1:])
    except Terminated as end:
        code = 128 + end.number
    except KeyboardInterrupt:  # before the commands were there to answer it
        code = 130
    sys.exit(code)


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order when asked to: what is half written is removed on the way out."""
    raise Terminated(number)


def _speak_anything() -> None:
    """Names that the terminal's encoding has no letters for are written with escapes; a closed stdout takes all."""
    import io
    import os

    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
