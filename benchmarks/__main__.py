"""``python -m benchmarks [name …]``: all benchmarks, or those named; models may follow one of ``OF_MODELS``."""

from __future__ import annotations

import argparse
import importlib

from benchmarks.measure import machine

NAMES = (
    "startup",
    "compile_time",
    "kernel_compile",
    "roofline",
    "ops",
    "products",
    "compile_memory",
    "latency",
    "fidelity",
    "weights",
)

OTHERS = ("peers", "schedule_growth", "schedule_kernels")
"""Those that only run when named."""
OF_MODELS = ("kernel_compile", "roofline", "ops", "products", "peers")
"""Those whose further arguments are names of models."""


def main() -> None:
    """Run the benchmarks in order, in this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures forgec on this machine.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"{', '.join((*NAMES, *OTHERS))} (default: all but {', '.join(OTHERS)}); "
        f"after one of {', '.join(OF_MODELS)}, names of models",
    )  # fmt: skip
    given = parser.parse_args().names
    names = [name.replace("-", "_") for name in given]
    with_models = names[:1] and names[0] in OF_MODELS
    if with_models:
        names[1:] = given[1:]
    unknown = [] if with_models else [name for name in names if name not in (*NAMES, *OTHERS)]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}: {', '.join((*NAMES, *OTHERS))}")
    import torch

    print(f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    if with_models and names[1:]:
        return importlib.import_module(f"benchmarks.{names[0]}").main(names[1:])
    for name in names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
