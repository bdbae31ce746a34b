"""What one element of a mask is, as an expression over the row, the column and the batch that it belongs to.

Masks are computed from positions (``forge.iota``), comparisons, conditions and tensors of the user's. Evaluating such a
graph for a symbolic element needs no extents: an index is a sum of axes and a constant, whatever the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops import binary as b
from forgec.ir.ops import unary as u
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import producer
from forgec.ir.ops.creation import IotaOp
from forgec.ir.ops.index import IndexOp, IndexSelectOp
from forgec.ir.ops.module import ParamRefOp
from forgec.ir.ops.reduction import CumsumOp
from forgec.ir.ops.select import MaskedFillOp, TrilOp, TriuOp, WhereOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.passes.mask_places import ZERO, Index, Linear, source_index
from forgec.passes.number_ranges import holds, position_bounds, rounded
from forgec.passes.patterns import number
from forgec.runtime.plan import Reg
from forgec.runtime.symbolic import Extent

DEPTH = 64
"""Ops between a mask and what it comes from, at most: beyond, elements are taken as they are."""
SMALL = 256
"""Integers that every floating-point type of more than 8 bits holds exactly, at most."""


Place: TypeAlias = "tuple[SSAValue, Index]"
"""An element of a tensor."""


@dataclass(frozen=True)
class Number:
    """A floating-point number or a boolean."""

    value: float | bool


@dataclass(frozen=True)
class Leaf:
    """An element of a tensor about which nothing more is known."""

    value: SSAValue
    index: Index


@dataclass(frozen=True)
class Function:
    """``abs`` of an integer, or its quotient ``floordiv`` by a number."""

    name: str
    argument: Linear
    by: int = 1


@dataclass(frozen=True)
class Node:
    """``and``, ``or``, ``not``; a comparison of integers; ``where``; ``add`` of numbers. ``place`` has its value."""

    name: str
    arguments: tuple[Element, ...]
    place: Place = field(compare=False)


Element: TypeAlias = "Linear | Number | Leaf | Function | Node"

COMPARISONS = {b.EqOp: "eq", b.NeOp: "ne", b.LtOp: "lt", b.LeOp: "le", b.GtOp: "gt", b.GeOp: "ge"}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda x, y: x == y, "ne": lambda x, y: x != y, "lt": lambda x, y: x < y, "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y, "ge": lambda x, y: x >= y,
}  # fmt: skip
_ARITHMETIC: dict[type[Operation], Callable[[float, float], float]] = {
    b.AddOp: lambda x, y: x + y, b.SubOp: lambda x, y: x - y, b.RsubOp: lambda x, y: y - x,
    b.MulOp: lambda x, y: x * y, b.MaximumOp: max, b.MinimumOp: min,
    b.DivOp: lambda x, y: x / y if y else float("nan"),
}  # fmt: skip
_BOOLEAN = {b.BitwiseAndOp: "and", b.LogicalAndOp: "and", b.BitwiseOrOp: "or", b.LogicalOrOp: "or"}


class Elements:
    """Evaluates elements of tensors over axes of these extents; each element of each tensor once.

    Integers count without a bound here, so what leaves the range of its dtype, where it would wrap, is taken as it is.
    """

    def __init__(self, shape: Sequence[Extent]) -> None:
        self.extents = dict(enumerate(shape))
        self._known: dict[Place, Element] = {}
        self._depth = 0

    def __call__(self, value: SSAValue, index: Index) -> Element:
        """The element of a value at an index."""
        shape = types.shape(value)
        index = tuple(ZERO if extent == 1 else at for extent, at in zip(shape, index, strict=True))
        place = (value, index)
        found = self._known.get(place)
        if found is None:
            self._depth += 1
            found = self._evaluate(value, index) if self._depth < DEPTH else Leaf(value, index)
            found = found if self._fits(found, types.dtype(value)) else Leaf(value, index)
            self._depth -= 1
            self._known[place] = found
        return found

    def _fits(self, element: Element, dtype: str) -> bool:
        """True if every integer that an element may be is one of a dtype."""
        if isinstance(element, Node) and element.name == "where":
            return all(self._fits(branch, dtype) for branch in element.arguments[1:])
        if isinstance(element, Function):
            inner = element.argument
            return self._fits(inner, dtype) and (element.name != "abs" or self._fits(inner.times(-1), dtype))
        if not isinstance(element, Linear):
            return True
        low, high = position_bounds(element.constant)
        for axis, factor in element.axes:
            farthest = factor * max(position_bounds(self.extents[axis])[1] - 1, 0)
            low, high = low + min(farthest, 0), high + max(farthest, 0)
        return holds(dtype, low, high)

    def _evaluate(self, value: SSAValue, index: Index) -> Element:
        op = producer(value)
        constant = number(value)
        if constant is not None:
            whole = isinstance(constant, int) and types.dtype(value) not in ("i1", *types.FLOATS)
            return Linear((), int(constant)) if whole else _rounded(constant, types.dtype(value))
        found = None
        if isinstance(op, (BroadcastOp, CopyOp, ReshapeOp, TransposeOp, SliceOp)):
            source = source_index(op, index, self.extents)
            found = None if source is None else self(op.input, source)
        elif isinstance(op, (IndexOp, IndexSelectOp)):
            found = self._indexed(op, index)
        elif isinstance(op, ParamRefOp) and op.holds is not None:
            found = self._triangular(op, index)
        elif isinstance(op, IotaOp):
            found = _iota(op, index[0])
        elif isinstance(op, AtenOp) and op.callee.data == "aten::diff":
            found = self._difference(op, index)
        elif isinstance(op, CumsumOp):
            found = self._sum_of_zeros(op, index)
        elif isinstance(op, (TrilOp, TriuOp)):
            found = self._triangle(op, index)
        elif isinstance(op, (b.BinaryOp, u.UnaryOp, WhereOp, MaskedFillOp)) and types.rank(value) == len(index):
            found = self._pointwise(op, (value, index))
        return Leaf(value, index) if found is None else found

    def _sum_of_zeros(self, op: CumsumOp, index: Index) -> Element | None:
        """0, where all elements along the dimension are: one at an index of which nothing else is known."""
        dim, anywhere = op.dim.data, -1 - len(self.extents)
        self.extents[anywhere] = types.shape(op.input)[dim]
        element = self(op.input, (*index[:dim], Linear(((anywhere, 1),)), *index[dim + 1 :]))
        if element not in (ZERO, Number(False)):
            return None
        return Number(0.0) if types.dtype(op.result) in types.FLOATS else ZERO

    def _operand(self, operand: SSAValue, index: Index) -> Element:
        """The element of an operand that broadcasts."""
        rank = types.rank(operand)
        return self(operand, index[len(index) - rank :] if rank else ())

    def _pointwise(self, op: Operation, place: Place) -> Element | None:
        value, index = place
        arguments = [self._operand(operand, index) for operand in op.operands]
        if isinstance(op, b.BinaryOp) and op.scalar is not None:
            scalar = op.scalar.value
            if isinstance(scalar, complex):
                return None
            dtype = types.dtype(op.lhs)
            if type(op) in COMPARISONS and dtype in types.FLOATS:
                scalar = rounded(float(scalar), dtype)
            arguments.append(
                Linear((), scalar) if type(scalar) is int and dtype not in types.FLOATS else Number(scalar)
            )
            if not self._fits(arguments[-1], dtype):
                return None
        if isinstance(op, WhereOp):
            return where(arguments[0], arguments[1], arguments[2], place)
        if isinstance(op, MaskedFillOp):
            filled = _rounded(op.value.value, types.dtype(value))
            return where(arguments[1], filled, arguments[0], place)
        if type(op) in COMPARISONS:
            return _lifted(place, arguments, lambda x, y: compare(COMPARISONS[type(op)], x, y, place))
        if types.dtype(value) == "i1":
            return self._boolean(op, arguments, place)
        if isinstance(op, b.AddOp) and sum(not isinstance(x, Number) for x in arguments) > 1:
            return _arithmetic(op, arguments, place)  # a sum stays one: its terms are looked at one by one
        return _lifted(place, arguments, lambda *xs: _arithmetic(op, xs, place))

    def _boolean(self, op: Operation, arguments: Sequence[Element], place: Place) -> Element | None:
        if isinstance(op, (b.MulOp, b.AddOp)):
            name = "and" if isinstance(op, b.MulOp) else "or"
        else:
            name = _BOOLEAN.get(type(op), "")
        truths = [as_condition(argument) for argument in arguments]
        if any(truth is None for truth in truths):
            return None
        known = [truth for truth in truths if truth is not None]
        if name:
            return connect(name, known, place)
        if isinstance(op, (u.LogicalNotOp, u.BitwiseNotOp)):
            return Number(not known[0].value) if isinstance(known[0], Number) else Node("not", (known[0],), place)
        return known[0] if isinstance(op, u.CastOp) else None

    def _indexed(self, op: IndexOp | IndexSelectOp, index: Index) -> Element | None:
        if isinstance(op, IndexSelectOp):
            dims, tensors = (op.dim.data,), (op.index,)
        else:
            dims, tensors = op.dims.data, tuple(op.indices)
        places = len(types.broadcast(*(types.shape(tensor) for tensor in tensors)))
        front = dims[0] if dims[-1] - dims[0] == len(dims) - 1 else 0
        chosen = [self._operand(tensor, index[front : front + places]) for tensor in tensors]
        if not all(isinstance(at, Linear) and at.is_nonnegative for at in chosen):
            return None  # a negative index counts from the end
        rest, found = iter((*index[:front], *index[front + places :])), []
        for dim in range(types.rank(op.input)):
            found.append(chosen[dims.index(dim)] if dim in dims else next(rest))
        return self(op.input, tuple(found))

    def _difference(self, op: AtenOp, index: Index) -> Element | None:
        """The step from the element before, where ``prepend`` holds what would stand before the first one."""
        value, order, dim, before, after = op.args.arguments[0]
        if not isinstance(value, Reg) or not isinstance(before, Reg) or after is not None or order != 1:
            return None
        if not isinstance(dim, int):
            return None
        source, first = op.inputs[value.id], op.inputs[before.id]
        dim %= types.rank(source)
        if types.shape(first)[dim] != 1:
            return None

        def at(place: Linear) -> Index:
            return (*index[:dim], place, *index[dim + 1 :])

        this, last = self(source, index), self(source, at(index[dim].plus(Linear((), -1))))
        if not isinstance(this, Linear) or not isinstance(last, Linear):
            return None
        return this.plus(last, -1) if self(source, at(Linear((), -1))) == self(first, at(ZERO)) else None

    def _triangular(self, op: ParamRefOp, index: Index) -> Element | None:
        """A buffer that is known to hold one number in its lower triangle and another above."""
        assert op.holds is not None, "checked by the caller"
        place, name = (op.result, index), op.holds.data
        side = compare("le" if name == "tril" else "gt", index[-1], index[-2], place)
        if side is None or types.dtype(op.result) == "i1":
            return side
        whole = types.dtype(op.result) not in types.FLOATS
        one, zero = (Linear((), 1), ZERO) if whole else (Number(1.0), Number(0.0))
        return where(side, Number(-float("inf")) if name == "-inf triu" else one, zero, place)

    def _triangle(self, op: TrilOp | TriuOp, index: Index) -> Element | None:
        row, column = index[-2], index[-1]
        if 1 in types.shape(op.result)[-2:]:
            return None
        side = compare(
            "le" if isinstance(op, TrilOp) else "ge", column.plus(row, -1), Linear((), op.diagonal.data), None
        )
        inner, place = self(op.input, index), (op.result, index)
        if side is None:
            return None
        if types.dtype(op.result) == "i1":
            return where(side, inner, Number(False), place)
        return where(side, inner, Number(0.0), place) if isinstance(inner, (Number, Node)) else None


def where(condition: Element, then: Element, otherwise: Element, place: Place) -> Element | None:
    """A choice; of booleans, in terms of and, or and not."""
    truth = as_condition(condition)
    if isinstance(truth, Number):
        return then if truth.value else otherwise
    if truth is None:
        return None
    if then == otherwise:
        return then
    if then == Number(True) and otherwise == Number(False) and type(then.value) is bool:  # type: ignore[union-attr]
        return truth
    if then == Number(False) and otherwise == Number(True) and type(then.value) is bool:  # type: ignore[union-attr]
        return Node("not", (truth,), place)
    if types.dtype(place[0]) == "i1":
        return _choice(truth, then, otherwise, place)
    return Node("where", (truth, then, otherwise), place)


def _choice(condition: Element, then: Element, otherwise: Element, place: Place) -> Element | None:
    """A choice of booleans, one of which is known."""
    sides = as_condition(then), as_condition(otherwise)
    if sides[0] is None or sides[1] is None:
        return None
    for known, other, chosen in ((sides[1], sides[0], condition), (sides[0], sides[1], _not(condition))):
        if isinstance(known, Number):
            return (
                connect("or", [_not(chosen), other], place) if known.value else connect("and", [chosen, other], place)
            )
    return None


def _not(condition: Element) -> Element:
    return Node("not", (condition,), _NOWHERE)


def connect(name: str, arguments: Sequence[Element], place: Place) -> Element:
    """``and`` or ``or`` of truths."""
    neutral = name == "and"
    rest = [argument for argument in arguments if argument != Number(neutral)]
    if Number(not neutral) in rest:
        return Number(not neutral)
    if not rest:
        return Number(neutral)
    return rest[0] if len(rest) == 1 else Node(name, tuple(rest), place)


def compare(name: str, left: Element, right: Element, place: Place | None) -> Element | None:
    """A comparison of integers, or of numbers."""
    if name in ("eq", "ne") and is_condition(left):
        return _equals_truth(left, right, name == "ne", place)
    if isinstance(left, Number) or isinstance(right, Number):
        numbers = [_constant(left), _constant(right)]
        whole = any(isinstance(n, int) and abs(n) > SMALL for n in numbers)  # which floats may round
        known = not whole and all(isinstance(n, (int, float)) for n in numbers)
        return Number(_COMPARE[name](*numbers)) if known else None
    if not isinstance(left, (Linear, Function)) or not isinstance(right, (Linear, Function)):
        return None
    if isinstance(left, Linear) and isinstance(right, Linear):
        gap = left.plus(right, -1)
        if not gap.axes and isinstance(gap.constant, int):
            return Number(_COMPARE[name](gap.constant, 0))
    return Node(name, (left, right), place)  # pyright: ignore[reportArgumentType]


def _equals_truth(left: Element, right: Element, negated: bool, place: Place | None) -> Element | None:
    """Whether a condition is, or is not, true or false."""
    wanted = _constant(right)
    if wanted not in (0, 1) or place is None:
        return None
    return left if bool(wanted) != negated else Node("not", (left,), place)


def _lifted(place: Place, arguments: Sequence[Element], function: Callable[..., Element | None]) -> Element | None:
    """A function of a choice between numbers is a choice between two results."""
    for position, argument in enumerate(arguments):
        if isinstance(argument, Node) and argument.name == "where":
            condition, *branches = argument.arguments
            rests = [(*arguments[:position], branch, *arguments[position + 1 :]) for branch in branches]
            results = [_lifted(place, rest, function) for rest in rests]
            if results[0] is None or results[1] is None:
                return None
            return where(condition, results[0], results[1], place)
    return function(*arguments)


def _arithmetic(op: Operation, arguments: Sequence[Element], place: Place) -> Element | None:
    dtype = types.dtype(place[0])
    first, second = arguments[0], arguments[1] if len(arguments) > 1 else None
    if isinstance(op, u.CastOp):
        return _cast(first, dtype, place)
    if dtype not in types.FLOATS:
        return _integer(op, first, second)
    if isinstance(op, b.AddOp) and Number(0.0) in (first, second):
        other = second if first == Number(0.0) else first
        if not isinstance(other, (Leaf, Linear)) or (isinstance(other, Leaf) and types.dtype(other.value) == dtype):
            return other
    numbers = [_constant(argument) for argument in arguments]
    if all(isinstance(value, (int, float)) for value in numbers):
        if type(op) in _ARITHMETIC:
            return _rounded(_ARITHMETIC[type(op)](*map(float, numbers)), dtype)
        return _rounded(-float(numbers[0]), dtype) if isinstance(op, u.NegOp) else None
    return Node("add", (first, second), place) if isinstance(op, b.AddOp) and second is not None else None


def _integer(op: Operation, first: Element, second: Element | None) -> Element | None:
    if not isinstance(first, Linear):
        return None
    if isinstance(op, u.NegOp):
        return first.times(-1)
    if isinstance(op, u.AbsOp):
        return Function("abs", first)
    if not isinstance(second, Linear):
        return None
    match op:
        case b.AddOp():
            return first.plus(second)
        case b.SubOp():
            return first.plus(second, -1)
        case b.RsubOp():
            return second.plus(first, -1)
        case b.MulOp():
            for value, by in ((first, second), (second, first)):
                if isinstance(_constant(by), int):
                    return value.times(_constant(by))
        case b.FloorDivOp():
            by = _constant(second)
            return Function("floordiv", first, by) if isinstance(by, int) and by > 0 else None
    return None


def _constant(element: Element) -> Any:
    """The number that an element is, or None."""
    if isinstance(element, Number):
        return element.value
    return element.constant if isinstance(element, Linear) and not element.axes else None


def _cast(element: Element, dtype: str, place: Place) -> Element | None:
    whole = dtype not in types.FLOATS
    if isinstance(element, Number):
        if whole:
            return Linear((), int(element.value)) if element.value in (0, 1) else None
        return _rounded(element.value, dtype)
    if isinstance(element, Linear):
        return element if whole else None
    truth = as_condition(element) if is_condition(element) else None
    if truth is not None:
        one, zero = (Linear((), 1), ZERO) if whole else (Number(1.0), Number(0.0))
        return where(truth, one, zero, place)
    return None


def is_condition(element: Element) -> bool:
    """True for what is true or false, and for no number."""
    if isinstance(element, Node):
        return element.name in ("and", "or", "not", *_COMPARE)
    return isinstance(element, Leaf) and types.dtype(element.value) == "i1"


def as_condition(element: Element) -> Element | None:
    """An element as a condition: whether it is not 0."""
    if isinstance(element, Number):
        return Number(bool(element.value))
    if isinstance(element, Linear):
        value = _constant(element)
        return None if not isinstance(value, int) else Number(value != 0)
    if isinstance(element, Node) and element.name == "where":
        condition, then, otherwise = element.arguments
        sides = [_constant(side) for side in (then, otherwise)]
        if any(not isinstance(side, (int, float)) for side in sides):
            return None
        if bool(sides[0]) == bool(sides[1]):
            return Number(bool(sides[0]))
        return condition if sides[0] else _not(condition)
    if isinstance(element, Leaf):
        return element if types.dtype(element.value) == "i1" else None
    return element if isinstance(element, Node) and element.name != "add" else None


_NOWHERE: Any = None
"""The place of a condition that no value has."""


def _rounded(value: float | bool, dtype: str) -> Number:
    if dtype == "i1":
        return Number(bool(value))
    return Number(rounded(float(value), dtype) if dtype in types.FLOATS else float(value))


def _iota(op: IotaOp, at: Linear) -> Element | None:
    step = op.step.data
    if not isinstance(step, int):
        return None
    return at.times(step).plus(Linear((), op.start.data))
