"""Which features of which value another value holds, and with which sign: rearrangements of the last dimension, read.

Slices, reshapes, transposes, broadcasts, concatenations, negations and widening casts that leave the leading dimensions
alone only choose features. Followed through all of them, a value is ``base[…, places]``, some features negated. Passes
compare such values by their numbers, in whatever way the model spelled them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.literals import to_tensor
from forgec.ir.ops.base import producer
from forgec.ir.ops.binary import MulOp
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, ReshapeOp, SliceOp, TransposeOp
from forgec.ir.ops.unary import CastOp, NegOp
from forgec.passes.patterns import made_by, pairs, through, with_number
from forgec.runtime.symbolic import Extent

MOST = 2048
"""Rows of more features than this are no heads; they are not looked through."""


@dataclass(frozen=True)
class Features:
    """Element i of each row of a value: element ``places[i]`` of the same row of ``base``, negated where
    ``negative[i]``.
    """

    base: SSAValue
    places: tuple[int, ...]
    negative: tuple[bool, ...]

    @property
    def is_plain(self) -> bool:
        """True if no element is negated."""
        return not any(self.negative)

    @property
    def is_run(self) -> bool:
        """True if the elements are neighbours in ``base``, in order."""
        return self.places == tuple(range(self.places[0], self.places[0] + len(self.places)))

    def negated(self) -> Features:
        """The same elements with the other signs."""
        return Features(self.base, self.places, tuple(not sign for sign in self.negative))


@dataclass
class Tracer:
    """Reads values as features. Remembers what it read: a pass uses one, and reads each value once."""

    known: dict[tuple[SSAValue, int], Features | None] = field(default_factory=dict)
    moved: dict[SSAValue, SSAValue] = field(default_factory=dict)

    def trace(self, value: SSAValue, lead: int | None = None) -> Features | None:
        """The features that a value holds. Its dimensions from ``lead`` on (by default the last one) make up a row;
        None where their extents are not constant.
        """
        start = types.rank(value) - 1 if lead is None else lead
        if start < 0 or start > types.rank(value):
            return None
        key = (value, start)
        if key not in self.known:
            row = types.shape(value)[start:]
            self.known[key] = self._read(value, start, row) if _is_constant(row) else None
        found = self.known[key]
        if found is not None and found.base in self.moved:
            found = self.known[key] = Features(self.moved[found.base], found.places, found.negative)
        return found

    def replaced(self, old: SSAValue, new: SSAValue) -> None:
        """A pass put ``new`` in the place of ``old``."""
        self.moved[old] = new

    def _read(self, value: SSAValue, lead: int, row: Sequence[Extent]) -> Features:
        op = producer(value)
        found = None if op is None else self._through(op, lead)
        if found is not None:
            return found
        count = prod(_integers(row))
        return Features(value, tuple(range(count)), (False,) * count)

    def _through(self, op: Operation, lead: int) -> Features | None:
        """The features of an op's result in terms of its operand's, or None where the op is more than a choice."""
        if isinstance(op, ConcatOp):
            return self._joined(op, lead)
        if isinstance(op, NegOp) or (isinstance(op, MulOp) and _is_negation(op)):
            source = self.trace(op.operands[0], lead) if _keeps(op) else None
            return None if source is None else source.negated()
        if isinstance(op, MulOp) and lead == types.rank(op.result) - 1:
            return self._signed(op, lead)
        if isinstance(op, CopyOp) or (isinstance(op, CastOp) and _widens(op)):
            return self.trace(op.input, lead)
        places = _places(op, lead)
        source = None if places is None else self.trace(op.operands[0], lead)
        if source is None or places is None:
            return None
        return Features(source.base, tuple(source.places[p] for p in places), tuple(source.negative[p] for p in places))

    def _signed(self, op: MulOp, lead: int) -> Features | None:
        """The features of a product with a constant row of 1 and -1."""
        for value, other in pairs(op):
            signs = _signs_of(other) if _alike(value, op.result) else None
            source = None if signs is None else self.trace(value, lead)
            if signs is None or source is None or len(signs) != len(source.places):
                continue
            negative = zip(source.negative, signs, strict=True)
            return Features(source.base, source.places, tuple(old != (sign < 0) for old, sign in negative))
        return None

    def _joined(self, op: ConcatOp, lead: int) -> Features | None:
        """A concatenation of features of one base."""
        dim = op.dim.data
        if dim < lead or any(types.dtype(v) != types.dtype(op.result) for v in op.inputs):
            return None
        parts = [self.trace(v, lead) for v in op.inputs]
        first = parts[0]
        if first is None or any(part is None or part.base is not first.base for part in parts):
            return None
        places: list[int] = []
        negative: list[bool] = []
        widths = [prod(_integers(types.shape(v)[dim:])) for v in op.inputs]
        for outer in range(prod(_integers(types.shape(op.result)[lead:dim]))):
            for part, width in zip(parts, widths, strict=True):
                assert part is not None, "checked above"
                places += part.places[outer * width : (outer + 1) * width]
                negative += part.negative[outer * width : (outer + 1) * width]
        return Features(first.base, tuple(places), tuple(negative))


def _is_constant(row: Sequence[Extent]) -> bool:
    return len(_integers(row)) == len(row) and 0 < prod(_integers(row)) <= MOST


def _integers(extents: Sequence[Extent]) -> list[int]:
    return [extent for extent in extents if isinstance(extent, int)]


def _is_negation(op: MulOp) -> bool:
    found = with_number(op)
    return found is not None and found[0] is op.operands[0] and found[1] == -1


def _keeps(op: Operation) -> bool:
    """True if an op's result has its operand's dtype and shape."""
    source, target = op.operands[0], op.results[0]
    return types.dtype(source) == types.dtype(target) and types.shape(source) == types.shape(target)


def _alike(one: SSAValue, other: SSAValue) -> bool:
    return types.dtype(one) == types.dtype(other) and types.shape(one) == types.shape(other)


def _signs_of(value: SSAValue) -> list[float] | None:
    """The numbers of a constant row, if all are 1 or -1."""
    source = through(value, ReshapeOp, BroadcastOp, CopyOp)
    constant = made_by(source, ConstantOp)
    count = types.shape(value)[-1:]
    if constant is None or not count or (types.numel(value),) != count or (types.numel(source),) != count:
        return None
    if types.dtype(source) not in types.FLOATS or not isinstance(count[0], int) or count[0] > MOST:
        return None
    signs = to_tensor(constant.value).reshape(-1).tolist()
    return signs if set(signs) <= {1.0, -1.0} else None


def _widens(op: CastOp) -> bool:
    """True for a cast between floats that keeps every number."""
    source, target = types.dtype(op.input), types.dtype(op.result)
    if source not in types.FLOATS or target not in types.FLOATS or source.startswith("f8") or target.startswith("f8"):
        return source == target
    return types.promote(source, target) == target


def _places(op: Operation, lead: int) -> Sequence[int] | None:
    """For a rearrangement within rows: the place in the operand's row of each element of the result's row."""
    if not isinstance(op, (SliceOp, ReshapeOp, TransposeOp, BroadcastOp)):
        return None
    source, target = types.shape(op.input), types.shape(op.result)
    if len(source) < lead or not _is_constant(source[lead:]) or not _is_constant(target[lead:]):
        return None
    if source[:lead] != target[:lead]:
        return None
    old, new = _integers(source[lead:]), _integers(target[lead:])
    steps = _integers(types.contiguous_strides(old))
    if isinstance(op, ReshapeOp):
        return range(prod(new))
    if isinstance(op, SliceOp):
        dim, start, step = op.dim.data - lead, op.start.data, op.step.data
        if dim < 0 or not isinstance(start, int) or not isinstance(step, int):
            return None
        offset = start * steps[dim]
        steps[dim] *= step
        return _addresses(new, steps, offset)
    if isinstance(op, TransposeOp):
        order = op.permutation.data
        if list(order[:lead]) != list(range(lead)):
            return None
        return _addresses(new, [steps[d - lead] for d in order[lead:]])
    if len(old) != len(new):
        return None
    return _addresses(new, [0 if extent == 1 else step for extent, step in zip(old, steps, strict=True)])


def _addresses(extents: Sequence[int], steps: Sequence[int], offset: int = 0) -> list[int]:
    """Where the elements of a strided row lie, in row-major order."""
    axes = [[i * step for i in range(extent)] for extent, step in zip(extents, steps, strict=True)]
    return [offset + sum(place) for place in product(*axes)]
