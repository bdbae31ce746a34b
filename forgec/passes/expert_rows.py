"""Reading mixtures of experts: which row and which expert stand in each place of what their products take and make.

Each row goes through k experts, so there are S = N·k pairs of a row and an expert. They stand in the order of the rows,
or sorted by their experts (``forge.sort``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr
from xdsl.ir import Operation, SSAValue

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.binary import AddOp, EqOp, FloorDivOp
from forgec.ir.ops.contraction import GroupedMatmulOp, MatmulOp
from forgec.ir.ops.creation import IotaOp
from forgec.ir.ops.index import EmbeddingOp, GatherOp, IndexOp, IndexPutOp, IndexSelectOp, ScatterOp
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.order import SortOp
from forgec.ir.ops.reduction import CumsumOp, SumOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, TransposeOp
from forgec.ir.ops.unary import CastOp
from forgec.passes.patterns import made_by, pairs, through, with_number
from forgec.runtime.plan import Reg
from forgec.runtime.symbolic import Extent

WIDE_INTEGERS = ("i64", "i32")
EXACT = ("f32", "f64", *WIDE_INTEGERS)
"""Dtypes that hold the number of an expert."""


class NotFused(Exception):
    """Why something is no ``forge.moe``, in words for a remark."""


@dataclass
class Product:
    """A product of rows [S, in] with the weights of their experts."""

    rows: SSAValue
    weight: SSAValue
    """[E, in, out] if ``transposed``, else [E, out, in]."""
    transposed: bool
    experts: SSAValue
    """What flattens to the expert of each pair, in the order of rows."""
    is_sorted: bool
    bias: tuple[SSAValue, SSAValue] | None = None
    """[E, out], and the index [S] by which it was taken."""
    ops: list[Operation] = field(default_factory=list)


def plain(value: SSAValue) -> SSAValue:
    """What a value holds in the same row-major order: before reshapes and copies, and casts between wide integers."""
    while True:
        value = through(value, ReshapeOp, CopyOp)
        cast = made_by(value, CastOp)
        if cast is None or not {types.dtype(cast.input), types.dtype(value)} <= set(WIDE_INTEGERS):
            return value
        value = cast.input


def lean(shape: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """A shape without extents of 1."""
    return tuple(extent for extent in shape if extent != 1)


def squeezed(value: SSAValue) -> tuple[SSAValue, list[Operation]]:
    """What a value was before reshapes that add or remove extents of 1 alone, and these reshapes."""
    passed: list[Operation] = []
    while (op := made_by(value, ReshapeOp, CopyOp)) is not None:
        if lean(types.shape(op.input)) != lean(types.shape(value)):
            break
        passed.append(op)
        value = op.input
    return value, passed


def taken(value: SSAValue) -> tuple[SSAValue, SSAValue] | None:
    """``x`` and ``index`` of ``x[index]``, for an index of rank 1 into the first dimension."""
    op = made_by(value, IndexOp, IndexSelectOp, EmbeddingOp, GatherOp)
    if isinstance(op, IndexOp):
        source, index = op.input, op.indices[0]
        first = op.dims.data == (0,)
    elif isinstance(op, EmbeddingOp):
        source, index, first = op.operands[0], op.operands[1], True
    elif isinstance(op, (IndexSelectOp, GatherOp)):
        source, index, first = op.input, op.index, op.dim.data == 0
        first = first and (isinstance(op, IndexSelectOp) or types.rank(source) == 1)
    else:
        return None
    return (source, index) if first and types.rank(index) == 1 else None


def sorting(value: SSAValue) -> SortOp | None:
    """The ascending sort of numbers of rank 1 whose places a value is: a permutation."""
    op = made_by(plain(value), SortOp)
    if op is None or plain(value) is not op.indices or op.descending is not None or types.rank(op.input) != 1:
        return None
    return op


def counts_up(value: SSAValue) -> bool:
    """True for ``[0, 1, 2, …]``."""
    value = plain(value)
    op = made_by(value, IotaOp, ConstantOp)
    if types.rank(value) != 1:
        return False
    if isinstance(op, IotaOp):
        return op.start.data == 0 and op.step.data == 1
    if op is None or types.dtype(value) not in WIDE_INTEGERS or not isinstance(op.value, DenseIntOrFPElementsAttr):
        return False
    return list(op.value.get_values()) == list(range(len(op.value)))


def is_inverse(value: SSAValue, sort: SortOp) -> bool:
    """True for the permutation that brings sorted pairs back into the order of rows."""
    value = plain(value)
    again = sorting(value)
    if again is not None:  # sorting a permutation inverts it
        return sorting(again.input) is sort
    op = made_by(value, IndexPutOp, ScatterOp)
    if isinstance(op, IndexPutOp):
        alone = op.accumulate is None and op.dims.data == (0,) and types.rank(op.values) == 1
        return alone and counts_up(op.values) and sorting(op.indices[0]) is sort
    return op is not None and counts_up(op.source) and sorting(op.index) is sort


def divided(value: SSAValue) -> tuple[SSAValue, int] | None:
    """``x`` and ``n`` of ``x // n``."""
    op = made_by(plain(value), FloorDivOp)
    found = None if op is None else with_number(op)
    return (found[0], found[1]) if found is not None and isinstance(found[1], int) and found[1] > 0 else None


