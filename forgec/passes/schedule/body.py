"""What a loop's ops are to a scheduler: which cost nothing, which run by themselves, and what flows between the others.

An op of the body is *free* where it only says which elements are meant, or repeats them: index arithmetic, views,
constants, broadcasts, transposed factors of products. Free ops belong to no op of the graph: whoever reads their
results computes them again. What is left are *nodes*: copies (``tile.load``, ``tile.gather``), products
(``tile.dot``), stores, and synchronous code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IndexType, IntegerAttr, IntegerType, TensorType, i1
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from forgec.diagnostics import error
from forgec.ir.locations import location_of
from forgec.ir.tile.compute import BroadcastOp, DotOp, IndexOp, RangeOp, TransposeOp
from forgec.ir.tile.cost import item_bytes
from forgec.ir.tile.elementwise import SelectOp
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp
from forgec.ir.tile.memory import GatherOp, LoadOp, ScatterOp, StoreOp, ViewOp
from forgec.ir.tile.types import INDEX, BlockType, element, extents
from forgec.runtime.symbolic import Extent

COPIES = (LoadOp, GatherOp)
STORES = (StoreOp, ScatterOp)
ADDRESSES = (IndexOp, RangeOp, ProgramIdOp, ViewOp, arith.ConstantOp, BroadcastOp)


@dataclass(frozen=True)
class Source:
    """A value that is read: the result of a node of ``distance`` iterations before, or one from outside of the loop."""

    value: SSAValue
    distance: int = 0


@dataclass
class Body:
    """The body of one loop of a kernel."""

    kernel: KernelOp
    loop: scf.ForOp
    nodes: list[Operation] = field(init=False)
    _free: dict[Operation, bool] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.nodes = [op for op in self.block.ops if not isinstance(op, scf.YieldOp) and not self.is_free(op)]

    @property
    def block(self) -> Block:
        """The ops of one iteration."""
        return self.loop.body.block

    @cached_property
    def _of_node(self) -> set[Operation]:
        return set(self.nodes)

    def is_free(self, op: Operation) -> bool:
        """Whether an op of the body is part of the addresses, or of the way in which a value is read."""
        if op not in self._free:
            self._free[op] = self._looks_free(op)
        return self._free[op]

    def _looks_free(self, op: Operation) -> bool:
        if isinstance(op, ADDRESSES):
            return True
        if op.regions or not op.results or isinstance(op, DotOp):
            return False
        if isinstance(op, TransposeOp):
            return self._lies_in_memory(op.input) and only_multiplied(op.result)
        computed = not all(self._is_address(operand) for operand in op.operands)
        if computed:  # an index that is computed of tiles (the place of a maximum) is computed once
            return False
        if isinstance(op, COPIES):
            return _is_whole_number(op.result) and self.root(op.block) not in self.written
        return all(element(result) == INDEX or _is_whole_number(result) or _only_masks(result) for result in op.results)

    def _is_address(self, value: SSAValue) -> bool:
        owner = value.owner
        return isinstance(owner, Block) or owner.parent is not self.block or self.is_free(owner)

    def _lies_in_memory(self, value: SSAValue) -> bool:
        owner = value.owner
        if isinstance(owner, TransposeOp):
            return self._lies_in_memory(owner.input)
        return isinstance(owner, COPIES) or (not isinstance(owner, Block) and owner.parent is not self.block)

    @cached_property
    def written(self) -> set[SSAValue]:
        """The kernel's parameters that it writes."""
        return {self.kernel.parameters[position] for position in self.kernel.writes.data}

    def root(self, block: SSAValue) -> SSAValue:
        """The block that a view is a part of."""
        while isinstance(block.owner, ViewOp):
            block = block.owner.source
        return block

    def parameter(self, op: LoadOp | GatherOp | StoreOp | ScatterOp) -> tuple[SSAValue, int | None]:
        """The parameter of the kernel that an access reaches, and its position."""
        found = self.root(op.block)
        position = found.index if isinstance(found, BlockArgument) and found in self.kernel.parameters else None
        return found, position

    # What flows

    def sources(self, value: SSAValue) -> list[Source]:
        """What has to be there for a value to be there: through free ops and carried values, to nodes and to what is
        outside. Blocks, and numbers from outside, are no sources.
        """
        found: dict[tuple[SSAValue, int], None] = {}
        seen: set[tuple[SSAValue, int]] = set()
        waiting = [(value, 0)]
        carried = len(self.loop.iter_args)
        while waiting:
            item = waiting.pop(0)
            if item in seen:
                continue
            seen.add(item)
            value, distance = item
            owner = value.owner
            if isinstance(owner, Block):
                if owner is self.block and isinstance(value, BlockArgument) and value.index > 0:
                    if distance <= carried:  # around a ring of carried values that no node makes there is nothing new
                        waiting.append((self.yielded[value.index - 1], distance + 1))
                elif isinstance(value.type, TensorType):
                    found[item] = None
            elif owner in self._of_node:
                found[item] = None
            elif owner.parent is self.block:
                waiting += [(operand, distance) for operand in owner.operands]
            elif isinstance(value.type, TensorType) and not self._is_constant(value):
                found[item] = None
        return [Source(value, distance) for value, distance in found]

    @cached_property
    def yielded(self) -> tuple[SSAValue, ...]:
        """What an iteration hands to the next."""
        end = self.block.last_op
        assert isinstance(end, scf.YieldOp), "a loop's body ends so"
        return tuple(end.operands)

    def _is_constant(self, value: SSAValue) -> bool:
        """Whether a value from outside is a number, or index arithmetic, that takes no register of its own."""
        owner = value.owner
        if isinstance(owner, Block):
            return False
        if element(value) == INDEX or isinstance(owner, (arith.ConstantOp, RangeOp)):
            return True
        return isinstance(owner, (BroadcastOp, TransposeOp)) and (
            not isinstance(owner.operands[0].type, TensorType) or self._is_constant(owner.operands[0])
        )

    def operands(self, op: Operation) -> Iterator[SSAValue]:
        """The operands of an op, and what its regions read from around it."""
        yield from op.operands
        for region in op.regions:
            for inner in region.walk():
                for operand in inner.operands:
                    owner = operand.owner
                    block = owner if isinstance(owner, Block) else owner.parent
                    if block is not None and not op.is_ancestor(block):
                        yield operand

    def reads(self, op: Operation) -> list[Source]:
        """The sources of all operands of a node, each once."""
        return list(dict.fromkeys(source for operand in self.operands(op) for source in self.sources(operand)))

    def readers(self, value: SSAValue) -> list[tuple[Operation, int]]:
        """The nodes that read a node's result or a value from outside, with the distance."""
        return [(node, source.distance) for node in self.nodes for source in self.reads(node) if source.value is value]

    # Which programs share what

    def depends_on(self, axis: int) -> set[SSAValue]:
        """The values of the kernel that are not the same for all programs along an axis of the grid."""
        found: set[SSAValue] = set()
        changed = True

        def mark(values: Iterable[SSAValue]) -> None:
            nonlocal changed
            for value in values:
                if value not in found:
                    found.add(value)
                    changed = True

        while changed:
            changed = False
            for op in self.kernel.body.walk():
                if isinstance(op, ProgramIdOp):
                    if op.axis.data == axis:
                        mark(op.results)
                elif isinstance(op, scf.ForOp):
                    end = op.body.block.last_op
                    assert end is not None, "a loop's body ends with what it yields"
                    if op.lb in found or op.step in found:
                        mark(op.body.block.args[:1])
                    if op.ub in found:  # of the turns that all make, each is the same; what is left is not
                        mark(op.results)
                    for start, carried, after, result in zip(
                        op.iter_args, op.body.block.args[1:], end.operands, op.results, strict=True
                    ):
                        if start in found or after in found:
                            mark((carried, result))
                elif any(operand in found for operand in self.operands(op)) or (
                    op.regions and any(result in found for inner in op.regions[0].walk() for result in inner.results)
                ):
                    mark(op.results)
        return found


