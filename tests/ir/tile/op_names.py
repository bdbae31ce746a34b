"""The elementwise ops of ``arith`` and ``math`` by their operands, for the tests of every backend."""

from __future__ import annotations

from xdsl.dialects import arith

UNARY = (
    "absf", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "cos", "cosh", "erf", "erfc", "exp",
    "exp2", "expm1", "floor", "log", "log10", "log1p", "log2", "round", "roundeven", "rsqrt", "sin", "sinh", "sqrt",
    "tan", "tanh", "trunc",
)  # fmt: skip
"""Of one float, in ``math``."""
FLOAT_BINARY = ("addf", "subf", "mulf", "divf", "maximumf", "minimumf", "maxnumf", "minnumf", "remf")
FLOAT_BINARY_MATH = ("copysign", "powf", "atan2")
INT_BINARY = (
    "addi", "subi", "muli", "divsi", "remsi", "floordivsi", "ceildivsi", "divui", "remui", "ceildivui", "minsi",
    "maxsi", "minui", "maxui", "andi", "ori", "xori",
)  # fmt: skip
SHIFTS = ("shli", "shrui", "shrsi")
CMPF = tuple(arith.CMPF_COMPARISON_OPERATIONS)
CMPI = tuple(arith.CMPI_COMPARISON_OPERATIONS)
