"""What all calls of one entry point share: its operations and params, and what has to happen between its launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from forgec.diagnostics import Location
from forgec.runtime.aten import Operation
from forgec.runtime.binding import first_writes, returned_roots, row_bounds, rows_of
from forgec.runtime.native_copy import native_launches
from forgec.runtime.plan import Entry, External, Input, Number, Output, Register, State, SymbolDecl, View
from forgec.runtime.plan_check import registers_of
from forgec.runtime.tensor_library import Tensor, TensorLibrary

if TYPE_CHECKING:
    from forgec.runtime.code_image import CodeImage

Take: TypeAlias = "tuple[int | None, int]"
"""(position among a launch's results, or None when it returns one tensor; the External register that takes it)."""


@dataclass(slots=True)
class After:
    """What follows a launch: ``takes`` of its results, registers to drop, Output registers to allocate for the next
    one.

    ``may_alias``: a result taken may share memory with an argument, and is copied then. ``defines``: symbols whose
    values are the integers that a result holds.
    """

    takes: list[Take] = field(default_factory=list)
    drops: list[int] = field(default_factory=list)
    allocates: list[int] = field(default_factory=list)
    may_alias: bool = False
    defines: list[tuple[int, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.takes or self.drops or self.allocates or self.defines)


class Calls(Protocol):
    """The other entries of the program."""

    def find(self, name: str) -> Entry:
        """An entry by name."""
        ...

    def call_private(
        self, name: str, values: Mapping[str, int], tensors: Sequence[Tensor], library: TensorLibrary
    ) -> list[Any]:
        """Run a private entry with these values of the symbols, on tensors of a library."""
        ...


class Executable:
    """An entry point, linked and analysed. ``params`` are tensors of the ``library`` by register number; ``locations``
    are the plan's.

    A register is *transient* when it holds another tensor in each call (inputs, states, outputs, externals);
    ``views`` lists for each of these its views that are used as tensors (machine code needs the address only).
    ``leaves`` lists the output leaves that a register fills. ``rows`` are the launches in order, first and one past the
    last: those of machine code (``native``: kernels, and copies between them) that follow each other are one row, any
    other launch is one of its own.
    """

    def __init__(
        self,
        entry: Entry,
        operations: Sequence[Operation],
        params: Mapping[int, Tensor],
        library: TensorLibrary,
        locations: Sequence[Location],
        symbols: Sequence[SymbolDecl] = (),
        calls: Calls | None = None,
        image: CodeImage | None = None,
        threads: int | None = None,
    ) -> None:
        self.entry = entry
        self.symbols = {declared.name: declared for declared in symbols}
        self.calls = calls
        self.kernels = {} if image is None else image.kernels
        self.driver = None if image is None else image.driver()
        self.threads = threads
        self.operations = operations
        self.params = params
        self._library = library
        self._addresses: dict[int, tuple[Tensor, int]] = {}
        self.locations = locations
        registers = entry.registers
        self.leaves: dict[int, list[int]] = {}
        for leaf, number in enumerate(entry.outputs):
            if isinstance(number, Number):
                number = number.id
            if isinstance(number, int):
                self.leaves.setdefault(number, []).append(leaf)
        self.numbers = [operation.numbers(launch) for operation, launch in zip(operations, entry.launches, strict=True)]
        used = {*self.leaves}
        self.native = native_launches(entry)
        for launch, is_native in zip(entry.launches, self.native, strict=True):
            used.update(() if is_native else registers_of(launch))
        self.views: dict[int, list[int]] = {}
        for number in sorted(used):
            register = registers[number]
            if isinstance(register, View) and is_transient(registers[register.base]):
                self.views.setdefault(register.base, []).append(number)
        self.roots = [register.base if isinstance(register, View) else i for i, register in enumerate(registers)]
        self.inputs = [number for number in entry.inputs if isinstance(number, int)]
        self.states = [(i, register.name) for i, register in enumerate(registers) if isinstance(register, State)]
        self.transient = [i for i, register in enumerate(registers) if is_transient(register)]
        self.allocated_first: list[int] = []
        self.rows = rows_of(entry)
        self.after = self._between_launches()

    def _between_launches(self) -> list[After]:
        entry = self.entry
        after = [After(may_alias=operation.may_alias) for operation in self.operations]
        for follows, launch, operation in zip(after, entry.launches, self.operations, strict=True):
            single = operation.returns == 1 and not operation.returns_list
            for position, number in enumerate(launch.results):
                if number is not None:
                    follows.takes.append((None if single else position, number))
            follows.defines = [(position, name) for position, name in enumerate(launch.defines) if name is not None]
        returned, first = returned_roots(entry), first_writes(entry)
        begins, ends = row_bounds(entry)
        for number, register in enumerate(entry.registers):
            if isinstance(register, Output):
                position = begins[first.get(number, 0)]
                (after[position - 1].allocates if position else self.allocated_first).append(number)
            elif isinstance(register, External) and number not in returned:
                after[ends[register.last - 1] - 1].drops.append(number)
        return after

    def param_address(self, number: int) -> tuple[Tensor, int]:
        """A param, and the address of its first element."""
        found = self._addresses.get(number)
        if found is None:
            param = self._library.plain(self.params[number])
            found = self._addresses[number] = param, self._library.address(param)
        return found

    def is_transient(self, number: int) -> bool:
        """Whether the register, or the base that it is a view of, holds another tensor in each call."""
        return is_transient(self.entry.registers[self.roots[number]])


def is_transient(register: Register) -> bool:
    """Whether a register that is no view holds another tensor in each call."""
    return isinstance(register, (Input, State, Output, External))
