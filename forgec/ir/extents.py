"""The values of symbols, from the extents of actual tensors."""

from __future__ import annotations

from collections.abc import Sequence

from forgec.diagnostics import error
from forgec.runtime.symbolic import Extent, SymExpr, evaluate, free_symbols


def bind(shapes: Sequence[Sequence[Extent]], actual: Sequence[Sequence[int]]) -> dict[str, int]:
    """The symbols that ``shapes`` name, so that each shape has the value of the actual one.

    An extent that is a symbol (or ``a * symbol + b``) binds it; all others are checked. FORGE-R003 where extents
    disagree.
    """
    pairs = [pair for shape, sizes in zip(shapes, actual, strict=True) for pair in zip(shape, sizes, strict=True)]
    symbols: dict[str, int] = {}
    for extent, size in sorted(pairs, key=lambda pair: not _is_symbol(pair[0])):
        unknown = sorted(free_symbols(extent) - symbols.keys())
        if len(unknown) == 1:
            solution = _solve(extent, unknown[0], symbols, size)
            if solution is not None:
                symbols[unknown[0]] = solution
        elif unknown:
            continue
        if free_symbols(extent) <= symbols.keys() and evaluate(extent, symbols) != size:
            raise error("FORGE-R003", f"an extent is {size}, but {extent} is {evaluate(extent, symbols)}")
    return symbols


def _is_symbol(extent: Extent) -> bool:
    return isinstance(extent, SymExpr) and str(extent).isidentifier()


def _solve(extent: Extent, name: str, symbols: dict[str, int], size: int) -> int | None:
    """The value of a symbol that occurs linearly; None where it does not (or the extent is no multiple)."""
    at = [evaluate(extent, {**symbols, name: value}) for value in (0, 1, 2, 7)]
    slope = at[1] - at[0]
    if slope <= 0 or at[2] != at[0] + 2 * slope or at[3] != at[0] + 7 * slope:
        return None
    value, rest = divmod(size - at[0], slope)
    return None if rest or value < 0 else value
