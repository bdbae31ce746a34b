"""A group of ops as one kernel: its sections, its grid, its symbols and its name."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xdsl.builder import Builder
from xdsl.dialects import scf
from xdsl.dialects.arith import AndIOp
from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.backends.plan_builder import dense
from forgec.ir import types
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import YieldOp
from forgec.ir.ops.scan import ScanOp
from forgec.ir.structure_text import structure_text
from forgec.ir.tile import compute
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp, ReturnOp
from forgec.ir.tile.substitution import substitute_symbols
from forgec.ir.tile.types import BlockType
from forgec.passes.tiles.axes import Axes
from forgec.passes.tiles.kernel_builder import KernelBuilder, NotLowered, Rule
from forgec.passes.tiles.parts import parts_of
from forgec.passes.tiles.rules import all_rules
from forgec.passes.tiles.scans import ScanOutput, scan_of, scan_output
from forgec.passes.tiles.section import Output, Section, programs_of
from forgec.passes.tiles.sorting import RowOutput, argsort_of
from forgec.passes.tiles.tidy import tidy
from forgec.passes.tiles.update import UPDATES, update_of
from forgec.runtime.symbolic import Extent, SymExpr, free_symbols, symbol


@dataclass(frozen=True)
class Lowered:
    """A kernel, the operands of the group that it reads (``read`` are their numbers), the extents that are the values
    of its symbols, and the types of its results.
    """

    kernel: KernelOp
    read: tuple[int, ...]
    inputs: tuple[SSAValue, ...]
    extents: tuple[Extent, ...]
    results: tuple[types.AnyTensorType, ...]

    def numbers_of(self, value: SSAValue) -> list[int]:
        """Which of the kernel's parameters a value is."""
        return [number for number, operand in enumerate(self.inputs) if operand is value]


@dataclass
class KnownGroups:
    """What became of groups that were lowered already, by all that lowering looks at: ops, types, symbols. Layers of a
    model repeat their groups. A group with a value of a dtype in ``without`` has no kernel.
    """

    without: Collection[str] = ()
    found: dict[str, Lowered | str] = field(default_factory=dict)

    def lower(self, group: FusedOp, dying: Collection[int] = ()) -> Lowered:
        """As ``lower_group``; of an equal group the kernel is the same object."""
        self._refuse_dtypes(group)
        key = f"{structure_text(group, group.inputs)} {sorted(dying)}"
        known = self.found.get(key)
        if isinstance(known, str):
            raise NotLowered(known)
        if known is not None:
            return replace(known, inputs=tuple(group.inputs[number] for number in known.read))
        try:
            lowered = lower_group(group, dying)
        except NotLowered as reason:
            self.found[key] = str(reason)
            raise
        self.found[key] = lowered
        return lowered

    def _refuse_dtypes(self, group: FusedOp) -> None:
        for value in (*group.inputs, *(result for op in group.inner for result in op.results)):
            if not isinstance(value.type, TensorType):
                continue
            dtype = types.dtype(value)
            if dtype in types.COMPLEX:
                raise NotLowered("complex numbers have no tiles")
            if dtype in self.without:
                raise NotLowered(f"the target has no tiles of {dtype}")


def alone(op: Operation) -> FusedOp:
    """A group that is one op."""
    inputs = list(dict.fromkeys(op.operands))
    group = FusedOp.of(op.name.removeprefix("forge."), [op], inputs, list(op.results))
    group.location = op.location
    for value, result in zip(group.results, op.results, strict=True):
        value.name_hint = result.name_hint
    return group


