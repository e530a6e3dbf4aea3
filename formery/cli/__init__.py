"""The command line: one file a command."""

from __future__ import annotations

import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run `formery`; user mistakes are one line on stderr and exit code 2, an interrupt is exit code 130."""
    try:  # all imports stand inside: whoever interrupts at once wants no traceback
        import signal

        _speak_anything()
        signal.signal(signal.SIGTERM, _leave)
        from .app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the commands were there to answer it
        code = 130
    sys.exit(code)


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order when asked to: what is half written is removed on the way out."""
    sys.exit(128 + number)


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
