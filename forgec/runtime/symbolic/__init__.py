"""Integer expressions over named symbols, in canonical form: the extents, strides and sizes of dynamic shapes.

A ``SymExpr`` is a polynomial with integer coefficients whose atoms are symbols, ``floordiv(a, b)``, ``mod(a, b)``,
``max(a, ...)`` and ``min(a, ...)``. Equal canonical forms are equal objects (``==``, ``hash``), print alike and parse
back. Division rounds towards minus infinity, as in Python. Every symbol stands for an integer >= 0.

Every simplification holds for all values of the symbols for which the original is defined, that is, for which no
divisor is zero: ``floordiv(a * b, b)`` is ``a``. A constant collapses to ``int``; so a ``SymExpr`` is never constant.
"""

from forgec.runtime.symbolic.bounds import Bounds, bounds, is_nonnegative
from forgec.runtime.symbolic.expr import Extent, SymExpr, free_symbols, symbol
from forgec.runtime.symbolic.fold import floordiv, mod, sym_max, sym_min
from forgec.runtime.symbolic.text import parse
from forgec.runtime.symbolic.value import evaluate, substitute

__all__ = [
    "Bounds",
    "Extent",
    "SymExpr",
    "bounds",
    "evaluate",
    "floordiv",
    "free_symbols",
    "is_nonnegative",
    "mod",
    "parse",
    "substitute",
    "sym_max",
    "sym_min",
    "symbol",
]
