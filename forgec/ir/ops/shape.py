"""Ops that rearrange elements without computing: what ATen calls views, as values.

Whether one of them costs a copy is decided when the plan is made; here each is a pure function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr
from xdsl.ir import Operation
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, var_operand_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr
from forgec.ir.layout import reshape_strides
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_dim
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class RearrangeOp(ForgeOp):
    """An op that moves elements or only renames their places; it computes nothing."""

    def flops(self) -> Extent:
        return 0


class ViewOp(RearrangeOp):
    """A rearrangement of one operand that strides can express (for reshape: where the operand's strides allow it)."""

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    def bytes_read(self, index: int) -> Extent:
        return 0 if is_free(self) else super().bytes_read(index)

    def bytes_written(self) -> Extent:
        return 0 if is_free(self) else super().bytes_written()


@irdl_op_definition
class CopyOp(ViewOp):
    """The operand's value; a result type with other strides asks for another layout."""

    name = "forge.copy"

    assembly_format = "$input attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        return [(types.dtype(self.input), types.shape(self.input))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].clone()


@irdl_op_definition
class ReshapeOp(ViewOp):
    """The operand's elements, in row-major order, in the result type's shape."""

    name = "forge.reshape"

    assembly_format = "$input attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        if types.numel(self.input) != types.numel(self.result):
            raise VerifyException(f"cannot reshape {types.numel(self.input)} elements to {types.numel(self.result)}")
        return [(types.dtype(self.input), types.shape(self.result))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].reshape(ev.shape(self.result))


@irdl_op_definition
class TransposeOp(ViewOp):
    """``result[i[p[0]], i[p[1]], …] = input[i[0], i[1], …]``: result dimension ``d`` is operand dimension
    ``permutation[d]``.
    """

    name = "forge.transpose"

    permutation = prop_def(IntsAttr)

    assembly_format = "$input custom<Bare>($permutation) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        shape = types.shape(self.input)
        order = self.permutation.data
        if sorted(order) != list(range(len(shape))):
            raise VerifyException(f"{list(order)} is no permutation of {len(shape)} dimensions")
        return [(types.dtype(self.input), tuple(shape[d] for d in order))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].permute(self.permutation.data)


@irdl_op_definition
class BroadcastOp(ViewOp):
    """The operand repeated along new leading dimensions and along its dimensions of extent 1, to the result type's
    shape.
    """

    name = "forge.broadcast"

    assembly_format = "$input attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        source, target = types.shape(self.input), types.shape(self.result)
        if types.broadcast(source, target) != target:
            raise VerifyException(f"{list(map(str, source))} does not broadcast to {list(map(str, target))}")
        return [(types.dtype(self.input), target)]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].expand(ev.shape(self.result))


def _check_slice(count: Extent, start: Extent, step: Extent, extent: Extent) -> None:
    """Raises VerifyException if ``count`` elements from ``start`` surely leave a dimension of this extent."""
    if isinstance(step, int) and step < 1:
        raise VerifyException("the step must be positive")
    if isinstance(start, int) and start < 0:
        raise VerifyException("the start counts from the front and must not be negative")
    beyond = start + (count - 1) * step + 1 - extent
    if count != 0 and isinstance(beyond, int) and beyond > 0:
        raise VerifyException(f"slice from {start} of {count} elements leaves the dimension of {extent}")


