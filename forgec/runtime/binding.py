"""An entry point with values for its symbols: every extent, stride, size and offset a number, and checked as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forgec.diagnostics import ForgeError, error
from forgec.runtime.control import entry_calls, is_control
from forgec.runtime.dtypes import ITEMSIZE
from forgec.runtime.extents import byte_span, overlaps_itself, symbol_sources
from forgec.runtime.linear_scan import Interval, allocate
from forgec.runtime.native_copy import native_launches
from forgec.runtime.plan import ALIGNMENT, Buffer, Entry, External, Number, Output, SymbolDecl, TensorSpec, View
from forgec.runtime.plan_check import registers_of
from forgec.runtime.symbolic import Extent, SymExpr, evaluate, free_symbols
from forgec.runtime.workspace import workspace_bytes

LIMIT = 1 << 62
"""No extent, stride or size of a real call comes near; keeps sums and products of them exact in 64 bits."""


@dataclass(frozen=True, slots=True)
class Binding:
    """All per register number. ``shapes`` and ``strides`` in elements; ``offsets`` in bytes for buffers, in elements
    for views.

    ``arena_bytes`` is the size of the arena on each device. ``values`` are the symbols' values. ``open`` are the
    externals some of whose extents only the run tells; their shapes and strides here are empty.
    """

    values: Mapping[str, int]
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    arena_bytes: Mapping[str, int]
    open: frozenset[int] = frozenset()


class _Evaluator:
    """Evaluates each distinct expression once."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = values
        self.known: dict[SymExpr, int] = {}

    def __call__(self, extent: Extent) -> int:
        if isinstance(extent, int):
            return extent
        value = self.known.get(extent)
        if value is None:
            try:
                value = evaluate(extent, self.values)
            except ZeroDivisionError:
                raise invalid(self.values, f"'{extent}' divides by zero") from None
            if not 0 <= value < LIMIT:
                raise invalid(self.values, f"'{extent}' is {value}")
            self.known[extent] = value
        return value


def invalid(values: Mapping[str, int], reason: str) -> ForgeError:
    """FORGE-A004 for a plan that turns out not to hold for these symbol values."""
    given = ", ".join(f"{name} = {value}" for name, value in values.items())
    return error("FORGE-A004", f"the plan does not hold for {given or 'its shapes'}: {reason}")


def bind(entry: Entry, values: Mapping[str, int]) -> Binding:
    """The entry for these symbol values, all of which are within their declared ranges. FORGE-A004 when the plan
    breaks."""
    number = _Evaluator(values)
    unknown = frozenset(
        index
        for index, register in enumerate(entry.registers)
        if isinstance(register, External) and not is_known(register.spec, values)
    )
    shapes = tuple(
        () if index in unknown else tuple(map(number, register.spec.shape))
        for index, register in enumerate(entry.registers)
    )
    strides = tuple(
        () if index in unknown else tuple(map(number, register.spec.strides))
        for index, register in enumerate(entry.registers)
    )
    capacities = [
        byte_span(register.spec.dtype, shape, stride)
        for register, shape, stride in zip(entry.registers, shapes, strides, strict=True)
    ]
    offsets = [0] * len(shapes)
    planned: list[int] = []
    for index, register in enumerate(entry.registers):
        if not isinstance(register, Buffer):
            continue
        nbytes = number(register.nbytes)
        if nbytes < capacities[index]:
            raise invalid(values, f"register {index} needs {capacities[index]} bytes and has {nbytes}")
        capacities[index] = nbytes
        if register.offset is None:
            planned.append(index)
        else:
            offsets[index] = register.offset
    if max(capacities, default=0) >= LIMIT:
        raise invalid(values, "a tensor has more bytes than there are")
    for index in {number for launch in entry.launches for number in launch.writes}:
        if not entry.registers[index].spec.is_static and overlaps_itself(shapes[index], strides[index], repeats=False):
            raise invalid(values, f"register {index} is written, but its elements share memory")
    arenas = _place(entry, planned, capacities, offsets)
    for index, register in enumerate(entry.registers):
        if isinstance(register, View):
            offsets[index] = number(register.offset)
            span = byte_span(register.spec.dtype, shapes[index], strides[index])
            end = offsets[index] * ITEMSIZE[register.spec.dtype] + span
            if span and end > capacities[register.base]:
                raise invalid(values, f"register {index} ends at byte {end} of a base of {capacities[register.base]}")
    return Binding(values, shapes, strides, tuple(offsets), arenas, unknown)


def is_known(spec: TensorSpec, values: Mapping[str, int]) -> bool:
    """Whether the symbols' values tell every extent and stride."""
    if spec.is_static:
        return True
    return all(free_symbols(extent) <= values.keys() for extent in (*spec.shape, *spec.strides))