def _is_whole_number(value: SSAValue) -> bool:
    """Whether a value is a scalar that may be a place."""
    return isinstance(value.type, (IndexType, IntegerType)) and value.type != i1


def only_multiplied(value: SSAValue) -> bool:
    """Whether a tile is a factor of products, and nothing else."""
    return all(
        (isinstance(use.operation, DotOp) and use.index < 2)
        or (isinstance(use.operation, TransposeOp) and only_multiplied(use.operation.result))
        for use in value.uses
    )


def _only_masks(value: SSAValue) -> bool:
    """Whether booleans only say which elements are read or written."""
    if element(value) != i1:
        return False
    return all(
        isinstance(use.operation, (*COPIES, *STORES))
        or (
            isinstance(use.operation, (arith.AndIOp, arith.OrIOp, BroadcastOp))
            and _only_masks(use.operation.results[0])
        )
        for use in value.uses
    )


def known_extents(value: SSAValue) -> tuple[int, ...]:
    """The extents of a tile, which are numbers.

    Raises:
        ForgeError: FORGE-U010, where they are not.
    """
    found = extents(value)
    known = tuple(extent for extent in found if isinstance(extent, int))
    if len(known) < len(found):
        owner = value.owner
        raise error(
            "FORGE-U010",
            f"the tile {value.type} has extents that are not known",
            location=None if isinstance(owner, Block) else location_of(owner),
            help="bind the kernel's tile parameters first: bind-tiles",
        )
    return known