@irdl_op_definition
class SliceOp(ViewOp):
    """Elements ``start, start + step, …`` of one dimension; the result type says how many. ``start`` counts from the
    front.
    """

    name = "forge.slice"

    dim = prop_def(IntAttr)
    start = prop_def(ExtentAttr)
    step = prop_def(ExtentAttr)

    assembly_format = (
        "$input `dim` custom<Bare>($dim) `from` custom<Bare>($start) `step` custom<Bare>($step) "
        "attr-dict `:` functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        source, target = list(types.shape(self.input)), types.shape(self.result)
        dim = check_dim(self.dim.data, len(source))
        if dim >= len(target):
            raise VerifyException("a slice keeps the rank")
        count, start, step = target[dim], self.start.data, self.step.data
        _check_slice(count, start, step, source[dim])
        source[dim] = count
        return [(types.dtype(self.input), tuple(source))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        dim, start, step = self.dim.data, ev.extent(self.start.data), ev.extent(self.step.data)
        count = ev.shape(self.result)[dim]
        return inputs[0].narrow(dim, start, (count - 1) * step + 1 if count else 0)[
            (slice(None),) * dim + (slice(None, None, step),)
        ]


@irdl_op_definition
class ConcatOp(RearrangeOp):
    """The operands one after the other along ``dim``; all other extents agree."""

    name = "forge.concat"

    inputs = var_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)

    assembly_format = "$inputs `dim` custom<Bare>($dim) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        if not self.inputs:
            raise VerifyException("concat needs an operand")
        shapes = [list(types.shape(v)) for v in self.inputs]
        dim = check_dim(self.dim.data, len(shapes[0]))
        name = types.dtype(self.inputs[0])
        total: Extent = 0
        for value, shape in zip(self.inputs, shapes, strict=True):
            if len(shape) != len(shapes[0]) or shape[:dim] + shape[dim + 1 :] != shapes[0][:dim] + shapes[0][dim + 1 :]:
                raise VerifyException("concatenated extents differ outside the dimension of concatenation")
            total = total + shape[dim]
            name = types.promote(name, types.dtype(value))
        shapes[0][dim] = total
        return [(name, tuple(shapes[0]))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.cat(inputs, self.dim.data)


@irdl_op_definition
class InsertSliceOp(RearrangeOp):
    """``destination`` with the elements ``start, start + step, …`` of ``dim`` replaced by ``source``.

    What a write through a sliced view becomes; updates in place when the destination's old value is not needed again.
    """

    name = "forge.insert_slice"

    source = operand_def(AnyTensorTypeConstr)
    destination = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)
    start = prop_def(ExtentAttr)
    step = prop_def(ExtentAttr)

    assembly_format = (
        "$source `into` $destination `dim` custom<Bare>($dim) `from` custom<Bare>($start) `step` custom<Bare>($step) "
        "attr-dict `:` functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        target, source = types.shape(self.destination), types.shape(self.source)
        dim = check_dim(self.dim.data, len(target))
        if len(source) != len(target) or source[:dim] + source[dim + 1 :] != target[:dim] + target[dim + 1 :]:
            raise VerifyException("the inserted slice must agree with the destination outside the sliced dimension")
        if types.dtype(self.source) != types.dtype(self.destination):
            raise VerifyException("source and destination have different dtypes")
        _check_slice(source[dim], self.start.data, self.step.data, target[dim])
        return [(types.dtype(self.destination), target)]

    def bytes_read(self, index: int) -> Extent:
        return super().bytes_read(index) if self.operands[index] is self.source else 0

    def bytes_written(self) -> Extent:
        return types.nbytes(self.source)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        source, destination = inputs
        dim, start, step = self.dim.data, ev.extent(self.start.data), ev.extent(self.step.data)
        stop = start + (source.shape[dim] - 1) * step + 1 if source.shape[dim] else start
        return ev.torch.slice_scatter(destination, source, dim, start, stop, step)


@irdl_op_definition
class FlipOp(RearrangeOp):
    """The operand with the order of elements reversed along each of ``dims``."""

    name = "forge.flip"

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    dims = prop_def(IntsAttr)

    assembly_format = "$input `dims` custom<Bare>($dims) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        for dim in self.dims.data:
            check_dim(dim, types.rank(self.input))
        if len(set(self.dims.data)) != len(self.dims.data):
            raise VerifyException(f"dimensions {list(self.dims.data)} repeat")
        return [(types.dtype(self.input), types.shape(self.input))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].flip(self.dims.data)


def is_free(op: Operation | None) -> bool:
    """True for a rearrangement that moves nothing: strides express it."""
    if not isinstance(op, ViewOp) or isinstance(op, CopyOp):
        return False
    if not isinstance(op, ReshapeOp):
        return True
    source = types.tensor_type(op.input)
    return reshape_strides(types.shape(source), types.strides(source), types.shape(op.result)) is not None
