"""Products of query and key, and of weights and value: what they are, and whether values come from or go to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from xdsl.ir import Operation, SSAValue
from xdsl.traits import is_side_effect_free

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ElementwiseOp, producer
from forgec.ir.ops.binary import AddOp, DivOp, MaximumOp, MulOp, SubOp
from forgec.ir.ops.contraction import LinearOp, MatmulOp
from forgec.ir.ops.reduction import SumOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.shape import ConcatOp, CopyOp, ReshapeOp, TransposeOp, ViewOp
from forgec.ir.ops.spatial import PadOp
from forgec.ir.ops.unary import CastOp, ClampOp, TanhOp
from forgec.runtime.plan import Reg

DEPTH = 24
"""Ops between a softmax and its product, at most: scores that take longer are none."""


def name_of(op: Operation) -> str:
    """The name of an op, or of the operator that it calls."""
    return op.callee.data if isinstance(op, AtenOp) else op.name


def swaps_last(op: TransposeOp) -> bool:
    """True if a transpose swaps the last two dimensions and no others."""
    order = list(op.permutation.data)
    return len(order) > 1 and order == [*range(len(order) - 2), len(order) - 1, len(order) - 2]


@dataclass(frozen=True)
class Product:
    """``lhs · rhs`` of rank 3 at least, alone or as a part of what ``op`` computes."""

    op: Operation
    lhs: SSAValue
    rhs: SSAValue

    @property
    def result(self) -> SSAValue:
        """The value that holds the product."""
        return self.op.results[0]


def product_in(op: Operation | None) -> Product | None:
    """The product that an op computes."""
    if isinstance(op, MatmulOp) and types.rank(op.lhs) > 2 and types.rank(op.rhs) > 2:
        return Product(op, op.lhs, op.rhs)
    if isinstance(op, AtenOp) and op.callee.data == "aten::baddbmm" and types.dtype(op.results[0]) in types.FLOATS:
        places = op.args.arguments[0]
        operands = [op.inputs[place.id] for place in places if isinstance(place, Reg)]
        return Product(op, operands[1], operands[2]) if len(operands) == 3 else None
    return None


_PASSED = (ElementwiseOp, ViewOp, ConcatOp, PadOp, CopyOp, WhereOp, MaskedFillOp)
"""Ops between two products that do not make what they yield anything else than scores or weights."""


def _passes(op: Operation) -> bool:
    """True for ops of which scores or weights may be an operand and the result still be scores or weights: also those
    that mix heads, and operators that keep the shape.
    """
    if isinstance(op, MatmulOp):
        return True  # one of rank 2: the others are products
    if isinstance(op, LinearOp):
        return types.rank(op.input) > 3 and types.shape(op.input) == types.shape(op.result)
    if isinstance(op, AtenOp):
        shapes = [types.shape(value) for value in op.results]
        return len(shapes) == 1 and any(types.shape(value) == shapes[0] for value in op.inputs)
    return isinstance(op, _PASSED)


def comes_from_product(op: Operation) -> bool:
    """True if an op computes something of a product by ops that scores may go through."""
    pending, seen = [op], set()
    while pending and len(seen) < DEPTH:
        op = pending.pop()
        if op in seen or not _passes(op):
            continue
        seen.add(op)
        sources = [source for source in map(producer, op.operands) if source is not None]
        if any(product_in(source) is not None for source in sources):
            return True
        pending += sources
    return False


def is_of_product(value: SSAValue) -> bool:
    """True if a value is a product, or computed of one by ops that scores may go through."""
    op = producer(value)
    return op is not None and (product_in(op) is not None or comes_from_product(op))


def reaches_product(op: Operation) -> bool:
    """True if what an op computes becomes an operand of a product by ops that weights may go through."""
    pending, seen = [op], set()
    while pending and len(seen) < DEPTH:
        op = pending.pop()
        if product_in(op) is not None or (isinstance(op, AtenOp) and op.callee.data == "aten::einsum"):
            return True
        if op in seen or not (isinstance(op, SumOp) or _passes(op)):
            continue
        seen.add(op)
        pending += [use.operation for result in op.results for use in result.uses]
    return False


def leads_to_product(value: SSAValue) -> bool:
    """True if a value is a product with little done to it since."""
    pending, seen = [value], set()
    while pending and len(seen) < 2 * DEPTH:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        op = producer(value)
        if product_in(op) is not None:
            return True
        if is_add(op):
            pending += [op.operands[1], op.operands[0]] if len(op.operands) > 1 else [op.operands[0]]
        elif isinstance(op, WhereOp):
            pending += [op.otherwise, op.then]
        elif isinstance(op, TransposeOp) and swaps_last(op):
            pending.append(op.input)
        elif isinstance(op, _SCORES):
            other = op.rhs if isinstance(op, MulOp) else None
            whole = other is None or types.numel(op.operands[0]) == types.numel(value)
            pending.append(op.operands[0] if whole or other is None else other)
            if isinstance(op, ConcatOp):
                pending.insert(0, op.operands[-1])
    return False


_SCORES = (CastOp, CopyOp, ReshapeOp, MulOp, DivOp, SubOp, MaskedFillOp, MaximumOp, ClampOp, TanhOp, ConcatOp,
           PadOp)  # fmt: skip


def is_add(op: Operation | None) -> TypeGuard[Operation]:
    if isinstance(op, AtenOp) and op.callee.data == "aten::add.Tensor" and len(op.inputs) == 2:
        return all(name != "alpha" or value == 1 for name, value in op.args.arguments[1])
    return isinstance(op, AddOp)


def is_dead(op: Operation) -> bool:
    """True for an op without effect that nothing needs: what other fusions left for dce."""
    if not op.results or not is_side_effect_free(op):
        return False
    return all(is_dead(use.operation) for result in op.results for use in result.uses)
