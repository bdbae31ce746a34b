"""Views that no sequence of slices, transposes and reshapes can say: diagonals, sliding windows, as_strided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import AnyTensorTypeConstr
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentsAttr
from forgec.ir.layout import all_different
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.shape import RearrangeOp, ViewOp
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


def addresses(
    start: Sequence[Extent], steps: Sequence[Extent], strides: Sequence[Extent], rank: int
) -> tuple[Extent, list[Extent]]:
    """Offset and strides of a window of ``rank`` dimensions over an operand with these strides."""
    offset: Extent = 0
    found: list[Extent] = [0] * rank
    for dim, stride in enumerate(strides):
        offset = offset + start[dim] * stride
        for position in range(rank):
            found[position] = found[position] + steps[dim * rank + position] * stride
    return offset, found


def is_injective(op: WindowOp) -> bool:
    """True if it is certain that no two elements of the window are the same element of the operand."""
    shape = types.shape(op.result)
    strides = types.contiguous_strides(types.shape(op.input))
    return all_different(shape, addresses(op.start.data, op.steps.data, strides, len(shape))[1]) is True


class _Windowed(RearrangeOp):
    """What both ops check: that the window stays inside."""

    def check(self, shape: Sequence[Extent], window: Sequence[Extent], start: Any, steps: Any) -> None:
        """Raises VerifyException if a window of these extents surely leaves an operand of this shape."""
        rank = len(window)
        if len(start.data) != len(shape) or len(steps.data) != len(shape) * rank:
            raise VerifyException(f"a window of rank {rank} over rank {len(shape)} needs that many starts and steps")
        if any(extent == 0 for extent in window):
            return
        for dim, extent in enumerate(shape):
            low = high = start.data[dim]
            for step, count in zip(steps.data[dim * rank : (dim + 1) * rank], window, strict=True):
                if isinstance(step, int) and step < 0:
                    raise VerifyException("the steps of a window must not be negative")
                high = high + (count - 1) * step
            beyond = high + 1 - extent
            if (isinstance(low, int) and low < 0) or (isinstance(beyond, int) and beyond > 0):
                raise VerifyException(f"the window leaves dimension {dim} of extent {extent}")


@irdl_op_definition
class WindowOp(_Windowed, ViewOp):
    """``result[i] = input[start + steps · i]``: ``steps`` has a row for each dimension of the operand, with a number
    for each dimension of the result; its rows stand one after the other. The elements may overlap.
    """

    name = "forge.window"

    start = prop_def(ExtentsAttr)
    steps = prop_def(ExtentsAttr)

    assembly_format = (
        "$input `from` custom<Bare>($start) `steps` custom<Bare>($steps) attr-dict `:` "
        "functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        self.check(types.shape(self.input), types.shape(self.result), self.start, self.steps)
        return [(types.dtype(self.input), types.shape(self.result))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return _view(ev, self, inputs[0].contiguous(), ev.shape(self.result))


@irdl_op_definition
class InsertWindowOp(_Windowed):
    """``destination`` with the elements of a window replaced by ``source``.

    What a write through a window becomes; updates in place when the destination's old value is not needed again. No two
    elements of the window may be the same.
    """

    name = "forge.insert_window"

    source = operand_def(AnyTensorTypeConstr)
    destination = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    start = prop_def(ExtentsAttr)
    steps = prop_def(ExtentsAttr)

    assembly_format = (
        "$source `into` $destination `from` custom<Bare>($start) `steps` custom<Bare>($steps) attr-dict `:` "
        "functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        if types.dtype(self.source) != types.dtype(self.destination):
            raise VerifyException("source and destination have different dtypes")
        self.check(types.shape(self.destination), types.shape(self.source), self.start, self.steps)
        return [(types.dtype(self.destination), types.shape(self.destination))]

    def bytes_read(self, index: int) -> Extent:
        return super().bytes_read(index) if self.operands[index] is self.source else 0

    def bytes_written(self) -> Extent:
        return types.nbytes(self.source)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        source, destination = inputs
        updated = destination.clone(memory_format=ev.torch.contiguous_format)
        _view(ev, self, updated, source.shape).copy_(source)
        return updated


def _view(ev: Evaluator, op: ForgeOp, whole: Any, shape: Sequence[int]) -> Any:
    start, steps = ([ev.extent(extent) for extent in getattr(op, name).data] for name in ("start", "steps"))
    if 0 in shape:
        return whole.new_empty(shape)
    offset, strides = addresses(start, steps, whole.stride(), len(shape))
    return whole.as_strided(shape, strides, whole.storage_offset() + offset)
