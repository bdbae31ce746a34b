"""``python -m benchmarks [name …]``: all benchmarks, or those named; ``kernel_compile [model …]``."""

from __future__ import annotations

import importlib
import sys

from benchmarks.measure import machine

NAMES = ("startup", "compile_time", "kernel_compile", "compile_memory", "latency", "fidelity")


def main() -> None:
    """Run the benchmarks in order, in this process."""
    import torch

    print(f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    if sys.argv[1:2] == ["kernel_compile"] and sys.argv[2:]:
        from benchmarks import kernel_compile

        return kernel_compile.main(sys.argv[2:])
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
