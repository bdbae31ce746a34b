"""Matrix products and convolutions, by the ATen kernels that eager mode ends in."""

from __future__ import annotations

from xdsl.ir import SSAValue

from forgec.backends.aten.table import lowers
from forgec.backends.plan_builder import PlanBuilder
from forgec.ir import types
from forgec.ir.ops.byte_linear import ByteLinearOp
from forgec.ir.ops.contraction import ConvolutionOp, ConvolvingOp, ConvTransposeOp, GroupedMatmulOp, LinearOp, MatmulOp


@lowers(LinearOp)
def _linear(op: LinearOp, b: PlanBuilder) -> None:
    """``mm`` (``addmm`` with a bias) over flattened rows, as eager mode does for row-major inputs; else ATen's
    ``linear``."""
    source, weight = b.place(op.input), b.place(op.weight)
    shape, target_shape = types.shape(op.input), types.shape(op.result)
    if len(shape) < 2 or not types.is_contiguous(source.type) or (op.bias is not None and len(shape) > 3):
        b.call("aten::linear", [op.input, op.weight, op.bias], [], [op.result])
        return
    target = b.destination(op.result, row_major=True)
    rows = types.numel(op.result) // target_shape[-1] if target_shape[-1] != 0 else 0
    flat_source, flat_target = b.reshaped(source, [rows, shape[-1]]), b.reshaped(target, [rows, target_shape[-1]])
    assert flat_source is not None, "row-major values can be flattened"
    assert flat_target is not None, "row-major values can be flattened"
    turned = b.transposed(weight)
    if op.bias is None:
        b.launch("aten::mm.out", [flat_source, turned], [("out", flat_target)], writes=[flat_target])
    else:
        b.launch("aten::addmm.out", [op.bias, flat_source, turned], [("out", flat_target)], writes=[flat_target])


@lowers(MatmulOp)
def _matmul(op: MatmulOp, b: PlanBuilder) -> None:
    """``mm`` and ``bmm`` where the operands are plain (stacks of) matrices; else ATen's ``matmul``."""
    left, right = types.shape(op.lhs), types.shape(op.rhs)
    if len(left) == len(right) == 2:
        target = b.destination(op.result)
        b.launch("aten::mm.out", [op.lhs, op.rhs], [("out", target)], writes=[target])
        return
    if len(left) == len(right) >= 3 and left[:-2] == right[:-2]:
        stacked = [_stack(b, v) for v in (op.lhs, op.rhs)]
        if all(s is not None for s in stacked):
            target = b.destination(op.result, row_major=True)
            window = b.reshaped(target, _stacked_shape(types.shape(op.result)))
            assert window is not None, "a fresh row-major value can be flattened"
            b.launch("aten::bmm.out", stacked, [("out", window)], writes=[window])
            return
    b.call("aten::matmul", [op.lhs, op.rhs], [], [op.result])


@lowers(ByteLinearOp)
def _byte_linear(op: ByteLinearOp, b: PlanBuilder) -> None:
    """Of matrices; others are decomposed before."""
    b.call("aten::_int_mm", [op.input, b.transposed(b.place(op.weight))], [], [op.result])


@lowers(GroupedMatmulOp)
def _grouped_matmul(op: GroupedMatmulOp, b: PlanBuilder) -> None:
    b.call("aten::_grouped_mm", [op.input, op.weight, op.ends], [], [op.result])


def groups_alike(op: GroupedMatmulOp) -> bool:
    """True if ATen's kernel takes the operands: not float64, ends of 32 bits, and rows that are a multiple of 16 bytes
    apart, also those of the result."""
    item = types.ITEM_BYTES[types.dtype(op.input)]
    width = types.shape(op.result)[1]
    if types.dtype(op.input) == "f64" or types.dtype(op.ends) != "i32":
        return False
    return isinstance(width, int) and width * item % 16 == 0 and all(map(_is_aligned, (op.input, op.weight)))


def _is_aligned(value: SSAValue) -> bool:
    """True if a (stack of) matrices is row-major or column-major, with a multiple of 16 bytes between rows."""
    item = types.ITEM_BYTES[types.dtype(value)]
    (rows, columns), (outer, inner) = types.shape(value)[-2:], types.strides(value)[-2:]
    for extent, unit, stride in ((columns, inner, outer), (rows, outer, inner)):
        if unit == 1 and isinstance(stride, int) and isinstance(extent, int) and stride >= extent:
            return stride * item % 16 == 0
    return False


def _stacked_shape(shape):
    batch = 1
    for extent in shape[:-2]:
        batch = batch * extent
    return [batch, *shape[-2:]]


def _stack(b: PlanBuilder, value: SSAValue) -> SSAValue | None:
    place = b.place(value)
    return b.reshaped(place, _stacked_shape(types.shape(place.type)))


@lowers(ConvolutionOp, ConvTransposeOp)
def _convolution(op: ConvolvingOp, b: PlanBuilder) -> None:
    spatial = types.rank(op.weight) - 2
    callee = f"aten::{op.TORCH}{spatial}d" + (".input" if op.TRANSPOSED and spatial > 1 else "")
    b.call(callee, [op.input, op.weight, op.bias, *op.arguments], [], [op.result])