def _place(entry: Entry, planned: list[int], capacities: list[int], offsets: list[int]) -> dict[str, int]:
    """Fills in the offsets that the plan left open; returns the size of each device's arena."""
    arenas: dict[str, int] = {}
    for device in dict.fromkeys(entry.registers[index].device for index in planned):
        chosen = [index for index in planned if entry.registers[index].device == device]
        intervals: list[Interval] = []
        for index in chosen:
            buffer = entry.registers[index]
            assert isinstance(buffer, Buffer)
            intervals.append(Interval(capacities[index], buffer.first, buffer.last))
        allocation = allocate(intervals, ALIGNMENT)
        for index, offset in zip(chosen, allocation.offsets, strict=True):
            offsets[index] = offset
        arenas[device] = allocation.peak_bytes
    for index, register in enumerate(entry.registers):
        if isinstance(register, Buffer) and register.offset is not None:
            end = register.offset + capacities[index]
            arenas[register.device] = max(arenas.get(register.device, 0), end)
    return arenas


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes that a call has allocated at its worst moment: the arena for the whole call, plus live outputs and
    externals."""

    arena_bytes: int
    transient_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.arena_bytes + self.transient_bytes


def peak_of(
    entry: Entry, binding: Binding, threads: int | None = None, entries: Mapping[str, Entry] | None = None
) -> Peak:
    """What the runtime allocates for a call: an output from its first write on, an external from its launch to its
    last use; where these are among launches of kernels that run in one call, from its beginning or to its end.

    With ``threads``, what ATen's kernels allocate and free within a launch counts too (see ``workspace``). With
    ``entries`` (all of the plan, by name) so does what the entries need that a launch calls, as far as the symbols'
    values tell.
    """
    count = len(entry.launches)
    returned = returned_roots(entry)
    written = first_writes(entry)
    begins, ends = row_bounds(entry)
    changes = [0] * (count + 2)
    for index, register in enumerate(entry.registers):
        if index in binding.open:
            continue
        nbytes = byte_span(register.spec.dtype, binding.shapes[index], binding.strides[index])
        if isinstance(register, Output):
            changes[begins[written.get(index, 0)]] += nbytes
        elif isinstance(register, External):
            changes[register.first] += nbytes
            if index not in returned:
                changes[ends[register.last - 1]] -= nbytes
    live = most = 0
    for number, change in enumerate(changes):
        live += change
        inside = 0
        if number < count and is_control(entry.launches[number].op):
            called = {call.entry for call in entry_calls(entry.launches[number])}
            inner = [entries[name] for name in called] if entries is not None else []
            known = [e for e in inner if set(e.given) <= binding.values.keys()]
            inside = max((_needs(e, binding.values, threads, entries) for e in known), default=0)
        elif threads is not None and number < count:
            inside = workspace_bytes(entry, entry.launches[number], binding.shapes, threads)
        most = max(most, live + inside)
    return Peak(sum(binding.arena_bytes.values()), most)


def _needs(entry: Entry, values: Mapping[str, int], threads: int | None, entries: Mapping[str, Entry] | None) -> int:
    """What an entry that is called needs; 0 where it cannot be bound to these values, which are estimates."""
    try:
        return peak_of(entry, bind(entry, values), threads, entries).total_bytes
    except ForgeError:
        return 0


def likely(entry: Entry, values: Mapping[str, int]) -> Binding:
    """The entry for estimates of its symbols; where they contradict each other, for those only that inputs define."""
    try:
        return bind(entry, values)
    except ForgeError:
        return bind(entry, {source.symbol: values[source.symbol] for source in symbol_sources(entry)})


def returned_roots(entry: Entry) -> set[int]:
    """The registers that own the bytes of the call's results."""
    roots: set[int] = set()
    for leaf in entry.outputs:
        number = leaf.id if isinstance(leaf, Number) else leaf
        if isinstance(number, int):
            register = entry.registers[number]
            roots.add(register.base if isinstance(register, View) else number)
    return roots


def first_writes(entry: Entry) -> dict[int, int]:
    """For each output register the first launch that has it, or a view of it, among its arguments."""
    found: dict[int, int] = {}
    for position, launch in enumerate(entry.launches):
        for used in registers_of(launch):
            register = entry.registers[used]
            root = register.base if isinstance(register, View) else used
            if isinstance(entry.registers[root], Output):
                found.setdefault(root, position)
    return found


def rows_of(entry: Entry) -> list[tuple[int, int]]:
    """The launches in order as rows, first and one past the last: those of machine code that follow each other are one
    row."""
    rows: list[tuple[int, int]] = []
    native = native_launches(entry)
    for position, is_native in enumerate(native):
        if position and is_native and native[position - 1]:
            rows[-1] = (rows[-1][0], position + 1)
        else:
            rows.append((position, position + 1))
    return rows


def row_bounds(entry: Entry) -> tuple[list[int], list[int]]:
    """For each launch where its row begins and ends; one more for what is after all of them."""
    begins: list[int] = []
    ends: list[int] = []
    for begin, end in rows_of(entry):
        begins += [begin] * (end - begin)
        ends += [end] * (end - begin)
    return [*begins, len(begins)], [*ends, len(ends)]


def in_range(declared: SymbolDecl, value: int) -> bool:
    return declared.minimum <= value and (declared.maximum is None or value <= declared.maximum)
