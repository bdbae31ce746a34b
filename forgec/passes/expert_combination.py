"""Reading mixtures of experts: how the results of the experts of each row become one row."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.binary import AddOp, MulOp
from forgec.ir.ops.index import IndexAddOp, IndexPutOp, ScatterAddOp
from forgec.ir.ops.order import SortOp
from forgec.ir.ops.reduction import SumOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.expert_rows import (
    NotFused,
    PairWeights,
    Product,
    counts_up,
    divided,
    is_inverse,
    lean,
    pair_experts,
    pair_weights,
    plain,
    sorting,
    squeezed,
    taken,
)
from forgec.passes.patterns import made_by, number, only_neighbour, pairs


@dataclass
class Combination:
    """How rows are combined, up to the op ``root``."""

    root: Operation
    ops: list[Operation] = field(default_factory=list)
    weights: PairWeights | None = None
    bias: SSAValue | None = None
    onto: SSAValue | None = None
    """What the sum is added to."""


def combine(value: SSAValue, down: Product, sort: SortOp | None, chosen: int, *, scaled: bool) -> Combination:
    """Follow the results of the last product, ``value``, to the sum over the experts of each row, or, of one expert, to
    where they stand in the order of rows. Raises NotFused where there is none.
    """
    reading = _Reading(value, down, sort, chosen, scaled)
    while reading.root is None:
        user = only_neighbour(reading.value)
        if user is None or not reading.step(user):
            break
    return reading.combination()


class _Reading:
    def __init__(self, value: SSAValue, down: Product, sort: SortOp | None, chosen: int, scaled: bool) -> None:
        self.value, self.experts, self.sort, self.chosen = value, down.experts, sort, chosen
        self.width = types.shape(down.weight)[2 if down.transposed else 1]
        self.bias_type = (types.shape(down.weight)[0], self.width), types.dtype(down.weight)
        self.is_scaled = scaled
        self.is_sorted = down.is_sorted
        self.frame = (down.experts, down.is_sorted)
        self.weights: PairWeights | None = None
        self.bias: SSAValue | None = None
        self.onto: SSAValue | None = None
        self.ops: list[Operation] = []
        self.root: Operation | None = None
        self.found: Combination | None = None
        if value.owner is down.ops[0]:
            self._reached(down.ops[0])

    def step(self, user: Operation) -> bool:
        """Go on to what ``user`` makes of the value. False if it is no step of a combination."""
        match user:
            case ReshapeOp() | CopyOp():
                return self._rearranged(user)
            case CastOp():
                narrow, wide = types.dtype(user.input), types.dtype(user.result)
                fits = self.weights is None and wide in types.FLOATS and types.promote(narrow, wide) == wide
                return fits and self._go(user)
            case AddOp():
                return self._biased(user)
            case MulOp():
                return self._weighted(user)
            case SumOp():
                return self._summed(user)
            case IndexAddOp() | ScatterAddOp() | IndexPutOp():
                return self._added(user)
        found = taken(user.results[0]) if user.results else None
        return found is not None and self._unsorted(user, *found)

    def combination(self) -> Combination:
        """What was read; raises NotFused if it is no combination."""
        if self.found is None:
            user = only_neighbour(self.value)
            after = "their results have other uses" if user is None else f"{user.name} follows"
            raise NotFused(f"after the products no weighted sum over the experts of each row was found: {after}")
        return self.found

    def _go(self, op: Operation) -> bool:
        self.ops.append(op)
        self.value = op.results[0]
        return True

    def _reached(self, op: Operation) -> None:
        """Remember that a single expert of each row has done all it does."""
        if self.chosen == 1 and not self.is_sorted:
            self._end(op)

    def _end(self, op: Operation) -> None:
        self.found = Combination(op, list(self.ops), self.weights, self.bias, self.onto)

    def _rearranged(self, op: ReshapeOp | CopyOp) -> bool:
        """Rows stay rows."""
        before, after = types.shape(op.input), types.shape(op.result)
        return (after[-1:] == (self.width,) == before[-1:] or lean(before) == lean(after)) and self._go(op)

    def _biased(self, op: AddOp) -> bool:
        for mine, other in pairs(op):
            found = taken(squeezed(other)[0])
            if mine is not self.value or found is None or self.weights is not None or self.bias is not None:
                continue
            if (types.shape(found[0]), types.dtype(found[0])) != self.bias_type or types.dtype(mine) != self.bias_type[
                1
            ]:
                continue
            if pair_experts(found[1]) != (self.experts, self.is_sorted):
                continue
            self.bias = found[0]
            self._go(op)
            self._reached(op)
            return True
        return False

    def _weighted(self, op: MulOp) -> bool:
        for mine, other in pairs(op):
            if mine is not self.value or self.weights is not None or self.is_scaled:
                continue
            shape = types.shape(mine)
            if shape[-1:] != (self.width,) or types.shape(op.result) != shape:
                continue
            if types.shape(other) not in ((*shape[:-1], 1), shape):
                continue
            weights = pair_weights(other, types.dtype(op.result), self.experts, self.sort if self.is_sorted else None)
            if weights is None:
                continue
            self.weights = weights
            self._go(op)
            self._reached(op)
            return True
        return False

    def _unsorted(self, op: Operation, source: SSAValue, index: SSAValue) -> bool:
        if source is not self.value or not self.is_sorted or self.sort is None:
            return False
        if types.shape(source)[1:] != (self.width,) or not is_inverse(index, self.sort):
            return False
        self.is_sorted = False
        self._go(op)
        self._reached(op)
        return True

    def _summed(self, op: SumOp) -> bool:
        shape = types.shape(op.input)
        if self.is_sorted or shape[-2:] != (self.chosen, self.width) or op.dims.data != (len(shape) - 2,):
            return False
        self.root = op
        self._go(op)
        self._end(op)
        return True

    def _added(self, op: IndexAddOp | ScatterAddOp | IndexPutOp) -> bool:
        """Added to the row of each pair, in what is zero at first or in other rows."""
        if isinstance(op, IndexPutOp):
            index, source, fits = op.indices[0], op.values, op.dims.data == (0,) and op.accumulate is not None
        else:
            index, source, fits = op.index, op.source, op.dim.data == 0
        if isinstance(op, ScatterAddOp):  # an index for each element
            spread = made_by(index, BroadcastOp)
            fits = fits and spread is not None and types.shape(spread.input)[1:] == (1,)
            fits = fits and types.shape(index) == types.shape(source)
            index = index if spread is None else spread.input
        target = types.shape(op.destination)
        if not fits or source is not self.value or types.shape(source)[1:] != (self.width,):
            return False
        if target != (types.numel(self.experts) // self.chosen, self.width) or not self._is_row(index):
            return False
        if number(op.destination) != 0:
            self.onto = op.destination
        self.root = op
        self._go(op)
        self._end(op)
        return True

    def _is_row(self, index: SSAValue) -> bool:
        """True if ``index`` is the row of each pair, in the order in which the pairs stand."""
        quotient = divided(index)
        order, chosen = (plain(index), 1) if quotient is None else quotient
        if chosen != self.chosen:
            return False
        return sorting(order) is self.sort is not None if self.is_sorted else counts_up(order)