def pair_experts(index: SSAValue) -> tuple[SSAValue, bool]:
    """What flattens to the experts of pairs in the order of rows, and whether ``index`` has them sorted instead."""
    value = plain(index)
    op = made_by(value, SortOp)
    if op is not None and value is op.values and op.descending is None and types.rank(op.input) == 1:
        return plain(op.input), True
    found = taken(value)
    sort = None if found is None else sorting(found[1])
    if found is not None and sort is not None and plain(found[0]) is plain(sort.input):
        return plain(found[0]), True
    return value, False


def product_of(value: SSAValue) -> Product | None:
    """The product of rows with their experts' weights that a value is, with its bias. Raises NotFused for groups of
    rows that are not those of experts."""
    value, passed = squeezed(value)
    op = made_by(value, AddOp, GroupedMatmulOp, MatmulOp)
    if isinstance(op, AddOp):
        for inner, other in pairs(op):
            found = None if made_by(squeezed(inner)[0], AddOp) else product_of(inner)
            if found is not None:
                bias = taken(squeezed(other)[0])
                if bias is None or types.rank(bias[0]) != 2 or pair_experts(bias[1]) != _frame(found):
                    raise NotFused("what is added to a product is not the bias of its experts")
                found.bias = bias
                found.ops += [op, *passed]
                return found
        return None
    found = _grouped(op) if isinstance(op, GroupedMatmulOp) else _stacked(op) if op is not None else None
    if found is not None:
        found.ops += passed
    return found


def _frame(product: Product) -> tuple[SSAValue, bool]:
    return product.experts, product.is_sorted


def _grouped(op: GroupedMatmulOp) -> Product:
    experts = _counted(op.ends, types.shape(op.weight)[0])
    if experts is None:
        raise NotFused("the ends of the groups are not the running sum of how often each expert was chosen")
    weight, turned = _untransposed(op.weight)
    return Product(op.input, weight, not turned, experts, True, ops=[op])


def _stacked(op: MatmulOp) -> Product | None:
    """A stack of products of one row each with a weight that was taken for it."""
    for operand, other, on_right in ((op.lhs, op.rhs, False), (op.rhs, op.lhs, True)):
        value, turned = _untransposed(operand)
        found = taken(value)
        if found is None or types.rank(found[0]) != 3 or types.rank(other) != 3:
            continue
        if types.shape(other)[1 if on_right else 2] != 1:
            return None
        experts, is_sorted = pair_experts(found[1])
        return Product(other, found[0], on_right != turned, experts, is_sorted, ops=[op])
    return None


def _untransposed(weight: SSAValue) -> tuple[SSAValue, bool]:
    op = made_by(weight, TransposeOp)
    return (op.input, True) if op is not None and tuple(op.permutation.data) == (0, 2, 1) else (weight, False)


