"""Which part of each tile a kernel needs: what ``tile.store`` leaves out, because it lies beyond the end of a block, is
not computed.

A tile of 64 rows of a sequence whose length is known only when it runs has one row that counts where one token is
decoded. Seen from the stores, in which the end is known, the rows that count are found for products, sums of rows and
all that is computed element by element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects import scf
from xdsl.ir import Block, Operation, SSAValue

from forgec.backends.cpu.placement import is_deferred, is_tile
from forgec.ir import types
from forgec.ir.tile import compute, memory
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.types import block_type, extents
from forgec.runtime.symbolic import Extent


@dataclass(frozen=True)
class Limit:
    """Places of a tile's axis from ``bound - offset`` on are not needed."""

    offset: SSAValue
    bound: Extent


Part = tuple[Limit | None, ...]
"""For each axis of a tile what of it is needed; None for all of it."""


class Needed:
    """The parts of a bound kernel's tiles that are needed.

    A backward dataflow analysis: a tile is needed as far as one of its readers needs it. Where two readers differ, it
    is needed along all of the axis.
    """

    def __init__(self, kernel: KernelOp) -> None:
        self._parts: dict[SSAValue, Part] = {}
        self.limits: dict[SSAValue, list[tuple[Limit, int]]] = {}
        """By offset, the limits that there are, and the extents of the axes that have them."""
        self._changed = _limited(kernel)
        while self._changed:
            self._changed = False
            self._block(kernel.body.block)
        found = {
            (limit, extent): None
            for value, part in self._parts.items()
            for limit, extent in zip(part, extents(value), strict=True)
            if limit is not None and isinstance(extent, int)
        }
        for limit, extent in found:
            self.limits.setdefault(limit.offset, []).append((limit, extent))

    def of(self, value: SSAValue) -> Part:
        """What of a tile is needed; all of what nothing is known of."""
        return self._parts.get(value) or (None,) * len(extents(value))

    def _need(self, value: SSAValue, part: Part) -> None:
        if not is_tile(value):
            return
        known = self._parts.get(value)
        joined = part if known is None else tuple(a if a == b else None for a, b in zip(known, part, strict=True))
        if joined != known:
            self._parts[value] = joined
            self._changed = True

    def _need_all(self, values: Sequence[SSAValue]) -> None:
        for value in values:
            self._need(value, (None,) * len(extents(value)))

    def _block(self, block: Block) -> None:
        for op in reversed(list(block.ops)):
            self._op(op)

    def _op(self, op: Operation) -> None:
        match op:
            case memory.StoreOp():
                self._need(op.value, _stored_part(op))
            case scf.ForOp():
                self._loop(op)
            case scf.IfOp():
                for region in op.regions:
                    for block in region.blocks:
                        self._yields(block, op.results)
                        self._block(block)
            case scf.YieldOp():
                pass
            case _ if not op.results or not is_tile(op.results[0]):
                self._need_all(op.operands)
                for region in op.regions:
                    for block in region.blocks:
                        self._block(block)
            case _:
                part = self._parts.get(op.results[0])
                if part is not None:
                    self._operands(op, part)

    def _operands(self, op: Operation, part: Part) -> None:
        """Of a tile's part, what is needed of the operands that it is computed from."""
        match op:
            case compute.ReduceOp():
                axis = op.axis.data
                self._need(op.input, (*part[:axis], None, *part[axis:]))
            case compute.DotOp():
                self._need(op.lhs, (part[0], None))
                self._need(op.rhs, (None, None))
                self._need(op.accumulator, (part[0], None))
            case compute.BroadcastOp():
                shape = extents(op.result)
                pairs = zip(op.along.data, extents(op.input), strict=True)
                self._need(op.input, tuple(part[axis] if shape[axis] == extent else None for axis, extent in pairs))
            case compute.TransposeOp():
                turned: list[Limit | None] = [None] * len(part)
                for limit, axis in zip(part, op.permutation.data, strict=True):
                    turned[axis] = limit
                self._need(op.input, tuple(turned))
            case _ if is_deferred(op) and not isinstance(op, memory.GatherOp):
                for operand in op.operands:
                    if is_tile(operand):
                        self._need(operand, part if extents(operand) == extents(op.results[0]) else _all(operand))
            case _:
                self._need_all(op.operands)  # of a gather: no address is made of what is not computed

    def _loop(self, op: scf.ForOp) -> None:
        arguments = op.body.block.args[1:]
        yields = op.body.block.last_op
        assert isinstance(yields, scf.YieldOp)
        for result, argument, first, last in zip(op.results, arguments, op.iter_args, yields.arguments, strict=True):
            for part in (self._parts.get(result), self._parts.get(argument)):
                for value in (argument, first, last) if part is not None else ():
                    self._need(value, part or ())
        self._block(op.body.block)

    def _yields(self, block: Block, results: Sequence[SSAValue]) -> None:
        yields = block.last_op
        assert isinstance(yields, scf.YieldOp)
        for value, result in zip(yields.arguments, results, strict=True):
            part = self._parts.get(result)
            if part is not None:
                self._need(value, part)


def _all(value: SSAValue) -> Part:
    return (None,) * len(extents(value))


def _limited(kernel: KernelOp) -> bool:
    return any(any(_stored_part(op)) for op in _stores(kernel.body.block))


def _stores(block: Block) -> Iterator[memory.StoreOp]:
    for op in block.ops:
        if isinstance(op, memory.StoreOp):
            yield op
        for region in op.regions:
            for inner in region.blocks:
                yield from _stores(inner)


def _stored_part(op: memory.StoreOp) -> Part:
    """What of a tile lies inside the block, before its end."""
    inside = () if op.in_bounds is None else op.in_bounds.data
    shape = extents(op.value)
    bounds = types.shape(block_type(op.block))
    return tuple(
        None if axis in inside or extent == 1 else Limit(op.offsets[axis], bounds[axis])
        for axis, extent in enumerate(shape)
    )
