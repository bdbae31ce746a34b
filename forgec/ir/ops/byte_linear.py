"""Products of bytes, summed in integers of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.shape import TransposeOp
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class ByteLinearOp(ForgeOp):
    """``result[…, n] = Σ_k input[…, k] · weight[n, k]`` of bytes, exact modulo 2³²: input [..., K] and weight [N, K] of
    i8, result [..., N] of i32.
    """

    name = "forge.byte_linear"

    input = operand_def(AnyTensorTypeConstr)
    weight = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    assembly_format = "$input `,` $weight attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        shape, weight = types.shape(self.input), types.shape(self.weight)
        if not shape or len(weight) != 2:
            raise VerifyException("byte_linear takes an input of rank 1 at least and a weight of rank 2")
        if types.dtype(self.input) != "i8" or types.dtype(self.weight) != "i8":
            raise VerifyException("byte_linear multiplies i8")
        if shape[-1] != weight[1]:
            raise VerifyException(f"the summed extents {shape[-1]} and {weight[1]} differ")
        return [("i32", (*shape[:-1], weight[0]))]

    def flops(self) -> Extent:
        return 2 * types.numel(self.result) * types.shape(self.input)[-1]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        value, weight = (each.to(ev.torch.int32) for each in inputs)
        return ev.torch.matmul(value, weight.T)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """``matmul(cast(input), transpose(cast(weight)))``."""
        emit = Emitter(builder, self)
        turned = emit(TransposeOp, emit.cast(self.weight, "i32"), permutation=IntsAttr([1, 0]))
        return [emit(MatmulOp, emit.cast(self.input, "i32"), turned)]