def size(value: SSAValue) -> int:
    """The elements of a tile; 1 of a scalar."""
    return prod(known_extents(value))


def bytes_of(value: SSAValue) -> int:
    """The bytes of a tile or a scalar in registers or memory."""
    return 0 if isinstance(value.type, BlockType) else size(value) * item_bytes(element(value))


def loops_of(kernel: KernelOp) -> list[scf.ForOp]:
    """The innermost loops of a kernel that compute with tiles, in the order in which they run."""
    return [
        op
        for op in kernel.body.walk()
        if isinstance(op, scf.ForOp)
        and not any(isinstance(inner, (scf.ForOp, scf.WhileOp)) for inner in op.body.walk())
        and any(isinstance(value.type, TensorType) for inner in op.body.walk() for value in inner.results)
    ]


def loops_around(loop: Operation, kernel: KernelOp) -> list[scf.ForOp] | None:
    """The loops that a loop is part of, the innermost first; None where something else than loops is around it."""
    found: list[scf.ForOp] = []
    parent = loop.parent_op()
    while parent is not kernel:
        if not isinstance(parent, scf.ForOp):
            return None
        found.append(parent)
        parent = parent.parent_op()
    return found


def number_in(value: SSAValue) -> Extent | None:
    """The number, or expression over the kernel's symbols, that a value stands for by itself."""
    match value.owner:
        case IndexOp() as owner if not owner.inputs:
            return owner.expression.data
        case arith.ConstantOp(value=IntegerAttr() as number):
            return number.value.data
    return None


def end_if_run(loop: scf.ForOp) -> SSAValue:
    """Where a loop ends, if it runs at all: one of a branch that may not be taken, of an expert without rows."""
    owner = loop.ub.owner
    if isinstance(owner, SelectOp):
        first, instead = number_in(loop.lb), number_in(owner.rhs)
        if owner.rhs is loop.lb or (first is not None and first == instead):
            return owner.lhs
    return loop.ub


def bounding(kernel: KernelOp) -> set[Operation]:
    """The ops that the bounds of a kernel's loops of tiles, and of loops around these, are computed with, loops among
    them: how far the keys reach that a mask leaves.
    """
    found: set[Operation] = set()
    waiting: list[SSAValue] = []
    for loop in loops_of(kernel):
        parent: Operation | None = loop
        while parent is not None and parent is not kernel:
            if isinstance(parent, scf.ForOp):
                waiting += (parent.lb, parent.ub, parent.step)
            parent = parent.parent_op()
    seen = set(waiting)
    while waiting:
        value = waiting.pop()
        owner = value.owner
        more: list[SSAValue] = []
        if isinstance(owner, Block):
            loop, end = owner.parent_op(), owner.last_op
            if isinstance(loop, scf.ForOp) and end is not None and isinstance(value, BlockArgument):
                number = value.index - 1
                more = [loop.lb, loop.step] if number < 0 else [loop.iter_args[number], end.operands[number]]
        elif owner not in found:
            found.add(owner)
            more = [*owner.operands, *(value for each in owner.walk() for value in each.operands)]
        waiting += [value for value in more if value not in seen]
        seen.update(more)
    return found


def is_copy(op: Operation) -> bool:
    """Whether an op brings something from memory."""
    return isinstance(op, COPIES)


def is_store(op: Operation) -> bool:
    """Whether an op writes to memory."""
    return isinstance(op, STORES)
