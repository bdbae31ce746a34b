"""What makes a plan safe to run: every rule of the format that concerns more than one field. FORGE-A004 names the
first breach.

Static shapes are checked here to the last byte; dynamic ones here as far as they are known, and again by ``binding``
when a call's symbols have values.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from forgec.runtime.control import ASSERT, FOR, IF, ITEM, EntryCall, entry_calls, form_error, is_control
from forgec.runtime.dtypes import ITEMSIZE
from forgec.runtime.extents import byte_span, overlaps_itself, static, symbol_sources
from forgec.runtime.kernels import form_error as kernel_form_error
from forgec.runtime.kernels import is_kernel
from forgec.runtime.plan import (
    ALIGNMENT,
    Arg,
    Buffer,
    Entry,
    External,
    Input,
    Launch,
    Leaf,
    Literal,
    Number,
    Output,
    Param,
    Plan,
    Reg,
    Register,
    State,
    TensorSpec,
    View,
)
from forgec.runtime.plan_decode import INT_LIMIT, Malformed
from forgec.runtime.symbolic import Extent, SymExpr, free_symbols, symbol


def check(plan: Plan) -> None:
    """Raises FORGE-A004 when the plan breaks a rule. The runtime relies on every rule that is checked here."""
    try:
        _check_plan(plan)
    except Malformed as reason:
        raise reason.as_error() from None


def _check_plan(plan: Plan) -> None:
    names: set[str] = set()
    for index, declared in enumerate(plan.symbols):
        place = f".symbols[{index}]"
        try:
            symbol(declared.name)
        except ValueError as reason:
            raise Malformed(str(reason), place) from None
        if declared.name in names:
            raise Malformed(f"symbol '{declared.name}' is declared twice", place)
        if declared.maximum is not None and declared.maximum < declared.minimum:
            raise Malformed("the range is empty", place)
        names.add(declared.name)
    for index, constraint in enumerate(plan.constraints):
        if not constraint.symbols <= names or constraint.location >= len(plan.locations):
            raise Malformed("it names a symbol or a location that is not declared", f".constraints[{index}]")
    if not plan.entries:
        raise Malformed("a plan has at least one entry", ".entries")
    if len({entry.name for entry in plan.entries}) < len(plan.entries):
        raise Malformed("two entries have the same name", ".entries")
    if plan.entries[0].private:
        raise Malformed("the first entry is one that callers may name", ".entries[0]")
    stored: dict[str, Param | State] = {}
    for index, entry in enumerate(plan.entries):
        try:
            _EntryChecker(plan, entry, names, plan.entries[index + 1 :]).check()
            for number, register in enumerate(entry.registers):
                if isinstance(register, (Param, State)) and stored.setdefault(register.name, register) != register:
                    raise Malformed(f"'{register.name}' is declared differently elsewhere", f".registers[{number}]")
        except Malformed as reason:
            raise reason.inside(f".entries[{index}]") from None


def registers_in(value: Arg) -> Iterator[int]:
    """The numbers of the registers in an argument, tuples included."""
    if isinstance(value, Reg):
        yield value.id
    elif isinstance(value, tuple):
        for item in value:
            yield from registers_in(item)


def registers_of(launch: Launch) -> Iterator[int]:
    """The numbers of all registers among the launch's arguments."""
    for value in launch.args:
        yield from registers_in(value)
    for _, value in launch.kwargs:
        yield from registers_in(value)


def symbolic_in(value: Arg) -> Iterator[SymExpr]:
    """The symbolic extents in an argument, tuples included."""
    if isinstance(value, SymExpr):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from symbolic_in(item)


