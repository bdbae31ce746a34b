"""Sorting of long rows: each program puts the places of one row in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects.builtin import IntAttr, ModuleOp, UnitAttr
from xdsl.ir import Block, SSAValue
from xdsl.rewriter import InsertPoint

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import GatherOp
from forgec.ir.ops.order import ArgsortOp, SortOp, TopkOp
from forgec.ir.ops.shape import TransposeOp
from forgec.ir.tile import memory
from forgec.ir.tile.types import BlockType
from forgec.passes.rewriting import blocks, replace
from forgec.passes.tiles.axes import Axis, Place
from forgec.passes.tiles.kernel_builder import KernelBuilder
from forgec.passes.tiles.rules.order import MOST_ROUNDS
from forgec.runtime.symbolic import Extent

SHORT = 64
"""Elements of a row up to which counting, for each, those before it is faster."""


def take_sorts(module: ModuleOp) -> None:
    """Write sorts of long rows as ``forge.argsort`` of rows that lie along the last dimension, and a gather."""
    for block in [b for b in blocks(module) if not isinstance(b.parent_op(), FusedOp)]:
        for op in list(block.ops):
            if isinstance(op, (SortOp, TopkOp)) and _is_long(op):
                _take(op)


def _is_long(op: SortOp | TopkOp) -> bool:
    shape = types.shape(op.input)
    if not shape or types.dtype(op.input) not in types.ITEM_BYTES or types.dtype(op.input) in types.COMPLEX:
        return False
    extent = shape[op.dim.data]
    if isinstance(op, TopkOp):
        kept = types.shape(op.values)[op.dim.data]
        if isinstance(kept, int) and kept <= MOST_ROUNDS and op.smallest is None and isinstance(extent, int):
            return False
    return not isinstance(extent, int) or extent > SHORT


def _take(op: SortOp | TopkOp) -> None:
    emit, dim, rank = Emitter(Builder(InsertPoint.before(op)), op), op.dim.data, types.rank(op.input)
    descending = op.descending is not None if isinstance(op, SortOp) else op.smallest is None
    order = [*range(dim), *range(dim + 1, rank), dim]
    back = [order.index(each) for each in range(rank)]
    moved = order != sorted(order)
    rows = emit(TransposeOp, op.input, permutation=IntsAttr(order)) if moved else op.input
    places = emit(ArgsortOp, rows, **({"descending": UnitAttr()} if descending else {}))
    kept = types.shape(op.values)[dim]
    if kept != types.shape(op.input)[dim]:
        places = emit.slice(places, rank - 1, 0, kept)
    if moved:
        places = emit(TransposeOp, places, permutation=IntsAttr(back))
    values = emit(GatherOp, op.input, places, dim=IntAttr(dim))
    replace(op, [values, places])


def argsort_of(body: Block) -> ArgsortOp | None:
    """The sort that all of a group's body is."""
    first = body.first_op
    return first if isinstance(first, ArgsortOp) and first.next_op is body.last_op else None


@dataclass
class RowOutput:
    """The places of each row's elements, a program for each row."""

    sort: ArgsortOp
    parameter: SSAValue

    @property
    def shape(self) -> tuple[Extent, ...]:
        """The places over which programs run."""
        return types.shape(self.sort.input)[:-1]

    def write(self, k: KernelBuilder, place: Place, axes: Sequence[Axis]) -> None:
        """Sort the row at a place."""
        k.batch |= {axis.name for axis in k.axes.of_all(place)}
        rows = [_row(k, parameter, place) for parameter in (k.parameters[self.sort.input], self.parameter)]
        k.add(memory.SortOp(rows[0], rows[1], self.sort.descending is not None))


def _row(k: KernelBuilder, parameter: SSAValue, place: Place) -> SSAValue:
    assert isinstance(parameter.type, BlockType), "parameters are blocks"
    held = parameter.type.value
    *steps, stride = types.strides(held)
    offset: Extent = 0
    for at, step in zip(place, steps, strict=True):
        offset = offset + at * step
    k.addresses.append(offset)
    kind = BlockType(types.tensor(types.dtype(held), [types.shape(held)[-1]], [stride]))
    return k.add(memory.ViewOp(parameter, k.scalar(offset), kind))
