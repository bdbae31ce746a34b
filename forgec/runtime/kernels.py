"""Native kernels of a program: what an image of machine code holds, and what launches of it look like.

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

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forgec.diagnostics import error
from forgec.runtime.driver import ABI, Driver
from forgec.runtime.plan import Entry, Launch, Plan, Reg
from forgec.runtime.symbolic import SymExpr

NAMESPACE = "kernel::"
GRID = "grid"
KERNEL_CODE, KERNEL_TABLE = "kernels/cpu.bin", "kernels/cpu.json"
MEMBERS = (KERNEL_CODE, KERNEL_TABLE)
FOLDER = "kernels/"
PAGE_BYTES = 4096
"""An image is padded to whole pages, so that nothing else shares its last one."""
MAX_SLOTS = 4096
MAX_TEXT = 4096

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
_ISA = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


def is_kernel(op: str) -> bool:
    """True for launches of native kernels."""
    return op.startswith(NAMESPACE)


def kernel_name(op: str) -> str:
    """The name of the kernel that an operation ``kernel::NAME`` calls."""
    return op.removeprefix(NAMESPACE)


@dataclass(frozen=True, slots=True)
class Kernel:
    """``offset`` is that of its first instruction in the image; it takes so many tensors (``parameters``) and extents
    (``symbols``). ``checks`` are the messages of its run-time checks, in the order of the numbers that it returns.

    ``serial``: its programs must run in order, one at a time, because they may write the same elements. Else any thread
    may run any of them at any time. ``cost_ns`` is an estimate of how long one program takes.
    """

    name: str
    offset: int
    parameters: int
    symbols: int
    checks: tuple[str, ...] = ()
    serial: bool = False
    cost_ns: int = 1000


@dataclass(frozen=True, slots=True)
class KernelTable:
    """What an image holds. ``isa`` is the instruction set that it was compiled for (``x86-64-v3``), ``features`` are
    LLVM's names of what it needs beyond that (``avx512bf16``). The ``driver`` is what launches go through."""

    isa: str
    kernels: tuple[Kernel, ...] = ()
    features: tuple[str, ...] = ()
    driver: Driver | None = None

    def find(self, name: str) -> Kernel | None:
        """The kernel of this name, if there is one."""
        return next((kernel for kernel in self.kernels if kernel.name == name), None)


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where the bytes of an image stand in a file; ``identity`` is its device and inode."""

    path: str
    identity: tuple[int, int]
    start: int


@dataclass(frozen=True, slots=True)
class NativeCode:
    """Position-independent machine code, and the table of its kernels. ``place``: the same bytes in a file."""

    table: KernelTable
    code: bytes | memoryview = field(repr=False)
    place: FilePlace | None = None


def padded(code: bytes) -> bytes:
    """The code in whole pages."""
    return code + bytes(-len(code) % PAGE_BYTES)


def to_json(table: KernelTable) -> dict[str, Any]:
    """The table as JSON-compatible data, the same for equal tables."""
    driver = table.driver
    return {
        "isa": table.isa,
        "features": list(table.features),
        "driver": None if driver is None else {"abi": driver.abi, "run": driver.run, "work": driver.work},
        "kernels": [
            {
                "name": kernel.name,
                "offset": kernel.offset,
                "parameters": kernel.parameters,
                "symbols": kernel.symbols,
                "checks": list(kernel.checks),
                "serial": kernel.serial,
                "cost_ns": kernel.cost_ns,
            }
            for kernel in table.kernels
        ],
    }


def from_json(data: object, code_bytes: int, where: str) -> KernelTable:
    """The table from parsed JSON, for an image of so many bytes. FORGE-A003 with the place when it is none."""
    try:
        table = _table(data)
        check_table(table, code_bytes)
    except ValueError as reason:
        raise error("FORGE-A003", f"the table of kernels of {where} is damaged: {reason}") from None
    return table


def check_table(table: KernelTable, code_bytes: int) -> None:
    """``ValueError`` unless the names are names, each once, and the offsets are inside the image."""
    seen: set[str] = set()
    driver = table.driver
    if driver is not None:
        if driver.abi != ABI:
            raise ValueError(f"its driver has version {driver.abi}, this runtime has {ABI}")
        if max(driver.run, driver.work) >= code_bytes:
            raise ValueError(f"the driver begins outside of an image of {code_bytes} bytes")
    for kernel in table.kernels:
        if not _NAME.fullmatch(kernel.name):
            raise ValueError(f"{kernel.name[:80]!r} is no name of a kernel")
        if kernel.name in seen:
            raise ValueError(f"kernel '{kernel.name}' occurs twice")
        if kernel.offset >= code_bytes:
            raise ValueError(f"kernel '{kernel.name}' begins at byte {kernel.offset} of an image of {code_bytes}")
        if kernel.parameters + kernel.symbols > MAX_SLOTS:
            raise ValueError(f"kernel '{kernel.name}' takes more than {MAX_SLOTS} arguments")
        seen.add(kernel.name)


def _table(data: object) -> KernelTable:
    fields = _object(data, ("isa", "features", "driver", "kernels"))
    isa, features, kernels = fields["isa"], fields["features"], fields["kernels"]
    if not isinstance(features, list) or not isinstance(kernels, list):
        raise ValueError("features and kernels are lists")
    if not all(isinstance(name, str) and _ISA.fullmatch(name) for name in (isa, *features)):
        raise ValueError("isa and features are names of instruction sets")
    return KernelTable(isa, tuple(map(_kernel, kernels)), tuple(features), _driver(fields["driver"]))


def _driver(data: object) -> Driver:
    fields = _object(data, ("abi", "run", "work"))
    if not all(_is_number(number) for number in fields.values()):
        raise ValueError("abi, run and work of the driver are numbers")
    return Driver(fields["run"], fields["work"], fields["abi"])


def _kernel(data: object) -> Kernel:
    fields = _object(data, ("name", "offset", "parameters", "symbols", "checks", "serial", "cost_ns"))
    name, checks = fields["name"], fields["checks"]
    if not isinstance(name, str):
        raise ValueError("a kernel has a name")
    offset, parameters, symbols = numbers = [fields[key] for key in ("offset", "parameters", "symbols")]
    if not all(map(_is_number, numbers)):
        raise ValueError(f"offset, parameters and symbols of kernel '{name[:80]}' are numbers")
    if not isinstance(checks, list) or not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in checks):
        raise ValueError(f"the checks of kernel '{name[:80]}' are texts")
    serial, cost_ns = fields["serial"], fields["cost_ns"]
    if type(serial) is not bool:
        raise ValueError(f"serial of kernel '{name[:80]}' is true or false")
    if not _is_number(cost_ns) or cost_ns < 1:
        raise ValueError(f"cost_ns of kernel '{name[:80]}' is a number of at least 1")
    return Kernel(name, offset, parameters, symbols, tuple(checks), serial, cost_ns)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _object(data: object, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(data, dict) or data.keys() != {*names}:
        raise ValueError(f"an object with {', '.join(names)} is expected")
    return data


def form_error(launch: Launch) -> str | None:
    """What is wrong with the kinds of a kernel launch's arguments, if anything is."""
    if not _NAME.fullmatch(kernel_name(launch.op)):
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