def lower_group(group: FusedOp, dying: Collection[int] = ()) -> Lowered:
    """The kernel that computes a group; raises NotLowered with the reason where there is none.

    Results that are an input with some elements changed are written in its memory if it is one of ``dying``, numbers of
    inputs that nothing else needs.
    """
    rules = all_rules()
    body = group.body.clone().block
    if any(types.dtype(value) in types.COMPLEX for op in group.inner for value in (*op.operands, *op.results)):
        raise NotLowered("complex numbers have no tiles")
    _decompose(body, rules)
    last = body.last_op
    scan = scan_of(body, last.operands if last is not None else ())
    assert isinstance(last, YieldOp), "a group ends with its yield"
    changing = [_update(value, dying) for value in last.operands]
    changed = {op.destination.index for op in changing if op is not None}
    read = [
        number for number, argument in enumerate(body.args) if argument.first_use is not None and number not in changed
    ]
    results = tuple(
        dense(types.tensor_type(value)) if op is None else types.tensor_type(group.inputs[op.destination.index])
        for value, op in zip(group.results, changing, strict=True)
    )
    kinds = [BlockType(types.tensor_type(group.inputs[number])) for number in read]
    block = Block(arg_types=[*kinds, *(BlockType(kind) for kind in results)])
    for number, argument in zip(read, block.args, strict=False):
        argument.name_hint = body.args[number].name_hint
    for value, argument in zip(group.results, block.args[len(read) :], strict=True):
        argument.name_hint = value.name_hint
    parameters: dict[SSAValue, SSAValue] = {
        body.args[number]: argument for number, argument in zip(read, block.args, strict=False)
    }
    argsort = argsort_of(body)
    if argsort is not None:
        sections = _sections([RowOutput(argsort, block.args[-1])])
    elif scan is None:
        outputs = [
            output
            for value, argument, op in zip(last.operands, block.args[len(read) :], changing, strict=True)
            for output in _outputs(value, argument, op)
        ]
        sections = _sections(outputs)
    else:
        sections = _sections([scan_output(scan, block.args[len(read) :], rules, parameters)])
    for section in sections:
        section.arrange(rules, parameters)
    builders, grid = _emit(sections, block, rules, parameters, group)
    block.add_op(ReturnOp())
    tiles = builders[0].tiles
    used = _used_symbols(block, grid, [parameter.extent for parameter in tiles.values()])
    symbols = [name for name in used if name not in tiles]
    written = range(len(read), len(block.args))
    kernel = KernelOp.of(
        "kernel",
        block,
        [symbol(name) for name in symbols],
        tuple(written),
        tuple(position for position, op in zip(written, changing, strict=True) if op is not None),
        tuple(tiles.values()),
        grid,
        group.kind.data,
    )
    kernel.location = group.location
    tidy(kernel)
    substitute_symbols(kernel, {name: symbol(f"n{number}") for number, name in enumerate(symbols)})
    kernel.properties["sym_name"] = StringAttr(content_name(kernel))
    passed = [*read, *(op.destination.index for op in changing if op is not None)]
    inputs = tuple(group.inputs[number] for number in passed)
    return Lowered(kernel, tuple(passed), inputs, tuple(symbol(name) for name in symbols), results)


def _update(value: SSAValue, dying: Collection[int]) -> Any | None:
    """The op that changes an input in its own memory to make a value."""
    op = update_of(value)
    return op if op is not None and op.destination.index in dying else None


def _outputs(value: SSAValue, parameter: SSAValue, update: Any | None) -> list[Output]:
    """A result, or the parts that it consists of."""
    parts = parts_of(value) if update is None else []
    return [Output(value, parameter, update, part) for part in parts or [None]]


def content_name(kernel: KernelOp) -> str:
    """``linear_3f9a2c1b``: the kernel's kind and a digest of what it does, which locations and names of values are no
    part of.
    """
    text = structure_text(kernel, without=("sym_name",))
    kind = "kernel" if kernel.kind is None else "".join(c if c.isalnum() else "_" for c in kernel.kind.data)
    return f"{kind}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _decompose(body: Block, rules: dict[type[Operation], Rule]) -> None:
    """Write composite ops without a rule as smaller ones."""
    current = body.first_op
    while current is not None:
        following = current.next_op
        quantized = isinstance(current, LinearOp) and current.is_quantized
        known = type(current) in rules or type(current) in UPDATES or current is argsort_of(body)
        if isinstance(current, ScanOp):
            _decompose(current.body.block, rules)
        elif (not known or quantized) and not isinstance(current, YieldOp):
            if not hasattr(current, "decompose"):
                raise NotLowered(f"{current.name} has no rule")
            before = current.prev_op
            values = current.decompose(Builder(InsertPoint.before(current)))  # type: ignore[attr-defined]
            for result, value in zip(current.results, values, strict=True):
                result.replace_all_uses_with(value)
            Rewriter.erase_op(current)
            following = body.first_op if before is None else before.next_op
        current = following


