"""The vector functions of kernels in float32, on all of its numbers, against float64.

    python -m tools.check_math [NAME …] [--every N] [--processes N] [--cpu host|x86-64-v3|…]

For each function of one argument the largest error in ulp over all 2³² arguments (``--every N``: over one of N, spread
evenly), and where it is. The reference is NumPy's or torch's function in float64, whose own error of some ulp there is
about 2⁻²⁸ ulp here. Of functions of two arguments, which have 2⁶⁴, the tests take samples alone. The exit status is 1
if a function errs by more than its limit. All functions take about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from xdsl.ir import SSAValue

from forgec.backends.cpu import vector_math
from forgec.backends.cpu.emitter import Emitter
from forgec.backends.cpu.llvm_types import f32, f64, i64, vector
from tests.backends.cpu.native import elementwise
from tests.backends.cpu.test_vector_math import LIMITS_32, compiled, reference

LANES = 16
CHUNK = 1 << 16
"""Arguments at a time: what is computed of them stays in the cache."""
PARTS = 64
"""Pieces that processes take."""


@cache
def measured(name: str, cpu: str) -> Callable[..., None]:
    """A function of x (float32), of the exact result (float64), and of where it puts the error in ulp (float32).

    The unit is that of the exact result's binade, and never less than the least subnormal. The error is infinite where
    signs differ, also of zeros, and no finite number where a result is none.
    """

    def compute(e: Emitter, values: list[SSAValue]) -> SSAValue:
        ours, exact = vector_math.UNARY[name](e, values[0]), values[1]
        exponent = e.and_(e.lshr(e.bitcast(exact, vector(i64, LANES)), 52), 2047)
        exponent = e.smin(e.smax(exponent, 1023 - 126), 1023 + 127)
        scale = e.bitcast(e.shl(e.sub(2 * 1023 + 23, exponent), 52), vector(f64, LANES))  # 1/ulp
        distance = e.fmul(e.fabs(e.fsub(e.convert(ours, f64), exact)), scale)
        bits = (e.bitcast(v, vector(i64, LANES)) for v in (e.convert(ours, f64), exact))
        signs = e.icmp("slt", e.xor(*bits), 0)
        return e.convert(e.select(signs, float("inf"), distance), f32)

    return elementwise(compute, [vector(f32, LANES), vector(f64, LANES)], vector(f32, LANES), cpu)


def worst_of(name: str, cpu: str, every: int, part: int) -> tuple[float, float]:
    """The largest error of a piece of all arguments, and the argument."""
    torch.set_num_threads(1)
    measure, function, exact = measured(name, cpu), compiled(name, f32, LANES, cpu), reference(name)
    length = 2**32 // PARTS
    worst, where = -1.0, 0.0
    error = np.empty(CHUNK, np.float32)
    for first in range(part * length, (part + 1) * length, CHUNK * every):
        # The last arguments are repeated where a chunk would go beyond the piece.
        numbers = np.arange(CHUNK, dtype=np.uint32) * np.uint32(every) + np.uint32(first)
        x = np.minimum(numbers, np.uint32((part + 1) * length - 1)).view(np.float32)
        with np.errstate(all="ignore"):
            y = exact(x.astype(np.float64))
            measure(x, y, error)
            special = ~(error <= 1e6)
            if special.any():
                error[special] = special_errors(function(x)[special], y[special], error[special])
        place = int(error.argmax())
        if error[place] > worst:
            worst, where = float(error[place]), float(x[place])
    return worst, where


def special_errors(ours: Any, exact: Any, error: Any) -> Any:
    """0 where a result that is no finite number, or a zero, is the right one; 1 for an infinity beside the largest
    number, where that is less than an ulp away."""
    rounded = exact.astype(np.float32)
    same = (ours.view(np.uint32) == rounded.view(np.uint32)) | (np.isnan(ours) & np.isnan(rounded))
    largest = float(np.finfo(np.float32).max)
    border = (np.isinf(ours) ^ np.isinf(rounded)) & (np.abs(np.abs(exact) - largest) <= largest * 2.0**-23)
    finite = np.where(np.isfinite(error), error, np.inf)
    return np.where(same, 0.0, np.where(border, 1.0, finite))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each function."""
    parser = argparse.ArgumentParser(prog="python -m tools.check_math", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(vector_math.UNARY)} (default: all)")
    parser.add_argument("--every", type=int, default=1, help="take one of so many arguments")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu", default="host", help="the processor that functions are compiled for")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in vector_math.UNARY]
    if unknown:
        parser.error(f"there is no function {unknown[0]!r} of one argument")
    failed = False
    with get_context("fork").Pool(chosen.processes) as pool:
        for name in chosen.names or vector_math.UNARY:
            started = time.monotonic()
            found = pool.imap_unordered(partial(worst_of, name, chosen.cpu, chosen.every), range(PARTS))
            worst, where = max(found)
            wrong = not worst <= LIMITS_32[name]
            failed = failed or wrong
            seconds = time.monotonic() - started
            limit = f"  more than {LIMITS_32[name]}" if wrong else ""
            print(f"{name:12}{worst:8.3f} ulp at {where!r:24}{seconds:6.0f} s{limit}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
