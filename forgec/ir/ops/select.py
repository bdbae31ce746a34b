"""Pointwise ops that choose between values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from xdsl.dialects.builtin import AnyTensorTypeConstr
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.ops.base import ElementwiseOp, TensorSpec

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class WhereOp(ElementwiseOp):
    """``condition ? then : otherwise``, all three broadcast; values behind the branch not taken do not matter, NaN
    included.
    """

    name = "forge.where"

    condition = operand_def(AnyTensorTypeConstr)
    then = operand_def(AnyTensorTypeConstr)
    otherwise = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    assembly_format = "$condition `,` $then `,` $otherwise attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        if types.dtype(self.condition) not in ("i1", "ui8"):
            raise VerifyException("the condition must be boolean")
        name = types.result_dtype([self.then, self.otherwise])
        return [(name, types.broadcast(*(types.shape(v) for v in self.operands)))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.where(*inputs)


@irdl_op_definition
class MaskedFillOp(ElementwiseOp):
    """``mask ? value : input`` with a Python number ``value`` in the input's dtype; the mask broadcasts to the
    result.
    """

    name = "forge.masked_fill"

    input = operand_def(AnyTensorTypeConstr)
    mask = operand_def(AnyTensorTypeConstr)
    value = prop_def(ScalarAttr)
    result = result_def(AnyTensorTypeConstr)

    assembly_format = "$input `,` $mask `with` custom<Bare>($value) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        if types.dtype(self.mask) != "i1":
            raise VerifyException("the mask must be boolean")
        return [(types.dtype(self.input), types.broadcast(types.shape(self.input), types.shape(self.mask)))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].masked_fill(inputs[1], self.value.value)


class _TriangleOp(ElementwiseOp):
    """The elements of matrices ``[…, m, n]`` on one side of a diagonal, the other elements 0."""

    TORCH: ClassVar[str]
    FLOPS_PER_ELEMENT: ClassVar[int] = 0

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    diagonal = prop_def(ExtentAttr)

    assembly_format = "$input `diagonal` custom<Bare>($diagonal) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        if types.rank(self.input) < 2:
            raise VerifyException(f"{self.name} takes matrices")
        return [(types.dtype(self.input), types.shape(self.input))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.function(self.TORCH)(inputs[0], ev.extent(self.diagonal.data))


@irdl_op_definition
class TrilOp(_TriangleOp):
    """``n - m <= diagonal ? input[…, m, n] : 0``."""

    name = "forge.tril"
    TORCH: ClassVar = "tril"


@irdl_op_definition
class TriuOp(_TriangleOp):
    """``n - m >= diagonal ? input[…, m, n] : 0``."""

    name = "forge.triu"
    TORCH: ClassVar = "triu"
