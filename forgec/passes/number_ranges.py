"""Which numbers a dtype holds."""

from __future__ import annotations

from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.symbolic import Extent, bounds, free_symbols

LONGEST = 2**28
"""Positions that an extent without a bound counts, at most: integers of 32 bits hold them and their differences."""

_INTEGERS = {"i64": (-(2**63), 2**63 - 1), "i32": (-(2**31), 2**31 - 1), "i16": (-(2**15), 2**15 - 1),
             "i8": (-128, 127), "ui8": (0, 255)}  # fmt: skip


def holds(dtype: str, low: int, high: int) -> bool:
    """True if the integers from ``low`` to ``high`` are all numbers of an integer dtype; of others nothing is said."""
    least, greatest = _INTEGERS.get(dtype, (low, high))
    return least <= low and high <= greatest


def position_bounds(extent: Extent) -> tuple[int, int]:
    """The least and the greatest value of what is computed from extents, as positions are."""
    if isinstance(extent, int):
        return extent, extent
    low, high = bounds(extent, dict.fromkeys(free_symbols(extent), (0, LONGEST)))
    return (-(2**64) if low is None else low), (2**64 if high is None else high)


def rounded(value: float, dtype: str) -> float:
    """The number as one of a floating-point dtype: infinity beyond the greatest."""
    import torch

    return torch.tensor(value, dtype=torch.float64).to(torch_dtype(dtype)).item()


def swallows(value: float, dtype: str) -> bool:
    """True for numbers that stay what they are whatever score is added to them in this dtype: far below all scores and
    so great that what lies between them and the next number of the dtype is greater than any score. float16 has no
    such number but -inf.
    """
    return value == -float("inf") or (dtype != "f16" and value <= -1e30)


def masks(value: float, dtype: str) -> bool:
    """True for numbers that, as a score, leave nothing of a weight beside a score that is not masked."""
    return value <= (-6e4 if dtype == "f16" else -1e9)