class _EntryChecker:
    def __init__(self, plan: Plan, entry: Entry, declared: set[str], callable_entries: Sequence[Entry]) -> None:
        self.plan = plan
        self.entry = entry
        self.declared = declared
        self.callable = {called.name: called for called in callable_entries if called.private}
        self.told: set[str] = set()
        """Symbols that launches so far have given values."""
        self.count = len(entry.launches)
        self.solvable: frozenset[str] = frozenset()
        self.defined: list[bool] = []
        self.known: set[SymExpr] = set()

    def check(self) -> None:
        self.solvable = frozenset(source.symbol for source in symbol_sources(self.entry))
        if self.entry.private:
            self.check_private()
            self.solvable = frozenset(self.entry.given)
        for number, register in enumerate(self.entry.registers):
            try:
                self.check_register(number, register)
            except Malformed as reason:
                raise reason.inside(f".registers[{number}]") from None
        self.check_arena()
        self.check_inputs()
        self.defined = [isinstance(register, (Input, Param, State)) for register in self.entry.registers]
        for number, launch in enumerate(self.entry.launches):
            try:
                self.check_launch(number, launch)
            except Malformed as reason:
                raise reason.inside(f".launches[{number}]") from None
        self.check_outputs()

    def check_private(self) -> None:
        """A private entry takes tensors and returns tensors."""
        if not set(self.entry.given) <= self.declared:
            raise Malformed("a symbol is not declared", ".given")
        if not all(isinstance(leaf, int) for leaf in (*self.entry.inputs, *self.entry.outputs)):
            raise Malformed("the arguments and results of a private entry are tensors", ".inputs")
        if any(isinstance(register, State) for register in self.entry.registers):
            raise Malformed("a private entry takes state as an inout input", ".registers")

    def is_open(self, register: Register) -> bool:
        """True for an external some of whose extents only the run tells."""
        spec = register.spec
        if not isinstance(register, External) or spec.is_static:
            return False
        names = {name for extent in (*spec.shape, *spec.strides) for name in free_symbols(extent)}
        return not names <= self.solvable

    def check_open(self, register: Register) -> None:
        for extent in (*register.spec.shape, *register.spec.strides):
            if isinstance(extent, int):
                self.check_extent(extent, ".shape")
            elif not free_symbols(extent) <= self.declared:
                raise Malformed(f"a symbol of '{extent}' is not declared", ".shape")

    def check_extent(self, value: Extent, place: str) -> None:
        if isinstance(value, int):
            if not 0 <= value < INT_LIMIT:
                raise Malformed("out of range", place)
        elif value not in self.known:
            for name in free_symbols(value):
                if name not in self.declared:
                    raise Malformed(f"symbol '{name}' is not declared", place)
                if name not in self.solvable:
                    raise Malformed(f"symbol '{name}' is not defined by any input", place)
            self.known.add(value)

    def root(self, number: int) -> int:
        register = self.entry.registers[number]
        return register.base if isinstance(register, View) else number

    def check_register(self, number: int, register: Register) -> None:
        spec = register.spec
        if spec.dtype not in ITEMSIZE:
            raise Malformed(f"unknown dtype '{spec.dtype}'", ".dtype")
        if len(spec.strides) != len(spec.shape):
            raise Malformed("one stride for each dimension is needed", ".strides")
        if self.is_open(register):
            self.check_open(register)
        else:
            for value in spec.shape:
                self.check_extent(value, ".shape")
            for value in spec.strides:
                self.check_extent(value, ".strides")
        span = static_span(spec)
        if span is not None and span >= INT_LIMIT:
            raise Malformed("more bytes than there are", ".shape")
        if isinstance(register, (Param, State)):
            if span is None:
                raise Malformed("the shape of a param or state is static", ".shape")
            if overlaps_itself(static(spec.shape), static(spec.strides), repeats=isinstance(register, Param)):
                raise Malformed("elements of a param or state share memory", ".strides")
        if isinstance(register, (Buffer, External)) and not 0 <= register.first < register.last <= self.count:
            raise Malformed(f"the live range is not inside [0, {self.count}]", ".first")
        if isinstance(register, Buffer):
            self.check_extent(register.nbytes, ".nbytes")
            if span is not None and isinstance(register.nbytes, int) and register.nbytes < span:
                raise Malformed(f"{register.nbytes} bytes are too few for the shape, which spans {span}", ".nbytes")
        elif isinstance(register, View):
            self.check_view(register, span)

    def check_view(self, view: View, span: int | None) -> None:
        if not 0 <= view.base < len(self.entry.registers):
            raise Malformed(f"there is no register {view.base}", ".base")
        base = self.entry.registers[view.base]
        if isinstance(base, View):
            raise Malformed("the base of a view is not a view", ".base")
        if self.is_open(base):
            raise Malformed("the extents of a view's base are known", ".base")
        if base.device != view.device:
            raise Malformed("a view is on the device of its base", ".device")
        self.check_extent(view.offset, ".offset")
        capacity = base.nbytes if isinstance(base, Buffer) else static_span(base.spec)
        if isinstance(capacity, int) and isinstance(view.offset, int) and span:
            end = view.offset * ITEMSIZE[view.spec.dtype] + span
            if end > capacity:
                raise Malformed(f"the view ends at byte {end} of a base of {capacity} bytes", ".offset")

    def check_arena(self) -> None:
        """Offsets inside the arena, aligned; no byte belongs to two buffers at one time. O(n log n)."""
        arena = self.entry.arena_bytes
        events: list[tuple[int, int, int]] = []
        for number, register in enumerate(self.entry.registers):
            if not isinstance(register, Buffer):
                continue
            place = f".registers[{number}]"
            if (register.offset is None) != (arena is None):
                raise Malformed("a plan has offsets and arena_bytes, or neither", place)
            if register.offset is None or arena is None:
                continue
            if not isinstance(register.nbytes, int):
                raise Malformed("a buffer with an offset has a fixed size", f"{place}.nbytes")
            if register.offset % ALIGNMENT:
                raise Malformed(f"the offset is no multiple of {ALIGNMENT}", f"{place}.offset")
            if register.offset < 0 or register.offset + register.nbytes > arena:
                raise Malformed(f"the buffer ends outside the arena of {arena} bytes", f"{place}.offset")
            if register.nbytes:
                events.append((register.first, 1, number))
                events.append((register.last, 0, number))
        live: dict[str, list[tuple[int, int, int]]] = {}
        for _, begins, number in sorted(events):
            buffer = self.entry.registers[number]
            assert isinstance(buffer, Buffer)
            assert isinstance(buffer.offset, int)
            assert isinstance(buffer.nbytes, int)
            placed = live.setdefault(buffer.device, [])
            span = (buffer.offset, buffer.offset + buffer.nbytes, number)
            slot = bisect_left(placed, span)
            if not begins:
                placed.pop(slot)
                continue
            neighbours = placed[max(slot - 1, 0) : slot + 1]
            for start, end, other in neighbours:
                if start < span[1] and span[0] < end:
                    raise Malformed(f"shares bytes with register {other} while both are live", f".registers[{number}]")
            insort(placed, span)

    def check_inputs(self) -> None:
        entry = self.entry
        shape = entry.in_tree
        kinds = [child.kind for child in shape.children]
        named = all(isinstance(key, str) for key in shape.children[1].keys) if kinds == ["tuple", "dict"] else False
        if shape.kind != "tuple" or not named:
            raise Malformed("expected the structure of (args, kwargs)", ".in_tree")
        if len(set(entry.parameters)) < len(entry.parameters):
            raise Malformed("a parameter occurs twice", ".parameters")
        positional = entry.parameters[: len(shape.children[0].children)]
        if set(positional) & set(shape.children[1].keys):
            raise Malformed("a parameter is passed by position and by name", ".in_tree")
        if entry.in_tree.leaves != len(entry.inputs):
            raise Malformed(f"{entry.in_tree.leaves} leaves in the structure, {len(entry.inputs)} inputs", ".inputs")
        listed: set[int] = set()
        for index, leaf in enumerate(entry.inputs):
            place = f".inputs[{index}]"
            if isinstance(leaf, SymExpr):
                self.check_extent(leaf, place)
            elif isinstance(leaf, Literal):
                self.check_literal(leaf, place)
            else:
                register = self.register(leaf, place)
                if not isinstance(register, Input) or register.index != index:
                    raise Malformed(f"register {leaf} is not the input of index {index}", place)
                listed.add(leaf)
        for number, register in enumerate(entry.registers):
            if isinstance(register, Input) and number not in listed:
                raise Malformed("the input is not among the entry's inputs", f".registers[{number}]")

    def check_literal(self, literal: Literal, place: str) -> None:
        if any(True for _ in registers_in(literal.value)) or any(True for _ in symbolic_in(literal.value)):
            raise Malformed("a literal is a fixed value", place)

    def register(self, number: int, place: str) -> Register:
        if not 0 <= number < len(self.entry.registers):
            raise Malformed(f"there is no register {number}", place)
        return self.entry.registers[number]

    def check_launch(self, number: int, launch: Launch) -> None:
        if not -1 <= launch.location < len(self.plan.locations):
            raise Malformed(f"there is no location {launch.location}", ".location")
        arguments = list(registers_of(launch))
        for used in arguments:
            self.register(used, ".args")
        for value in (*launch.args, *(value for _, value in launch.kwargs)):
            for expression in symbolic_in(value):
                self.check_extent(expression, ".args")
        if is_control(launch.op):
            self.check_control(launch)
        elif any(self.is_open(self.entry.registers[used]) for used in arguments):
            raise Malformed("an argument has extents that only the run tells", ".args")
        if is_kernel(launch.op):
            self.check_kernel(launch)
        written: set[int] = set()
        for index, target in enumerate(launch.writes):
            self.register(target, f".writes[{index}]")
            base = self.entry.registers[self.root(target)]
            if isinstance(base, Param) or (isinstance(base, Input) and not base.inout):
                raise Malformed(f"register {target} must not be written", f".writes[{index}]")
            if target not in arguments:
                raise Malformed(f"register {target} is written but no argument", f".writes[{index}]")
            spec = self.entry.registers[target].spec
            # Kernels may write as many elements as there are, one after the other: without overlap those fit.
            if spec.is_static and overlaps_itself(static(spec.shape), static(spec.strides), repeats=False):
                raise Malformed(f"register {target} is written, but its elements share memory", f".writes[{index}]")
            written.add(self.root(target))
        for used in arguments:
            self.check_use(number, used, written)
        for base in written:
            self.defined[base] = self.defined[base] or not isinstance(self.entry.registers[base], External)
        for index, target in enumerate(launch.results):
            if target is None:
                continue
            place = f".results[{index}]"
            register = self.register(target, place)
            if not isinstance(register, External) or register.first != number:
                raise Malformed(f"register {target} is not an external of launch {number}", place)
            if self.defined[target]:
                raise Malformed(f"register {target} is defined twice", place)
            self.defined[target] = True
            extents = [e for e in register.spec.shape if isinstance(e, SymExpr) and str(e).isidentifier()]
            self.told.update(map(str, extents))
        for name in launch.defines:
            if name is not None and name not in self.declared:
                raise Malformed(f"symbol '{name}' is not declared", ".defines")
        self.told.update(name for name in launch.defines if name is not None)

    def check_kernel(self, launch: Launch) -> None:
        """A launch of machine code: what the code takes is checked when it is there (``kernels.check_launches``)."""
        wrong = kernel_form_error(launch)
        if wrong is not None:
            raise Malformed(wrong, ".args")
        for used in registers_of(launch):
            if self.entry.registers[used].device != "cpu":
                raise Malformed(f"register {used} is on a device that {launch.op} does not reach", ".args")

    def check_control(self, launch: Launch) -> None:
        """A launch that calls other entries: they exist, know their symbols, and take what they get."""
        wrong = form_error(launch)
        if wrong is not None:
            raise Malformed(wrong, ".args")
        limit = 1 if launch.op == ITEM else len(launch.results)
        if len(launch.defines) > limit:
            raise Malformed(f"{launch.op} has {limit} results", ".defines")
        rank_zero = launch.args[0] if launch.op in (ITEM, ASSERT, IF) else None
        if isinstance(rank_zero, Reg) and self.entry.registers[rank_zero.id].spec.elements != 1:
            raise Malformed(f"{launch.op} takes a tensor of one element", ".args[0]")
        for call in entry_calls(launch):
            self.check_call(launch, call)

    def check_call(self, launch: Launch, call: EntryCall) -> None:
        entry = self.callable.get(call.entry)
        if entry is None:
            raise Malformed(f"there is no private entry '{call.entry}' after this one", ".args")
        unknown = set(entry.given) - self.solvable - self.told
        if unknown:
            raise Malformed(f"nothing tells '{min(unknown)}' before '{call.entry}' is called", ".args")
        inputs = [register for leaf in entry.inputs if isinstance(register := self.input_of(entry, leaf), Input)]
        if len(inputs) != len(call.registers):
            raise Malformed(f"'{call.entry}' takes {len(inputs)} tensors, not {len(call.registers)}", ".args")
        updated = 0
        for register, number in zip(inputs, call.registers, strict=True):
            if number is None:
                continue
            given = self.entry.registers[number].spec
            if given.dtype != register.spec.dtype or len(given.shape) != len(register.spec.shape):
                raise Malformed(f"register {number} does not fit '{register.name}' of '{call.entry}'", ".args")
            updated += register.inout
            if register.inout and launch.op != FOR and number not in launch.writes:
                raise Malformed(f"register {number} is written, but not declared so", ".writes")
        if call.results > len(entry.outputs) + (updated if launch.op == FOR else 0):
            raise Malformed(f"'{call.entry}' returns {len(entry.outputs)} tensors, not {call.results}", ".results")

    def input_of(self, entry: Entry, leaf: Leaf) -> Register | None:
        return entry.registers[leaf] if isinstance(leaf, int) and leaf < len(entry.registers) else None

    def check_use(self, number: int, used: int, written: set[int]) -> None:
        root = self.root(used)
        register = self.entry.registers[root]
        if isinstance(register, (Buffer, External)) and not register.first <= number < register.last:
            live = f"[{register.first}, {register.last})"
            raise Malformed(f"register {used} is used outside its live range {live}", ".args")
        if not self.defined[root] and (root not in written or isinstance(register, External)):
            raise Malformed(f"register {used} is used before it is defined", ".args")

    def check_outputs(self) -> None:
        entry = self.entry
        if entry.out_tree.leaves != len(entry.outputs):
            leaves = entry.out_tree.leaves
            raise Malformed(f"{leaves} leaves in the structure, {len(entry.outputs)} outputs", ".outputs")
        for index, leaf in enumerate(entry.outputs):
            place = f".outputs[{index}]"
            if isinstance(leaf, SymExpr):
                if not free_symbols(leaf) <= self.solvable | self.told:
                    raise Malformed(f"nothing tells what '{leaf}' is", place)
            elif isinstance(leaf, Literal):
                self.check_literal(leaf, place)
            else:
                if isinstance(leaf, Number):
                    leaf = leaf.id
                    if self.register(leaf, place).spec.shape:
                        raise Malformed("a number is a tensor of rank 0", place)
                self.register(leaf, place)
                base = entry.registers[self.root(leaf)]
                if isinstance(base, Buffer):
                    raise Malformed(f"register {leaf} lies in the arena and cannot be returned", place)
                empty = isinstance(base, Output) and static_span(base.spec) == 0
                if not self.defined[self.root(leaf)] and not empty:
                    raise Malformed(f"register {leaf} is returned but never written", place)


def static_span(spec: TensorSpec) -> int | None:
    """Bytes from the first to behind the last element, None when an extent is dynamic."""
    return byte_span(spec.dtype, static(spec.shape), static(spec.strides)) if spec.is_static else None
