"""Side-by-side tables, each made again by one command: `python -m benchmarks` (what `make bench` runs)."""
