"""Native kernels of a program: what launches of them look like. ``kernel_table`` says what the machine code is.

A launch ``kernel::NAME`` calls the kernel NAME. Its arguments are the tensors (registers), then the extents (integers
or expressions); the keyword argument ``grid`` is a tuple of extents, whose product is the number of programs::

    kernel::scale(%x, %y, s0, grid=[s0, 4])    writes %y

The kernel is a function ``i32 NAME(ptr ctx, ptr args, i64 begin, i64 end)``, which runs the programs [begin, end) of
the grid (row-major: the last axis fastest). ``args`` are 8-byte slots: the address of each tensor's first element, then
each extent. Tensors lie as their registers say; an address is a multiple of the element's size only if the caller's
bytes are. ``ctx`` is null. It returns 0, or the number (from 1) of the check that failed. Launches go through the
image's driver (``runtime/driver.py``), which runs a row of them in one call, on one thread or several.
"""

from __future__ import annotations

from collections.abc import Mapping

from forgec.diagnostics import error
from forgec.runtime.kernel_table import FilePlace, Kernel, KernelTable, NativeCode, is_name
from forgec.runtime.plan import Entry, Launch, Plan, Reg
from forgec.runtime.symbolic import SymExpr

__all__ = [
    "GRID",
    "NAMESPACE",
    "FilePlace",
    "Kernel",
    "KernelTable",
    "NativeCode",
    "check_launches",
    "form_error",
    "is_kernel",
    "kernel_name",
    "parameters_of",
]

NAMESPACE = "kernel::"
GRID = "grid"


def is_kernel(op: str) -> bool:
    """True for launches of native kernels."""
    return op.startswith(NAMESPACE)


def kernel_name(op: str) -> str:
    """The name of the kernel that an operation ``kernel::NAME`` calls."""
    return op.removeprefix(NAMESPACE)


def form_error(launch: Launch) -> str | None:
    """What is wrong with the kinds of a kernel launch's arguments, if anything is."""
    if not is_name(kernel_name(launch.op)):
        return f"{launch.op[:80]} names no kernel"
    tensors = parameters_of(launch)
    if not all(isinstance(value, Reg) for value in launch.args[:tensors]) or not all(
        _is_extent(value) for value in launch.args[tensors:]
    ):
        return f"{launch.op} takes tensors, then extents"
    if [name for name, _ in launch.kwargs] != [GRID]:
        return f"{launch.op} takes one keyword argument, grid"
    grid = launch.kwargs[0][1]
    if not isinstance(grid, tuple) or not all(map(_is_extent, grid)):
        return f"the grid of {launch.op} is a list of extents"
    if launch.results or launch.defines:
        return f"{launch.op} returns nothing"
    return None


def parameters_of(launch: Launch) -> int:
    """How many tensors a launch of a kernel passes."""
    return sum(isinstance(value, Reg) for value in launch.args)


def _is_extent(value: object) -> bool:
    return isinstance(value, SymExpr) or (type(value) is int and 0 <= value < 1 << 62)


def check_launches(plan: Plan, table: KernelTable | None) -> None:
    """FORGE-A004 for the first launch of a kernel that is not there, or that takes other arguments."""
    known = {kernel.name: kernel for kernel in table.kernels} if table is not None else {}
    if known and table is not None and table.driver is None:
        raise error("FORGE-A004", "the image of the kernels has no driver")
    for entry in plan.entries:
        for number, launch in enumerate(entry.launches):
            if is_kernel(launch.op):
                _check_launch(entry, number, launch, known)


def _check_launch(entry: Entry, number: int, launch: Launch, known: Mapping[str, Kernel]) -> None:
    kernel = known.get(kernel_name(launch.op))
    where = f"launch {number} of entry '{entry.name}'"
    if kernel is None:
        raise error("FORGE-A004", f"{where} calls kernel '{kernel_name(launch.op)}', which is not there")
    tensors = parameters_of(launch)
    extents = len(launch.args) - tensors
    if (tensors, extents) != (kernel.parameters, kernel.symbols):
        takes = f"takes {kernel.parameters} tensors and {kernel.symbols} extents"
        raise error("FORGE-A004", f"{where} gives kernel '{kernel.name}' {tensors} and {extents}, it {takes}")
