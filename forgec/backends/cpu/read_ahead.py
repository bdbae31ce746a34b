"""What is asked for before it is read: short rows that lie apart in memory, and elements in lines of their own.

The processor reads ahead by itself where it has seen some lines of a run. To ask for a line reads nothing, wherever it
is, so that no end has to be minded.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.llvm_types import size_bytes
from forgec.backends.cpu.places import Place
from forgec.backends.cpu.tiles import Kernel, lane_axis

LINE_BYTES = 64
LONGEST_RUN, RUN_AHEAD = 16 << 10, 4 << 10
"""Bytes of the longest rows that are asked for, and how far ahead."""
ROW_AHEAD = 64
"""Elements in lines of their own that are asked for before they are read."""
ROWS_AT_MOST = 16


def rows_ahead(shape: Sequence[int], strides: Sequence[Place], size: int, *, reduced: bool) -> int:
    """How many elements after one of a tile that is loaded the one is that is asked for meanwhile; 0: none.

    Tiles that are turned, and not ``reduced``, are read a square at a time, of which each row is a short run: asking
    for more does not pay.
    """
    along = next((dim for dim, extent in enumerate(shape) if extent > 1 and strides[dim] == 1), None)
    if along is None or not (reduced or along == lane_axis(shape)):
        return 0
    others = [(stride, dim) for dim, stride in enumerate(strides) if isinstance(stride, int) and dim != along]
    apart, dim = min((each for each in others if shape[each[1]] > 1), default=(0, 0))
    run = shape[along] * size
    if not run < apart * size or run > LONGEST_RUN:
        return 0
    rows = 1 if run >= RUN_AHEAD else min(shape[dim], ROWS_AT_MOST)  # a nest may read them side by side
    return -(-RUN_AHEAD // (run * rows)) * rows * apart


def place_ahead(k: Kernel, shape: Sequence[int], places: Sequence[Place], axis: int, lanes: int) -> tuple[Place, ...]:
    """The place of a gathered tile that is asked for when one is read: in the next row, or further on in the only
    one."""
    rows = [dim for dim, extent in enumerate(shape[:axis]) if extent > 1]
    dim, step, last = (rows[-1], 1, 1) if rows else (axis, ROW_AHEAD, lanes)
    found = list(places)
    found[dim] = k.min(k.add(found[dim], step), max(shape[dim] - last, 0))
    return tuple(found)


def ask(k: Kernel, pointer: SSAValue, element: Attribute, lanes: int, stride: int = 1) -> None:
    """Ask for so many elements ``stride`` apart, line by line."""
    step = max(1, LINE_BYTES // (size_bytes(element) * max(abs(stride), 1)))
    for lane in range(0, lanes, step):
        k.e.prefetch(k.address(pointer, lane * stride, element))
