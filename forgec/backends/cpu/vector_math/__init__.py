"""Elementary functions of kernels, built from arithmetic: no library is called.

Each takes an ``Emitter`` and values of float32 or float64, scalars or vectors of any width (float16 and bfloat16 go
through float32), and returns the result. Errors are at most 2 ulp, but for ``erfc`` of float64 (4 ulp); NaN,
infinities, signed zeros and subnormals are as in C. They need fused multiply-add (x86-64-v3 has it).
"""

from __future__ import annotations

from forgec.backends.cpu.vector_math.arithmetic import Function
from forgec.backends.cpu.vector_math.error_function import erf, erfc
from forgec.backends.cpu.vector_math.exponential import (
    cosh,
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    pow,  # noqa: A004
    sinh,
    tanh,
)
from forgec.backends.cpu.vector_math.rounding import ceil, floor, fmod, remainder, round_even, rsqrt, sqrt, trunc
from forgec.backends.cpu.vector_math.trigonometric import acos, asin, atan, atan2, cos, sin, tan

UNARY: dict[str, Function] = {
    f.__name__: f
    for f in (
        *(exp, exp2, expm1, log, log2, log10, log1p, sqrt, rsqrt),
        *(sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, erf, erfc),
        *(floor, ceil, round_even, trunc),
    )
}
BINARY: dict[str, Function] = {f.__name__: f for f in (pow, atan2, fmod, remainder)}

__all__ = [
    "BINARY",
    "UNARY",
    "acos",
    "asin",
    "atan",
    "atan2",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "fmod",
    "log",
    "log1p",
    "log2",
    "log10",
    "pow",
    "remainder",
    "round_even",
    "rsqrt",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
]