def _sections(outputs: Sequence[Output | ScanOutput | RowOutput]) -> list[Section]:
    """The results, and parts of results, by shape: what has one shape is computed by the same programs."""
    found: dict[tuple[Extent, ...], Section] = {}
    for output in outputs:
        shape = output.shape
        if 0 in shape:
            continue  # nothing to compute
        if shape in found:
            found[shape].outputs.append(output)
        else:
            found[shape] = Section([output], shape)
    return list(found.values())


def _emit(
    sections: Sequence[Section],
    block: Block,
    rules: dict[type[Operation], Rule],
    parameters: dict[SSAValue, SSAValue],
    group: FusedOp,
) -> tuple[list[KernelBuilder], list[Extent]]:
    """The body of the kernel; yields the sections' builders, which share their tile parameters, and the grid."""
    axes = sections[0].axes if sections else Axes()
    first = KernelBuilder(rules, parameters, axes, block)
    first.location = group.location
    if not sections:
        return [first], [0]
    if len(sections) == 1:
        (section,) = sections
        section.sizes(first)
        grid = section.grid()
        section.emit(first, [first.add(ProgramIdOp(axis)) for axis in range(len(grid))])
        return [first], grid or [1]
    program = first.add(ProgramIdOp(0))
    begin: Extent = 0
    builders = [first]
    for section in sections:
        inner = Block()
        k = KernelBuilder(rules, parameters, section.axes, inner)
        k.location, k.tiles, k.checks = group.location, first.tiles, first.checks
        builders.append(k)
        section.sizes(k)
        grid = section.grid()
        end = begin + programs_of(grid)
        places: list[SSAValue] = []
        count: Extent = 1
        for extent in reversed(grid):
            local: Extent = symbol("p0") - begin
            local = local if count == 1 else local // count
            places.append(k.add(compute.IndexOp(local % extent, [program])))
            count = count * extent
        section.emit(k, places[::-1])
        inner.add_op(scf.YieldOp())
        least, most = first.add(compute.IndexOp(begin)), first.add(compute.IndexOp(end))
        inside = first.add(AndIOp(first.add(CmpiOp(program, least, "sge")), first.add(CmpiOp(program, most, "slt"))))
        first.add(scf.IfOp(inside, [], Region(inner)))
        begin = end
    return builders, [begin]


def _used_symbols(block: Block, grid: Sequence[Extent], others: Sequence[Extent]) -> list[str]:
    """The symbols that a kernel names, in the order in which they appear."""
    found: dict[str, None] = {}

    def add(extent: Extent) -> None:
        if isinstance(extent, SymExpr):
            found.update(dict.fromkeys(sorted(free_symbols(extent))))

    for argument in block.args:
        assert isinstance(argument.type, BlockType), "parameters are blocks"
        for extent in (*types.shape(argument.type.value), *types.strides(argument.type.value)):
            add(extent)
    for extent in (*grid, *others):
        add(extent)
    for op in block.walk():
        for value in op.results:
            if isinstance(value.type, BlockType):
                for extent in (*types.shape(value.type.value), *types.strides(value.type.value)):
                    add(extent)
        expression = getattr(op, "expression", None)
        if expression is not None:
            names = {f"p{number}" for number in range(len(op.operands))}
            found.update(dict.fromkeys(sorted(free_symbols(expression.data) - names)))
        bounds = getattr(op, "bounds", None)
        if bounds is not None:
            for extent in bounds.data:
                add(extent)
    return list(found)
