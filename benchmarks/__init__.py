"""What docs/performance.md reports: each benchmark prints its table; run them on an idle machine with ``python -m
benchmarks``."""
