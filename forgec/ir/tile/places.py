"""What the values of type ``index`` in a kernel can be: expressions over symbols, programs and turns of loops.

``Places`` gives a value as an extent whose symbols are the kernel's symbols, its tile parameters, and one name for each
thing that counts: ``_program0`` for an axis of the grid, ``_turn0`` for a loop, ``_value0`` for what is read and
clamped. Each of those is at least 0 and below its ``counts``. ``lowest`` and ``highest`` are bounds without them.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Block, SSAValue

from forgec.ir.tile.compute import IndexOp
from forgec.ir.tile.kernel import KernelOp, ProgramIdOp
from forgec.ir.tile.types import INDEX
from forgec.runtime.symbolic import (
    Extent,
    SymExpr,
    floordiv,
    free_symbols,
    is_nonnegative,
    substitute,
    sym_max,
    sym_min,
    symbol,
)
from forgec.runtime.symbolic.expr import from_atom


class Places:
    """The index values of one kernel."""

    def __init__(self, kernel: KernelOp) -> None:
        self.kernel = kernel
        self.counts: dict[str, Extent] = {}
        self._found: dict[SSAValue, Extent | None] = {}

    def of(self, value: SSAValue) -> Extent | None:
        """The value as an expression, None where it depends on what is read, or on a loop's results."""
        if value not in self._found:
            self._found[value] = self._expression(value) if value.type == INDEX else None
        return self._found[value]

    def turns(self, loop: scf.ForOp) -> Extent | None:
        """How often a loop's body runs, None where it is not known."""
        return self.turns_to(loop, loop.ub)

    def turns_to(self, loop: scf.ForOp, end: SSAValue) -> Extent | None:
        """How often a loop's body would run with another end."""
        lower, upper, step = self.of(loop.lb), self.of(end), self.of(loop.step)
        if lower is None or upper is None or step is None or (isinstance(step, int) and step <= 0):
            return None
        return floordiv(sym_max(upper - lower, 0) + step - 1, step)

    def lowest(self, place: Extent) -> Extent | None:
        """A bound that no program and no turn goes below, None if there is none to see."""
        return self._extreme(place, up=False)

    def highest(self, place: Extent) -> Extent | None:
        """A bound that no program and no turn goes above, None if there is none to see."""
        return self._extreme(place, up=True)

    def middle(self, place: Extent) -> Extent:
        """The value half way through programs and turns, for estimates."""
        while names := sorted(name for name in free_symbols(place) if name in self.counts):
            place = substitute(place, {name: floordiv(self.counts[name], 2) for name in names})
        return place

    def is_inside(self, offset: SSAValue, size: Extent, bound: Extent, *, below_too: bool = True) -> bool:
        """True if ``offset`` to ``offset + size`` is certain to lie in ``[0, bound)``, for every program and turn.

        ``below_too`` asks for the offset to be at least 0 as well.
        """
        place = self.of(offset)
        if place is None:
            return False
        low, high = self.lowest(place), self.highest(place)
        if below_too and (low is None or not is_nonnegative(low)):
            return False
        return high is not None and is_nonnegative(bound - (high + size))

    def _expression(self, value: SSAValue) -> Extent | None:
        owner = value.owner
        match owner:
            case arith.ConstantOp(value=IntegerAttr() as number):
                return number.value.data
            case ProgramIdOp() if owner.axis.data < len(self.kernel.grid.data):
                return self._counter(f"_program{owner.axis.data}", self.kernel.grid.data[owner.axis.data])
            case IndexOp():
                operands = {f"p{n}": self.of(operand) for n, operand in enumerate(owner.inputs)}
                known = {name: found for name, found in operands.items() if found is not None}
                needed = free_symbols(owner.expression.data) & operands.keys()
                return substitute(owner.expression.data, known) if needed <= known.keys() else None
            case arith.AddiOp() | arith.SubiOp() | arith.MuliOp():
                left, right = self.of(owner.lhs), self.of(owner.rhs)
                if left is None or right is None:
                    return None
                if isinstance(owner, arith.MuliOp):
                    return left * right
                return left + right if isinstance(owner, arith.AddiOp) else left - right
            case arith.MinSIOp():
                return self._clamped(owner)
            case Block():
                return self._turn(owner, value)
        return None

    def _turn(self, block: Block, value: SSAValue) -> Extent | None:
        loop = block.parent_op()
        if not isinstance(loop, scf.ForOp) or value is not block.args[0]:
            return None
        lower, step, count = self.of(loop.lb), self.of(loop.step), self.turns(loop)
        if lower is None or step is None or count is None:
            return None
        return lower + step * self._counter(f"_turn{len(self.counts)}", count)

    def _clamped(self, op: arith.MinSIOp) -> Extent | None:
        """What is read, and then made at least 0 and at most an extent: it counts as well."""
        least, most = op.lhs.owner, self.of(op.rhs)
        if most is None or not isinstance(least, arith.MaxSIOp) or self.of(least.rhs) != 0:
            return None
        return self._counter(f"_value{len(self.counts)}", most + 1)

    def _counter(self, name: str, count: Extent) -> Extent:
        self.counts.setdefault(name, count)
        return symbol(name)

    # Bounds: by the form of the expression, one way for each kind of atom.

    def _extreme(self, place: Extent, *, up: bool) -> Extent | None:
        if not isinstance(place, SymExpr) or not free_symbols(place) & self.counts.keys():
            return place
        total: Extent = 0
        for monomial, coefficient in place.terms:
            product = self._product([from_atom(atom) for atom in monomial], up=up == (coefficient > 0))
            if product is None:
                return None
            total = total + product * coefficient
        return total

    def _product(self, factors: Sequence[Extent], *, up: bool) -> Extent | None:
        """A bound of a product; only one whose factors are all at least 0 has one."""
        result: Extent = 1
        for factor in factors:
            bound = self._atom(factor, up=up)
            if bound is None:
                return None
            if len(factors) > 1:
                low = self._atom(factor, up=False)
                if low is None or not is_nonnegative(low):
                    return None
            result = result * bound
        return result

    def _atom(self, factor: Extent, *, up: bool) -> Extent | None:
        names = free_symbols(factor) & self.counts.keys()
        if not names or not isinstance(factor, SymExpr):
            return factor
        atom = factor.terms[0][0][0]
        if atom.op == "symbol":
            return self.highest(self.counts[atom.text] - 1) if up else 0
        if atom.op in ("max", "min"):
            parts = [self._extreme(argument, up=up) for argument in atom.args]
            known = [part for part in parts if part is not None]
            combine = sym_max if atom.op == "max" else sym_min
            # one known part bounds a maximum from below, and a minimum from above
            enough = bool(known) if (atom.op == "max") != up else len(known) == len(parts)
            return combine(*known) if enough else None
        dividend, divisor = atom.args
        if free_symbols(divisor) & self.counts.keys() or not is_nonnegative(divisor):
            return None
        if atom.op == "floordiv":
            bound = self._extreme(dividend, up=up)
            return None if bound is None else floordiv(bound, divisor)
        assert atom.op == "mod"
        return divisor - 1 if up else 0
