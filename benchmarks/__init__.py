"""Side-by-side tables, each made again by one command: `python -m benchmarks` (what `make bench` runs)."""

import tests.tvshim  # noqa: F401  (before transformers or timm is imported)