def _counted(ends: SSAValue, count: Extent) -> SSAValue | None:
    """What flattens to the experts of all pairs, if ``ends`` says where each of ``count`` experts' sorted pairs end."""
    searched = _called(ends, "aten::searchsorted.Tensor")
    if searched is not None:
        positional, named = searched
        if len(positional) == 2 and named.get("right") is True and not named.keys() - {"right", "out_int32"}:
            experts, is_sorted = pair_experts(positional[0])
            if is_sorted and counts_up(positional[1]):
                return experts
        return None
    op = made_by(_exact(ends), CumsumOp)
    if op is None or op.dim.data != 0 or types.rank(ends) != 1:
        return None
    counts = _exact(op.input)
    counted = _called(counts, "aten::histc")
    if counted is not None:
        (values, *rest), named = counted
        rest = [*rest, *(named[name] for name in ("bins", "min", "max")[len(rest) :] if name in named)]
        bounds = isinstance(count, int) and rest == [count, 0, count - 1] and count > 1
        return pair_experts(_exact(values))[0] if bounds else None
    return _compared(counts)


def _compared(counts: SSAValue) -> SSAValue | None:
    """``experts`` of ``(experts[:, None] == [0, 1, …]).sum(0)``."""
    op = made_by(counts, SumOp)
    same = None if op is None else made_by(_exact(op.input, "i1"), EqOp)
    if op is None or same is None or op.keepdim is not None or types.rank(same.result) != 2:
        return None
    for values, numbers in pairs(same):
        whole = types.shape(values)[-1:] == (1,) and types.numel(numbers) == types.shape(numbers)[-1]
        if op.dims.data == (0,) and counts_up(numbers) and whole:
            return pair_experts(values)[0]
    return None


def _exact(value: SSAValue, *more: str) -> SSAValue:
    """What a value was before casts (and reshapes, copies) that keep whole numbers as they are."""
    while (op := made_by(value, CastOp, ReshapeOp, CopyOp)) is not None:
        if not {types.dtype(op.input), types.dtype(value)} <= {*EXACT, *more}:
            break
        value = op.input
    return value


def _called(value: SSAValue, callee: str) -> tuple[list, dict] | None:
    """The arguments of the operator of ATen that computes a value: positional ones, and others by name."""
    op = made_by(value, AtenOp)
    if op is None or op.callee.data != callee:
        return None
    positional, named = op.arguments

    def resolved(arg: object) -> object:
        return op.inputs[arg.id] if isinstance(arg, Reg) else arg

    return [resolved(arg) for arg in positional], {name: resolved(arg) for name, arg in named}


def repeated(value: SSAValue, pair_count: Extent) -> tuple[SSAValue, int] | None:
    """``x`` [N, D] (in any shape) and k of the rows of x, each k times in turn."""
    op = made_by(plain(value), BroadcastOp)
    shape = () if op is None else types.shape(op.result)
    if op is None or len(shape) < 2 or not isinstance(shape[-2], int):
        return None
    padded = (1,) * (len(shape) - types.rank(op.input)) + types.shape(op.input)
    if padded != (*shape[:-2], 1, shape[-1]) or types.numel(op.result) != pair_count * shape[-1]:
        return None
    return plain(op.input), shape[-2]


@dataclass(frozen=True)
class PairWeights:
    """One number for each pair of a row and an expert."""

    value: SSAValue
    """What flattens to the numbers, in the order of rows."""
    dtype: str
    """What they are cast to."""
    product_dtype: str
    """In what they are multiplied."""


def pair_weights(value: SSAValue, product_dtype: str, experts: SSAValue, sort: SortOp | None) -> PairWeights | None:
    """Read what rows of pairs are multiplied with; with ``sort``, of sorted pairs."""
    op = made_by(value, BroadcastOp)
    if op is not None and types.rank(op.input) == types.rank(value) and types.shape(op.input)[-1] == 1:
        value = op.input
    if types.numel(value) != types.numel(experts) or types.dtype(value) not in types.FLOATS:
        return None
    dtype, value = types.dtype(value), plain(value)
    cast = made_by(value, CastOp)
    if cast is not None and types.dtype(cast.input) in types.FLOATS:
        value = plain(cast.input)
    if sort is None:
        return PairWeights(value, dtype, product_dtype)
    found = taken(value)
    if found is None or sorting(found[1]) is not sort or types.numel(found[0]) != types.numel(experts):
        return None
    return PairWeights(plain(found[0]), dtype, product_dtype)
