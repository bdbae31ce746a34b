"""Runs artifacts with numpy alone, for valgrind: ``python -S -I calls.py FOLDER THREADS NAME …``.

FOLDER holds the packages as ``packages``, and for each name the artifact and its arguments as ``NAME.npz``. Writes the
bytes of the results to ``NAME-THREADS.out``: memcheck then tells which of them were never computed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
sys.path[:0] = [str(FOLDER / "packages")]


def leaves(value: Any) -> list[Any]:
    """The arrays in a result, in order."""
    if isinstance(value, dict):
        value = [*value.values()]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, (list, tuple)) else [value]


def main(threads: int, names: list[str]) -> None:
    """Each artifact, called twice: the first call is checked more than others."""
    import ml_dtypes
    import numpy

    from forgec.runtime import load

    for name in names:
        stored = numpy.load(FOLDER / f"{name}.npz")
        given = {
            key: stored[key] if stored[key].ndim else stored[key].item() for key in stored
        }  # options are no arrays
        model = load(FOLDER / f"{name}.forge", threads=threads)
        half = {k.removesuffix(".bf16"): v.view(ml_dtypes.bfloat16) for k, v in given.items() if k.endswith(".bf16")}
        arguments = {**{k: v for k, v in given.items() if not k.endswith(".bf16")}, **half}
        descriptor = os.open(FOLDER / f"{name}-{threads}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for _ in range(2):
            for leaf in leaves(model(**arguments)):
                os.write(descriptor, numpy.ascontiguousarray(leaf).tobytes())
        os.close(descriptor)
        print(name, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[2]), sys.argv[3:])
