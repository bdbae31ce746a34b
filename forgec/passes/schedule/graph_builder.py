"""Builds the graph of one loop from its stretches: ops with their costs, values with their memories and readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import isqrt

from xdsl.dialects import arith
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Block, Operation, SSAValue

from forgec.diagnostics import Location, error
from forgec.ir.locations import location_of
from forgec.ir.tile.compute import DotOp, ReduceOp
from forgec.ir.tile.memory import SortOp
from forgec.passes.schedule.amounts import EXPONENTIALS, factor_memory, operand_bytes, product, synchronous
from forgec.passes.schedule.body import Body, bytes_of, is_copy, is_store, known_extents, size
from forgec.passes.schedule.drafts import (
    DraftDependence,
    DraftOp,
    DraftValue,
    dependences_in_parts,
    op_in_parts,
    value_in_parts,
)  # fmt: skip
from forgec.passes.schedule.placement import Placement
from forgec.passes.schedule.stretches import Stretches
from forgec.schedule.graph import Graph, Op
from forgec.schedule.machine import Instruction, Machine


class Names:
    """Names for ops and values that stay the same from run to run: what is another thing has another name."""

    def __init__(self) -> None:
        self.taken: dict[tuple[bool, str], object] = {}

    def new(self, wanted: str, what: object, here: set[str], *, of_value: bool = False) -> str:
        """``wanted``, or that with a number where this graph has it (``here``), or another loop has it for another
        thing. Values have names of their own.
        """
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in wanted) or "value"
        name, number = base, 0
        while name in here or self.taken.get((of_value, name), what) != what:
            number += 1
            name = f"{base}_{number}"
        here.add(name)
        self.taken[of_value, name] = what
        return name


class GraphBuilder:
    """One loop's graph; ``tile_ops`` and ``tile_values`` say afterwards what its names stand for."""

    def __init__(self, body: Body, machine: Machine, parts: int, axis: int | None, names: Names) -> None:
        self.body = body
        self.machine = machine
        self.parts = parts
        self.axis = axis
        self.names = names
        self.here: set[str] = set()
        self.value_names: set[str] = set()
        self.apart = body.depends_on(axis) if axis is not None else set[SSAValue]()
        self.ops: list[DraftOp] = []
        self.values: list[DraftValue] = []
        self.dependences: list[DraftDependence] = []
        self.home: dict[Operation, DraftOp] = {}
        self.tile_ops: dict[str, tuple[Operation, ...]] = {}
        self.tile_values: dict[str, SSAValue] = {}
        nodes = body.nodes
        self.of_factors = self._of_factors()
        exponentials = any(isinstance(node, EXPONENTIALS) for node in nodes)
        self.synchronous_role = (
            "softmax" if exponentials and any(isinstance(n, ReduceOp) for n in nodes) else "elementwise"
        )

    def graph(self, trips: int) -> Graph:
        """The graph, with names of all parts."""
        kernel = self.body.kernel
        for stretch in Stretches(self.body, self.apart).found():
            self._add(stretch)
        if not self.ops:
            raise error(
                "FORGE-U010",
                f"a loop of kernel {kernel.sym_name.data} has nothing but addresses in it",
                location=location_of(self.body.loop),
            )
        placement = Placement(self)
        placement.place()
        self._order_memory()
        for draft in self.ops:
            for op in op_in_parts(draft, self.parts):
                self.tile_ops[op.name] = draft.nodes
        values = []
        for draft in self.values:
            for value in value_in_parts(draft, self.parts):
                values.append(value)
                if draft.kernel_value is not None:
                    self.tile_values[value.name] = draft.kernel_value
        return Graph(
            kernel.sym_name.data,
            tuple(op for part in self._in_parts() for op in part),
            tuple(values),
            tuple(dependences_in_parts(self.dependences, self.parts)),
            work=Fraction(max(sum(map(self._work, self.ops)), 1)),
            tile={**kernel.bindings, "parts": self.parts},
            resident=placement.resident,
            traffic=sum(
                bytes_of(op.nodes[0].results[0]) * self.times(op.apart)
                for op in self.ops
                if op.nodes and is_copy(op.nodes[0])
            ),
            trips=trips,
        )

    def times(self, apart: bool) -> int:
        """How often something is there."""
        return self.parts if apart else 1

    def _in_parts(self) -> list[list[Op]]:
        """What is there once, and then part by part."""
        made = [list(op_in_parts(draft, self.parts)) for draft in self.ops]
        once = [ops[0] for draft, ops in zip(self.ops, made, strict=True) if not draft.apart]
        rest = [ops for draft, ops in zip(self.ops, made, strict=True) if draft.apart]
        return [once, *([ops[part] for ops in rest] for part in range(self.parts))]

    def _work(self, draft: DraftOp) -> int:
        """Multiply-adds where the loop has products, else elements that are copied, or computed."""
        if not draft.nodes:
            return 0
        times = self.times(draft.apart)
        if any(isinstance(node, DotOp) for node in self.body.nodes):
            first = draft.nodes[0]
            if not isinstance(first, DotOp):
                return 0
            return size(first.result) * known_extents(first.lhs)[1] * times
        if any(is_copy(node) for node in self.body.nodes):
            return size(draft.nodes[0].results[0]) * times if is_copy(draft.nodes[0]) else 0
        return sum(max((size(result) for result in node.results), default=0) for node in draft.nodes) * times

    # Ops

    def _add(self, stretch: list[Operation]) -> None:
        first = stretch[0]
        self._refuse_products_in_branches(first)
        values = [*first.results, *(value for node in stretch for value in node.operands)]
        apart = any(value in self.apart for node in stretch for value in (*node.results, *self.body.operands(node)))
        if isinstance(first, DotOp):
            kind, instruction, whole, shape = product(self.body.kernel, first, self.machine)
            work = {kind: whole}
            if "operand" in self.machine.instructions:
                shared = self._lies_in_shared_memory(first.lhs, instruction)
                by_rows = not shared or first in self.of_factors
                work["operand"] = operand_bytes(first, instruction, left_is_shared=shared, by_rows=by_rows)
            op = self.op(self._product_name(first), work, "mma", shape, stretch)
            op = replace(op, warps=max(op.warps, instruction.warps))
        elif is_copy(first):
            moved = bytes_of(first.results[0])
            work = {"load": moved}
            if "memory" in self.machine.instructions:
                work["memory"] = -(-moved // self._sharers(first.results[0]))
            name = f"load_{self.title(first.results[0])}"
            op = self.op(name, work, "load", known_extents(first.results[0]), stretch)
        elif is_store(first):
            op = self.op(
                f"store_{self._parameter_name(first)}", {"store": bytes_of(first.operands[0])}, "store",
                known_extents(first.operands[0]), stretch
            )  # fmt: skip
        else:
            widest = max(
                (value for value in values if isinstance(value.type, TensorType)), key=size, default=values[0]
            ) if values else None  # fmt: skip
            shape = () if widest is None else known_extents(widest)
            work = {**synchronous(stretch), **self._shared_traffic(stretch)}
            op = self.op(self._synchronous_name(stretch), work, self.synchronous_role, shape, stretch)
            op = self.carried_out_together(op)
        draft = DraftOp(op, apart, tuple(stretch))
        self.ops.append(draft)
        for node in stretch:
            self.home[node] = draft

    def _refuse_products_in_branches(self, node: Operation) -> None:
        inside = [op for region in node.regions for op in region.walk() if isinstance(op, DotOp)]
        if inside:
            raise error(
                "FORGE-U010",
                f"kernel {self.body.kernel.sym_name.data} has a product in a branch of its loop, which may not run",
                location=location_of(inside[0]),
            )

    # What machines may count besides: traffic of shared memory, and of main memory behind the caches

    def _lies_in_shared_memory(self, factor: SSAValue, instruction: Instruction) -> bool:
        """Whether a left factor is read from shared memory."""
        computed = [
            owner
            for source in self.body.sources(factor)
            if isinstance(owner := source.value.owner, Operation) and owner in self.body.nodes and not is_copy(owner)
        ]
        return not computed or factor_memory(instruction, left=True) == "shared"

    def _of_factors(self) -> set[Operation]:
        """The products of which left factors of others are computed."""
        found: set[Operation] = set()
        waiting = [
            source for node in self.body.nodes if isinstance(node, DotOp) for source in self.body.sources(node.lhs)
        ]
        seen: set[Operation] = set()
        while waiting:
            owner = waiting.pop().value.owner
            if isinstance(owner, Block) or owner not in self.body.nodes or owner in seen:
                continue
            seen.add(owner)
            if isinstance(owner, DotOp):
                found.add(owner)
            else:
                waiting += self.body.reads(owner)
        return found

    def _sharers(self, value: SSAValue) -> int:
        """How many programs that run at the same time read the same: main memory gives it once.

        Those along the axes of the grid on which the copy does not depend, of about a square of the programs that a
        machine runs at once.
        """
        most = max(isqrt(self.machine.multiprocessors), 1)
        count = 1
        for axis, extent in enumerate(self.body.kernel.grid.data):
            if value not in self.body.depends_on(axis):
                programs = extent if isinstance(extent, int) else most
                count *= -(-programs // self.parts) if axis == self.axis else programs
        return max(min(count, most), 1)

    def _shared_traffic(self, stretch: list[Operation]) -> dict[str, int]:
        """What synchronous code reads of blocks that were copied for products, and computes for them."""
        read = {
            source.value: None
            for node in stretch
            for source in self.body.reads(node)
            if isinstance(owner := source.value.owner, Operation) and is_copy(owner) and self._factor_of(source.value)
        }
        written = {
            result: None
            for node in stretch
            for result in node.results
            for dot in self._factor_of(result)
            for left in (True, False)
            if any(source.value is result for source in self.body.sources(dot.lhs if left else dot.rhs))
            and factor_memory(product(self.body.kernel, dot, self.machine)[1], left=left) == "shared"
        }
        found = {"read_shared": sum(map(bytes_of, read)), "write_shared": sum(map(bytes_of, written))}
        return {kind: moved for kind, moved in found.items() if moved and kind in self.machine.instructions}

    def _factor_of(self, value: SSAValue) -> list[DotOp]:
        """The products that a value is a factor of."""
        return [
            node
            for node in self.body.nodes
            if isinstance(node, DotOp)
            and any(source.value is value for factor in (node.lhs, node.rhs) for source in self.body.sources(factor))
        ]

    def carried_out_together(self, op: Op) -> Op:
        """A synchronous op takes the warps of a group: rates of machines are those of all of its schedulers."""
        return replace(op, warps=max(op.warps, self.machine.registers.group_warps))

    def op(self, name: str, work: Mapping[str, int], role: str, shape: tuple[int, ...], nodes: list[Operation]) -> Op:
        """An op of the machine.

        Raises:
            ForgeError: FORGE-U010 with the place in the user's program, where the machine lacks an instruction.
        """
        place = next((found for node in nodes if (found := location_of(node)) is not None), None)
        self.need(work, place, role)
        name = self.names.new(name, (role, shape, tuple(work)), self.here)
        source = None if place is None else f"{place.file}:{place.line}"
        return self.machine.op(name, work, role=role, shape=shape, source=source)

    def need(self, work: Mapping[str, int], place: Location | None, role: str) -> None:
        """Raises FORGE-U010 unless the machine has the instructions for some work."""
        for kind in work:
            if kind not in self.machine.instructions:
                raise error(
                    "FORGE-U010",
                    f"machine {self.machine.name} has no instruction {kind}, which kernel "
                    f"{self.body.kernel.sym_name.data} needs ({role})",
                    location=place,
                    notes=("it has " + ", ".join(sorted(self.machine.instructions)),),
                )

    # Names: those of the text, else of parameters and of what is computed

    def title(self, value: SSAValue) -> str:
        """What a value is called: by its name in the text, or that of the parameter that it is loaded of."""
        if value.name_hint:
            return value.name_hint
        owner = value.owner
        if not isinstance(owner, Block) and is_copy(owner):
            return self._parameter_name(owner)
        if not isinstance(owner, Block) and owner in self.home:
            return self.home[owner].op.name
        return "value"

    def _parameter_name(self, op: Operation) -> str:
        parameter, position = self.body.parameter(op)  # pyright: ignore[reportArgumentType]
        return parameter.name_hint or ("block" if position is None else f"arg{position}")

    def _product_name(self, op: DotOp) -> str:
        if op.result.name_hint:
            return op.result.name_hint
        factor = self.body.sources(op.rhs)
        return f"dot_{self.title(factor[0].value)}" if factor else "dot"

    def _synchronous_name(self, stretch: list[Operation]) -> str:
        """By the name of what it makes last, else by what it does most of: exponentials, a reduction, its first op."""
        hint = next((r.name_hint for node in reversed(stretch) for r in node.results if r.name_hint), None)
        if hint:
            return hint
        most = max((size(value) for node in stretch for value in node.results), default=1)
        for node in stretch:
            if isinstance(node, EXPONENTIALS) and size(node.results[0]) == most:
                return "exp"
        for node in stretch:
            if isinstance(node, ReduceOp):
                return {"add": "sum", "maxnum": "max"}.get(node.kind.data, node.kind.data)
        node = max(stretch, key=lambda node: max((size(value) for value in node.results), default=0))
        if isinstance(node, arith.MulfOp):
            return "scale"
        return node.name.rpartition(".")[2].removesuffix("f")

    # What memory orders

    def _order_memory(self) -> None:
        """What touches a parameter that the loop writes runs in the order of the text."""
        touched: list[tuple[DraftOp, SSAValue, bool]] = []
        for draft in self.ops:
            for node in draft.nodes:
                for op in node.walk():
                    if is_copy(op) or is_store(op):
                        touched.append((draft, self.body.parameter(op)[0], is_store(op)))  # pyright: ignore[reportArgumentType]
                    elif isinstance(op, SortOp):
                        touched += [
                            (draft, self.body.root(op.block), False),
                            (draft, self.body.root(op.places), True),
                        ]
        order = {node: position for position, node in enumerate(self.body.nodes)}
        touched.sort(key=lambda each: order[each[0].nodes[0]])
        found: dict[tuple[int, int, int], DraftDependence] = {}
        for index, (source, parameter, writes) in enumerate(touched):
            for position, (target, other, also_writes) in enumerate(touched):
                if parameter is not other or not (writes or also_writes):
                    continue
                distance = 0 if index < position else 1
                if source is target and distance == 0:
                    continue
                found[(id(source), id(target), distance)] = DraftDependence(source, target, source.op.latency, distance)
        self.dependences += found.values()
