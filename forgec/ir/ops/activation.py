"""Activation functions with constants or a form of their own; the commonest are among the pointwise ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.base import ElementwiseOp, TensorSpec, check_float
from forgec.ir.ops.binary import MulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.unary import SigmoidOp

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class ActivationOp(KeywordFormatOp, ElementwiseOp):
    """``result[i] = f(input[i])`` on floating-point numbers; the properties are constants of f, in the order in which
    torch's function ``TORCH`` takes them.
    """

    TORCH: ClassVar[str]
    FLOPS_PER_ELEMENT: ClassVar[int] = 4

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        return [(types.dtype(self.input), types.shape(self.input))]

    @property
    def constants(self) -> list[bool | int | float]:
        """The constants of f, in order."""
        return [self.properties[name].value for name in self.get_irdl_definition().properties]  # type: ignore[attr-defined]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.function(self.TORCH)(inputs[0], *self.constants)


@irdl_op_definition
class SoftplusOp(ActivationOp):
    """``log(1 + exp(beta · x)) / beta``; x itself where ``beta · x > threshold``."""

    name = "forge.softplus"
    TORCH: ClassVar = "nn.functional.softplus"

    beta = prop_def(ScalarAttr)
    threshold = prop_def(ScalarAttr)


@irdl_op_definition
class EluOp(ActivationOp):
    """``scale · x`` where ``x > 0``, else ``scale · alpha · (exp(input_scale · x) - 1)`` (Clevert et al. 2015).

    SELU and CELU are this with other constants.
    """

    name = "forge.elu"
    TORCH: ClassVar = "ops.aten.elu"

    alpha = prop_def(ScalarAttr)
    scale = prop_def(ScalarAttr)
    input_scale = prop_def(ScalarAttr)


@irdl_op_definition
class LeakyReluOp(ActivationOp):
    """x where ``x > 0``, else ``slope · x``."""

    name = "forge.leaky_relu"
    TORCH: ClassVar = "nn.functional.leaky_relu"
    FLOPS_PER_ELEMENT: ClassVar = 2

    slope = prop_def(ScalarAttr)


@irdl_op_definition
class HardswishOp(ActivationOp):
    """``x · min(max(x + 3, 0), 6) / 6`` (Howard et al. 2019)."""

    name = "forge.hardswish"
    TORCH: ClassVar = "nn.functional.hardswish"


@irdl_op_definition
class HardsigmoidOp(ActivationOp):
    """``min(max(x + 3, 0), 6) / 6``."""

    name = "forge.hardsigmoid"
    TORCH: ClassVar = "nn.functional.hardsigmoid"


@irdl_op_definition
class SwishOp(ActivationOp):
    """``x · sigmoid(beta · x)`` (Ramachandran et al. 2017); with ``beta`` 1.702 the sigmoid approximation of GELU."""

    name = "forge.swish"

    beta = prop_def(ScalarAttr)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0] * ev.torch.sigmoid(inputs[0] * self.beta.value)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """Two products and a sigmoid."""
        emit = Emitter(builder, self)
        gate = emit(SigmoidOp, emit.binary(MulOp, self.input, self.beta.value))
        return [emit(MulOp, self.input, gate)]


@irdl_op_definition
class MishOp(ActivationOp):
    """``x · tanh(log(1 + exp(x)))`` (Misra 2019)."""

    name = "forge.mish"
    TORCH: ClassVar = "nn.functional.mish"


@irdl_op_definition
class LogSigmoidOp(ActivationOp):
    """``log(1 / (1 + exp(-x)))``, accurate where that is nearly 0."""

    name = "forge.log_sigmoid"
    TORCH: ClassVar = "nn.functional.logsigmoid"
