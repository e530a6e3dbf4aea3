"""The command line: one file a command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `formery`; user mistakes are one line on stderr and exit code 2, an interrupt is exit code 130."""
    from .app import run

    sys.exit(run(sys.argv[1:]))
