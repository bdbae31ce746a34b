"""Reading on from a softmax to the product with the value: what was done to the weights on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.binary import DivOp, MulOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.reduction import SoftmaxOp
from forgec.ir.ops.select import MaskedFillOp, WhereOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.attention_frames import Frame
from forgec.passes.attention_products import name_of, reaches_product, swaps_last
from forgec.passes.attention_scores import Refused
from forgec.passes.mask_gates import Gates
from forgec.passes.patterns import number, with_number
from forgec.runtime.symbolic import Extent


@dataclass(frozen=True)
class Gate:
    """A condition by which weights of ``shape`` were kept, or (not ``keeps``) made 0. It is a boolean, or a factor."""

    value: SSAValue
    shape: Frame
    keeps: bool


@dataclass(frozen=True)
class Factor:
    """What weights whose leading extents are ``lead`` were multiplied by (``by`` a ``forge.div``: divided)."""

    value: SSAValue | float
    lead: Frame
    by: type[MulOp | DivOp]


@dataclass
class Use:
    """What weights are for: the product with the value.

    ``leads`` are the leading extents that the weights have on the way there, ``columns`` how many of them take part,
    from ``start`` on. ``turned``: their rows are keys, and the result is transposed. ``joined``: the rows of all heads
    are one's in the product. ``gates`` are the conditions by which weights were made 0 after the softmax; ``rows`` the
    factors of whole rows, ``places`` those of columns.
    """

    product: MatmulOp
    value: SSAValue
    leads: list[Frame]
    columns: Extent
    start: Extent = 0
    turned: bool = False
    joined: bool = False
    gates: list[Gate] = field(default_factory=list)
    rows: list[Factor] = field(default_factory=list)
    places: list[Factor] = field(default_factory=list)


def read_use(softmax: SoftmaxOp) -> Use | None:
    """The product with the value that is the only use of the weights; None if they have none.

    Raises Refused if there is such a product, with something on the way that attention does not have.
    """
    reader = _Reader(softmax)
    while True:
        value = reader.value
        users = [use.operation for use in value.uses]
        if len(users) != 1:
            products = [user for user in users if isinstance(user, MatmulOp) and value in user.operands]
            if products or any(map(reaches_product, users)):
                raise Refused("its weights have other uses", (products or users)[0])
            return None
        (user,) = users
        if not reader.joined:
            reader.leads.append(types.shape(value)[:-2])
        if isinstance(user, MatmulOp) and value is (user.rhs if reader.turned else user.lhs):
            return reader.use(user)
        following = reader.step(user)
        if following is None:
            if isinstance(user, MatmulOp) or not reaches_product(user):
                return None
            raise Refused(f"its weights go through {name_of(user)}, which attention has no place for", user)
        reader.value = following


class _Reader:
    """Takes one op after the other, from the softmax on."""

    def __init__(self, softmax: SoftmaxOp) -> None:
        self.value: SSAValue = softmax.result
        self.turned = softmax.dim.data != types.rank(softmax.input) - 1
        self.joined = False
        self.start: Extent = 0
        self.leads: list[Frame] = []
        self.gates: list[Gate] = []
        self.rows: list[Factor] = []
        self.places: list[Factor] = []

    def use(self, product: MatmulOp) -> Use | None:
        """What was read, up to the product."""
        shape = types.shape(self.value)
        other = product.lhs if self.turned else product.rhs
        if types.rank(other) < 3:
            return None
        columns = shape[-2 if self.turned else -1]
        for factor in self.places:
            if isinstance(factor.value, SSAValue) and types.shape(factor.value)[-1] != columns:
                raise Refused("its weights are multiplied by a tensor before some of their columns are dropped")
        return Use(product, other, self.leads, columns, self.start, self.turned, self.joined, self.gates, self.rows,
                   self.places)  # fmt: skip

    def step(self, op: Operation) -> SSAValue | None:
        """What an op makes of the weights, where that is weights; else None."""
        shape = types.shape(self.value)
        upright = not self.turned and not self.joined
        match op:
            case CastOp() if types.dtype(op.result) in types.FLOATS:
                return op.result
            case CopyOp():
                return op.result
            case TransposeOp() if swaps_last(op) and not self.joined:
                self.turned = not self.turned
                return op.result
            case ReshapeOp() if types.shape(op.result)[-2:] == shape[-2:] and not self.joined:
                return op.result
            case ReshapeOp() if upright and len(shape) > 3 and _rows_joined(shape) == types.shape(op.result):
                self.joined = True
                return op.result
            case SliceOp() if (
                upright and op.dim.data == len(shape) - 1 and op.step.data == 1 and op.start.data in (0, 1)
            ):
                self.start = self.start + op.start.data
                return op.result
            case MaskedFillOp() if op.value.value == 0 and op.input is self.value:
                return self._gated(op, op.mask, keeps=False)
            case WhereOp() if op.then is self.value and number(op.otherwise) == 0:
                return self._gated(op, op.condition, keeps=True)
            case WhereOp() if op.otherwise is self.value and number(op.then) == 0:
                return self._gated(op, op.condition, keeps=False)
            case MulOp() | DivOp():
                return self._multiplied(op)
        return None

    def _gated(self, op: Operation, condition: SSAValue, *, keeps: bool) -> SSAValue | None:
        shape = types.shape(self.value)
        if types.shape(op.results[0]) != shape or self.turned or self.joined:
            return None
        self.gates.append(Gate(condition, shape, keeps))
        return op.results[0]

    def _multiplied(self, op: MulOp | DivOp) -> SSAValue | None:
        shape = types.shape(self.value)
        if types.shape(op.result) != shape or types.dtype(op.result) not in types.FLOATS:
            return None
        found = with_number(op)
        if found is not None and found[0] is self.value:
            self.rows.append(Factor(float(found[1]), shape[:-2], type(op)))
            return op.result
        if op.rhs is None or op.lhs is op.rhs or self.turned or self.joined:
            return None
        other = op.rhs if op.lhs is self.value else op.lhs
        if isinstance(op, DivOp) and op.lhs is not self.value:
            return None
        if types.rank(other) == 0 or types.shape(other)[-1] == 1:
            self.rows.append(Factor(other, shape[:-2], type(op)))
            return op.result
        if isinstance(op, MulOp) and Gates(shape).is_gate(other):
            self.gates.append(Gate(other, shape, True))
            return op.result
        if types.rank(other) == 1 or types.shape(other)[-2] == 1:
            self.places.append(Factor(other, shape[:-2], type(op)))
            return op.result
        raise Refused("its weights are multiplied by a tensor", op)


def _rows_joined(shape: Frame) -> Frame:
    """``[*B, H · S, T]`` for ``[*B, H, S, T]``."""
    return (*shape[:-3], shape[-3] * shape[-2], shape[-1])
