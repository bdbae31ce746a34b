"""``python -m benchmarks [name …]``: all benchmarks, or those named; models may follow one of ``OF_MODELS``."""

from __future__ import annotations

import importlib
import sys

from benchmarks.measure import machine

NAMES = ("startup", "compile_time", "kernel_compile", "roofline", "compile_memory", "latency", "fidelity", "weights")

OF_MODELS = ("kernel_compile", "roofline", "peers")
"""Those whose further arguments are names of models."""


def main() -> None:
    """Run the benchmarks in order, in this process."""
    import torch

    print(f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    if sys.argv[1:2] and sys.argv[1] in OF_MODELS and sys.argv[2:]:
        return importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
