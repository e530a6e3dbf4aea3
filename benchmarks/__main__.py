"""`python -m benchmarks`: make every table again."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

TABLES = ("images", "deployed", "steps", "merged", "hybrid", "language", "decoding")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"which ones: {', '.join(TABLES)} (all unless named)")
    parser.add_argument("--only", default="", help="cells whose words contain this, such as 'vit_small float32'")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="a cell of images (half of it for the others), warming up apart"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the tables")
    asked = parser.parse_args()
    if unknown := set(asked.tables) - set(TABLES):
        parser.error(f"no table is called {', '.join(sorted(unknown))}; there are: {', '.join(TABLES)}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as fresh:
        os.environ["FORMERY_CACHE"] = fresh  # products and rates are measured anew, under the conditions of this run
        failures = [failure for name in asked.tables or TABLES for failure in made(name, asked)]
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 1 if failures else 0


def made(name: str, asked: argparse.Namespace) -> list[str]:
    """Measure and write a table; what could not be measured."""
    import torch

    torch.set_num_threads(asked.threads)
    table = import_module(f".{name}", __package__).table
    record = table(asked.threads, asked.seconds, asked.only)
    if record.cells or record.failures:
        record.write(asked.out)
    return record.failures


if __name__ == "__main__":
    sys.exit(main())
