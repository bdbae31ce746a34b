"""Repeated blocks of a model become one function, called with different weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import LocationAttr, ModuleOp, UnitAttr
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.diagnostics import Diagnostic, Location
from forgec.ir.attributes import StateType
from forgec.ir.locations import from_attribute, fuse, location_of, renamed, to_attribute
from forgec.ir.ops.module import ParamRefOp, StateReadOp
from forgec.passes import patterns, remarks
from forgec.passes.outlining import AT_CALL, LAYER, call, outline
from forgec.passes.repeats import repeats
from forgec.passes.rewriting import functions
from forgec.passes.spans import Group, Instance, Line, Path
from forgec.passes.structure import Codes

STAR = "*"
"""Stands in the locations of a function for the parts of a module path that its calls differ in."""


@dataclass(frozen=True)
class OutlineLayers(ModulePass):
    """Make blocks of ops that compute the same on different operands one private function, and call it.

    Before::

        %0 = forge.linear %x, %w0 : …
        %1 = forge.relu %0 : …
        %2 = forge.linear %1, %w1 : …
        %3 = forge.relu %2 : …
        func.return %3 : …

    After::

          %0 = func.call @forward.block(%x, %w0) : …
          %1 = func.call @forward.block(%0, %w1) : …
          func.return %1 : …
        }
        func.func private @forward.block(%0, %w0) -> … attributes {forge.layer} {
          %1 = forge.linear %0, %w0 : …
          %2 = forge.relu %1 : …
          func.return %2 : …
        }

    So all passes that follow pay once for each distinct block, until ``lower-to-plan`` inlines it. Blocks are the same
    if ops, attributes, types and dataflow are; parameters, states and all other values from outside become arguments.
    Only blocks that take the same masks and tables of positions share a function (Gemma's local layers, and its global
    ones). Where the model's modules are numbered (``layers.3``), each is a block, or each of those inside where they
    are different; a block with additional ops that can stand before or after it (the position bias that T5 computes in
    its first one) is called too. What is left may repeat one after the other (``unnamed``). Blocks of less than
    ``min-ops`` ops stay, twice as many where no module path tells them. Locations: the function's ops are in
    ``layers.*``, its calls in ``layers.3``.

    Order: first, so that every other pass pays for distinct layers only.
    """

    name = "outline-layers"

    min_ops: int = 8
    unnamed: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        codes = Codes()
        names = {function.sym_name.data for function in functions(op)}
        pending = [(function, self.unnamed) for function in functions(op) if LAYER not in function.attributes]
        while pending:
            function, unnamed = pending.pop()
            if function.is_declaration or len(function.body.blocks) != 1:
                continue
            line = Line(function.body.block, codes)
            outliner = _Outliner(op, function, line, names)
            for group in list(repeats(line, self.min_ops, unnamed=unnamed)):
                pending.append((outliner.run(group), False))


class _Outliner:
    """Rewrites one function."""

    def __init__(self, module: ModuleOp, function: FuncOp, line: Line, names: set[str]) -> None:
        self.module = module
        self.function = function
        self.last = function
        self.line = line
        self.names = names
        self.current: dict[SSAValue, SSAValue] = {}
        """Values that are results of calls now, by what they were."""
        self.calls: dict[Operation, int] = {}
        """The calls that this pass has made, with the position of the last op that was there."""

    def run(self, group: Group) -> FuncOp:
        """Replace the instances of a group by calls of a new function."""
        prototype = group.prototype
        order = [prototype, *(instance for instance in group.instances if instance is not prototype)]
        returned = self._returned(group)
        kept = self._kept(prototype)
        pattern = _pattern([instance.span.path for instance in group.instances])
        places = [self._place(instance, prototype, pattern) for instance in order]
        first = prototype.span.path
        where = renamed(places[0][0], ".".join(first), ".".join(pattern))
        layer: FuncOp | None = None
        for instance, (place, exact) in zip(order, places, strict=True):
            ops = [self.line.ops[position] for position in instance.ops]
            results = [self.line.ops[instance.ops[index]].results[number] for index, number in returned]
            inputs = [self._now(value) for value in instance.inputs]
            states = [inputs[index] for index in kept]
            uses = [self._outside(value, instance) for value in (*results, *states)]
            after = self.line.ops[instance.span.end - 1].next_op
            assert after is not None, "a block ends with its terminator"
            if layer is None:
                layer = outline(self._name(pattern), inputs, ops, [*results, *states], where)
                self._finish(layer, inputs, first, pattern)
            called = call(layer, inputs, place)
            if not exact:
                called.attributes[AT_CALL] = UnitAttr()
            self.function.body.block.insert_op_before(called, after)
            self.calls[called] = instance.span.end - 1
            self._replace([*results, *states], called, uses)
            if instance is not prototype:
                for op in reversed(ops):
                    self.function.body.block.erase_op(op)
            for position in instance.late:
                late = self.line.ops[position]
                late.detach()
                self.function.body.block.insert_op_before(late, after)
        assert layer is not None
        self._report(layer, group, pattern)
        return layer

    def _returned(self, group: Group) -> list[tuple[int, int]]:
        """The results, as numbers of op and result, that any instance is asked for."""
        found: set[tuple[int, int]] = set()
        for instance in group.instances:
            number = {position: index for index, position in enumerate(instance.ops)}
            for result in self.line.results(instance.span, set(instance.ops)):
                position, index = self.line.place[result]
                found.add((number[position], index))
        return sorted(found)

    def _kept(self, prototype: Instance) -> list[int]:
        """The inputs that are states and only read: they go on after the call."""
        inside = set(prototype.ops)
        return [
            index
            for index, value in enumerate(prototype.inputs)
            if isinstance(value.type, StateType)
            and not any(
                self.line.user(use.operation) in inside and not isinstance(use.operation, StateReadOp)
                for use in self._now(value).uses
            )
        ]

    def _now(self, value: SSAValue) -> SSAValue:
        """What a value of the line has become."""
        found = value
        while found in self.current:
            found = self.current[found]
        while value is not found:  # the next time the way is short
            following = self.current[value]
            self.current[value] = found
            value = following
        return found

    def _outside(self, value: SSAValue, instance: Instance) -> list[tuple[Operation, int]]:
        """The uses of a value by what comes after an instance, or stands late in it."""
        inside = set(instance.ops)
        found: list[tuple[Operation, int]] = []
        for use in value.uses:
            position = self.calls.get(use.operation, self.line.user(use.operation))
            if position is None or not (position in inside or position < instance.span.start):
                found.append((use.operation, use.index))
        return found

    def _replace(self, old: Sequence[SSAValue], called: CallOp, uses: list[list[tuple[Operation, int]]]) -> None:
        for value, result, users in zip(old, called.results, uses, strict=True):
            result.name_hint = value.name_hint
            for user, index in users:
                user.operands[index] = result
            self.current[value] = result

    def _finish(self, layer: FuncOp, inputs: Sequence[SSAValue], path: Path, pattern: Path) -> None:
        """Mark the function, and name what is in it after no instance in particular."""
        layer.attributes[LAYER] = UnitAttr()
        self.module.body.block.insert_op_after(layer, self.last)
        self.last = layer
        old, new = ".".join(path), ".".join(pattern)
        for op in layer.body.walk():
            op.location = renamed(op.location, old, new)
        prefix = re.sub(r"\W", "_", f"{old}.")
        for value, argument in zip(inputs, layer.body.block.args, strict=True):
            hint = argument.name_hint or ""
            if isinstance(value.owner, ParamRefOp) and path and re.match(rf"{prefix}[a-zA-Z]", hint):
                argument.name_hint = hint.removeprefix(prefix)

    def _name(self, pattern: Path) -> str:
        numbered = [part for part in pattern if part != STAR and not part.isdecimal()]
        part = re.sub(r"\W", "_", numbered[-1]) if numbered and STAR in pattern else "block"
        stem = f"{self.function.sym_name.data}.{part}"
        name, count = stem, 0
        while name in self.names:
            count += 1
            name = f"{stem}{count}"
        self.names.add(name)
        return name

    def _place(self, instance: Instance, prototype: Instance, pattern: Path) -> tuple[LocationAttr, bool]:
        """The location of an instance's call, and if those of its ops follow from that and from the function's."""
        ours, theirs, shared = (".".join(path) for path in (instance.span.path, prototype.span.path, pattern))
        locations = _locations(self.line, instance)
        expected = [renamed(location, theirs, shared) for location in _locations(self.line, prototype)]
        if [renamed(location, ours, shared) for location in locations] != expected:
            return fuse(locations), False
        places = [place for location in locations for place in from_attribute(location)]
        place = next((place for place in places if place.module == ours), places[0] if places else None)
        if place is None:
            return locations[0], True
        return to_attribute(Location(place.file, place.line, place.function, ours)), True

    def _report(self, layer: FuncOp, group: Group, pattern: Path) -> None:
        count, size = len(group.instances), len(group.prototype.ops)
        what = f"{count} repetitions of {size} ops call @{layer.sym_name.data}"
        remarks.emit(Diagnostic("FORGE-O001", what, location_of(layer), severity="remark"))
        for span, reason in group.differing:
            op = self.line.ops[span.start]
            patterns.missed(op, f"{'.'.join(span.path)} is no {'.'.join(pattern)} like the others", reason)


def _locations(line: Line, instance: Instance) -> list[LocationAttr]:
    return [op.location for position in instance.ops for op in line.ops[position].walk()]


def _pattern(paths: Sequence[Path]) -> Path:
    """One path for several, with a star where they differ."""
    if len({len(path) for path in paths}) > 1:
        return (STAR,)
    return tuple(parts[0] if len(set(parts)) == 1 else STAR for parts in zip(*paths, strict=True))
