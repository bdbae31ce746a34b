"""Between which numbers an index lies, as far as the kernel shows: for checks that can be left out, and divisions."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Block, SSAValue

from forgec.ir.tile.compute import BroadcastOp, IndexOp, RangeOp, TransposeOp
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp
from forgec.ir.tile.types import extents
from forgec.runtime.symbolic import Bounds, Extent, bounds, substitute

UNKNOWN: Bounds = (None, None)


class IndexRanges:
    """Inclusive bounds of the index values of a bound kernel; None where nothing is known."""

    def __init__(self, kernel: KernelOp, symbols: Mapping[str, Bounds]) -> None:
        self._kernel = kernel
        self._bindings = kernel.bindings
        self.symbols = {name: self._of_a_running_program(name, found) for name, found in symbols.items()}
        self._known: dict[SSAValue, Bounds] = {}

    def _of_a_running_program(self, symbol: str, found: Bounds) -> Bounds:
        """At least 1 where a grid without programs would follow from 0: then nothing runs."""
        if found[0] == 0:
            for extent in self._kernel.grid.data:
                count = substitute(extent, {**self._bindings, symbol: 0})
                if isinstance(count, int) and count <= 0:
                    return 1, found[1]
        return found

    def extent(self, expression: Extent) -> Bounds:
        """Of an expression in the kernel's symbols."""
        return bounds(substitute(expression, self._bindings), self.symbols)

    def of(self, value: SSAValue) -> Bounds:
        """Of a value of type index, a scalar or all elements of a tile."""
        if value not in self._known:
            self._known[value] = UNKNOWN  # a value that depends on itself, through a loop
            self._known[value] = self._find(value)
        return self._known[value]

    def expression(self, op: IndexOp) -> dict[str, Bounds]:
        """Of the names in the expression of an op."""
        return {**self.symbols, **{f"p{number}": self.of(operand) for number, operand in enumerate(op.inputs)}}

    def _find(self, value: SSAValue) -> Bounds:
        owner = value.owner
        if isinstance(owner, Block):
            return self._argument(value, owner)
        match owner:
            case ProgramIdOp():
                high = self.extent(self._kernel.grid.data[owner.axis.data])[1]
                return 0, None if high is None else max(high - 1, 0)
            case RangeOp():
                high = self.extent(extents(value)[0])[1]
                return 0, None if high is None else high - 1
            case IndexOp():
                return bounds(substitute(owner.expression.data, self._bindings), self.expression(owner))
            case arith.ConstantOp():
                if isinstance(owner.value, IntegerAttr):
                    return owner.value.value.data, owner.value.value.data
            case BroadcastOp() | TransposeOp():
                return self.of(owner.operands[0])
            case arith.SelectOp():
                (low, high), (least, most) = self.of(owner.lhs), self.of(owner.rhs)
                return (
                    None if low is None or least is None else min(low, least),
                    None if high is None or most is None else max(high, most),
                )
        return UNKNOWN

    def _argument(self, value: SSAValue, block: Block) -> Bounds:
        loop = block.parent_op()
        if not isinstance(loop, scf.ForOp) or value is not block.args[0]:
            return UNKNOWN
        low, end = self.of(loop.lb)[0], self.of(loop.ub)[1]
        return low, None if end is None else end - 1
