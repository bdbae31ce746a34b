"""Copies between registers as launches of machine code, so that they do not part the kernels before and after them.

Bufferization copies where two values must not be in the same bytes, long after kernels were made. ``forgec_copy``, a
function that every driver brings, copies elements of any size between any two layouts of one shape. It has the form of
a kernel (``runtime/kernels.py``); its slots are the ``FIELDS`` and then, for each axis but the innermost, the extent
and the bytes from one element to the next in target and source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from forgec.runtime.aten import is_copy
from forgec.runtime.driver import COPY
from forgec.runtime.extents import symbol_sources
from forgec.runtime.kernel_table import Kernel
from forgec.runtime.kernels import is_kernel
from forgec.runtime.plan import Entry, External, Launch, Reg, View
from forgec.runtime.symbolic import SymExpr, free_symbols

FIELDS = ("to", "from", "item", "count", "piece", "pieces", "to_step", "from_step", "rank")
"""The addresses, then numbers: bytes of an element, the extent of the innermost axis, how much of it is a program and
how many programs it has, the bytes from one of its elements to the next, and the number of axes outside of it."""
AXES = len(FIELDS)
PIECE_BYTES = 1 << 15
_BYTES_PER_NS, _NS = 8, 10


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy with numbers: what it has in its slots after the addresses, its programs, and the ns of one."""

    numbers: tuple[int, ...]
    programs: int
    cost_ns: int

    @property
    def kernel(self) -> Kernel:
        """What runs it, as a kernel."""
        return Kernel(COPY, 0, 2, len(self.numbers), cost_ns=self.cost_ns)


def native_launches(entry: Entry) -> list[bool]:
    """For each launch whether it is machine code: kernels are, and in an entry that has some, so are copies on the CPU
    between registers whose extents are known when the call begins."""
    native = [is_kernel(launch.op) for launch in entry.launches]
    if any(native):
        known = {*entry.given} if entry.private else {source.symbol for source in symbol_sources(entry)}
        for position, launch in enumerate(entry.launches):
            native[position] = native[position] or _is_native_copy(entry, launch, known)
    return native


def _is_native_copy(entry: Entry, launch: Launch, known: set[str]) -> bool:
    return is_copy(launch, entry) and all(
        isinstance(value, Reg) and _is_known(entry, value.id, known) for value in launch.args
    )


def _is_known(entry: Entry, number: int, known: set[str]) -> bool:
    register = entry.registers[number]
    root = entry.registers[register.base] if isinstance(register, View) else register
    specs = (register.spec, root.spec) if isinstance(root, External) else (register.spec,)
    extents = [extent for spec in specs for extent in (*spec.shape, *spec.strides)]
    return register.device == "cpu" and all(
        free_symbols(extent) <= known for extent in extents if isinstance(extent, SymExpr)
    )


def copy_of(item: int, to: tuple[Sequence[int], Sequence[int]], source: tuple[Sequence[int], Sequence[int]]) -> Copy:
    """The copy between shapes and strides (in elements of ``item`` bytes); extents of 1 in the source are repeated.
    ``ValueError`` when the source does not have the target's shape otherwise."""
    shape, strides = to
    given, steps = source
    missing = len(shape) - len(given)
    if missing < 0:
        raise ValueError(f"{list(given)} cannot be copied into {list(shape)}")
    axes: list[tuple[int, int, int]] = []
    for extent, to_step, has, step in zip(
        shape, strides, [*[1] * missing, *given], [*[0] * missing, *steps], strict=True
    ):
        if has not in (1, extent):
            raise ValueError(f"{list(given)} cannot be copied into {list(shape)}")
        if extent != 1:
            axes.append((extent, to_step * item, 0 if has == 1 else step * item))
    axes = _joined(sorted(axes, key=lambda axis: -axis[1]))
    count, to_step, from_step = axes.pop() if axes else (1, item, item)
    piece = max(min(count, PIECE_BYTES // item), 1)
    pieces = -(-count // piece)
    is_dense = to_step == from_step == item
    cost = _NS + (piece * item // _BYTES_PER_NS if is_dense else piece)
    numbers = (item, count, piece, pieces, to_step, from_step, len(axes), *(n for axis in axes for n in axis))
    return Copy(numbers, pieces * prod(extent for extent, _, _ in axes), cost)


def _joined(axes: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same with axes joined that go on where the next inner one ends, in target and source."""
    joined: list[tuple[int, int, int]] = []
    for extent, to, source in axes:
        if joined and joined[-1][1:] == (extent * to, extent * source):
            joined[-1] = (joined[-1][0] * extent, to, source)
        else:
            joined.append((extent, to, source))
    return joined
