"""Ops that make tensors out of nothing; the result type says shape and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import AnyTensorTypeConstr
from xdsl.irdl import irdl_op_definition, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class CreationOp(ForgeOp):
    """An op without operands."""

    result = result_def(AnyTensorTypeConstr)

    def infer(self) -> Sequence[TensorSpec]:
        if not self.results:
            raise VerifyException(f"{self.name} takes its shape and dtype from its result type, which must be given")
        return [(types.dtype(self.result), types.shape(self.result))]

    def flops(self) -> Extent:
        return 0


@irdl_op_definition
class FullOp(CreationOp):
    """``result[i] = value``, converted to the result's dtype."""

    name = "forge.full"

    value = prop_def(ScalarAttr)

    assembly_format = "custom<Bare>($value) attr-dict `:` type($result)"

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.full(ev.shape(self.result), self.value.value, dtype=ev.dtype(self.result))


@irdl_op_definition
class IotaOp(CreationOp):
    """``result[i] = start + i · step``, integers of rank 1."""

    name = "forge.iota"

    start = prop_def(ExtentAttr)
    step = prop_def(ExtentAttr)

    assembly_format = "`from` custom<Bare>($start) `step` custom<Bare>($step) attr-dict `:` type($result)"

    def infer(self) -> Sequence[TensorSpec]:
        ((name, shape),) = super().infer()
        if len(shape) != 1 or name in (*types.FLOATS, *types.COMPLEX, "i1"):
            raise VerifyException("iota yields integers of rank 1")
        return [(name, shape)]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        (count,) = ev.shape(self.result)
        start, step = ev.extent(self.start.data), ev.extent(self.step.data)
        return (start + step * ev.torch.arange(count)).to(ev.dtype(self.result))
