"""Pointwise ops of one operand. Those without a meaning on integers (``exp``, ``sqrt``, …) make them float32 first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from xdsl.dialects.builtin import AnyTensorTypeConstr, StringAttr
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.base import ElementwiseOp, TensorSpec, check_float

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class UnaryOp(ElementwiseOp):
    """``result[i] = f(input[i])``; ``TORCH`` names f in torch. Integers become the default float where ``TO_FLOAT``."""

    TORCH: ClassVar[str]
    TO_FLOAT: ClassVar[bool] = False
    TO_BOOL: ClassVar[bool] = False

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    assembly_format = "$input attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        name = types.dtype(self.input)
        if self.TO_BOOL:
            name = "i1"
        elif self.TO_FLOAT and name not in (*types.FLOATS, *types.COMPLEX):
            name = "f32"
        return [(name, types.shape(self.input))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        argument = inputs[0].to(ev.dtype(self.result)) if self.TO_FLOAT else inputs[0]
        return ev.function(self.TORCH)(argument)


@irdl_op_definition
class NegOp(UnaryOp):
    """``-x``."""

    name = "forge.neg"
    TORCH: ClassVar = "neg"


@irdl_op_definition
class AbsOp(UnaryOp):
    """``|x|``."""

    name = "forge.abs"
    TORCH: ClassVar = "abs"

    def infer(self) -> Sequence[TensorSpec]:
        name = {"c64": "f32", "c128": "f64"}.get(types.dtype(self.input), types.dtype(self.input))
        return [(name, types.shape(self.input))]


@irdl_op_definition
class SignOp(UnaryOp):
    """the sign of x: -1, 0 or 1."""

    name = "forge.sign"
    TORCH: ClassVar = "sign"


@irdl_op_definition
class ExpOp(UnaryOp):
    """e to the power x."""

    name = "forge.exp"
    TORCH: ClassVar = "exp"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class Exp2Op(UnaryOp):
    """2 to the power x."""

    name = "forge.exp2"
    TORCH: ClassVar = "exp2"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class Expm1Op(UnaryOp):
    """``exp(x) - 1``, accurate near 0."""

    name = "forge.expm1"
    TORCH: ClassVar = "expm1"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class LogOp(UnaryOp):
    """the natural logarithm."""

    name = "forge.log"
    TORCH: ClassVar = "log"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class Log2Op(UnaryOp):
    """the logarithm to base 2."""

    name = "forge.log2"
    TORCH: ClassVar = "log2"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class Log10Op(UnaryOp):
    """the logarithm to base 10."""

    name = "forge.log10"
    TORCH: ClassVar = "log10"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class Log1pOp(UnaryOp):
    """``log(1 + x)``, accurate near 0."""

    name = "forge.log1p"
    TORCH: ClassVar = "log1p"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class SqrtOp(UnaryOp):
    """the square root."""

    name = "forge.sqrt"
    TORCH: ClassVar = "sqrt"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class RsqrtOp(UnaryOp):
    """``1 / sqrt(x)``."""

    name = "forge.rsqrt"
    TORCH: ClassVar = "rsqrt"
    TO_FLOAT: ClassVar = True
    FLOPS_PER_ELEMENT: ClassVar = 2


@irdl_op_definition
class ReciprocalOp(UnaryOp):
    """``1 / x``."""

    name = "forge.reciprocal"
    TORCH: ClassVar = "reciprocal"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class SinOp(UnaryOp):
    """the sine of x radians."""

    name = "forge.sin"
    TORCH: ClassVar = "sin"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class CosOp(UnaryOp):
    """the cosine of x radians."""

    name = "forge.cos"
    TORCH: ClassVar = "cos"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class TanOp(UnaryOp):
    """the tangent of x radians."""

    name = "forge.tan"
    TORCH: ClassVar = "tan"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class AsinOp(UnaryOp):
    """the angle in [-pi/2, pi/2] whose sine is x; NaN outside [-1, 1]."""

    name = "forge.asin"
    TORCH: ClassVar = "asin"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class AcosOp(UnaryOp):
    """the angle in [0, pi] whose cosine is x; NaN outside [-1, 1]."""

    name = "forge.acos"
    TORCH: ClassVar = "acos"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class AtanOp(UnaryOp):
    """the angle in (-pi/2, pi/2) whose tangent is x."""

    name = "forge.atan"
    TORCH: ClassVar = "atan"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class SinhOp(UnaryOp):
    """the hyperbolic sine."""

    name = "forge.sinh"
    TORCH: ClassVar = "sinh"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class CoshOp(UnaryOp):
    """the hyperbolic cosine."""

    name = "forge.cosh"
    TORCH: ClassVar = "cosh"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class TanhOp(UnaryOp):
    """the hyperbolic tangent."""

    name = "forge.tanh"
    TORCH: ClassVar = "tanh"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class ErfOp(UnaryOp):
    """the error function."""

    name = "forge.erf"
    TORCH: ClassVar = "erf"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class ErfcOp(UnaryOp):
    """``1 - erf(x)``, accurate where that is nearly 0."""

    name = "forge.erfc"
    TORCH: ClassVar = "erfc"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class SigmoidOp(UnaryOp):
    """``1 / (1 + exp(-x))``."""

    name = "forge.sigmoid"
    TORCH: ClassVar = "sigmoid"
    TO_FLOAT: ClassVar = True
    FLOPS_PER_ELEMENT: ClassVar = 3


@irdl_op_definition
class SiluOp(UnaryOp):
    """``x * sigmoid(x)`` (Elfwing et al. 2017)."""

    name = "forge.silu"
    TORCH: ClassVar = "nn.functional.silu"
    FLOPS_PER_ELEMENT: ClassVar = 4

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input, complex_too=True)
        return super().infer()


@irdl_op_definition
class ReluOp(UnaryOp):
    """``max(x, 0)``."""

    name = "forge.relu"
    TORCH: ClassVar = "relu"


@irdl_op_definition
class FloorOp(UnaryOp):
    """the greatest integer ≤ x."""

    name = "forge.floor"
    TORCH: ClassVar = "floor"


@irdl_op_definition
class CeilOp(UnaryOp):
    """the least integer ≥ x."""

    name = "forge.ceil"
    TORCH: ClassVar = "ceil"


@irdl_op_definition
class RoundOp(UnaryOp):
    """the nearest integer, ties to even."""

    name = "forge.round"
    TORCH: ClassVar = "round"


@irdl_op_definition
class TruncOp(UnaryOp):
    """x without its fraction."""

    name = "forge.trunc"
    TORCH: ClassVar = "trunc"


@irdl_op_definition
class LogicalNotOp(UnaryOp):
    """``x == 0``."""

    name = "forge.logical_not"
    TORCH: ClassVar = "logical_not"
    TO_BOOL: ClassVar = True


@irdl_op_definition
class BitwiseNotOp(UnaryOp):
    """every bit inverted (booleans: not)."""

    name = "forge.bitwise_not"
    TORCH: ClassVar = "bitwise_not"


@irdl_op_definition
class IsNanOp(UnaryOp):
    """true where x is not a number."""

    name = "forge.isnan"
    TORCH: ClassVar = "isnan"
    TO_BOOL: ClassVar = True


@irdl_op_definition
class GeluOp(UnaryOp):
    """``x * Phi(x)`` (Hendrycks and Gimpel 2016): exact through erf (``none``), or the ``tanh`` approximation."""

    name = "forge.gelu"
    FLOPS_PER_ELEMENT: ClassVar = 8

    approximate = prop_def(StringAttr)

    assembly_format = "$input `approximate` $approximate attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        if self.approximate.data not in ("none", "tanh"):
            raise VerifyException(f"approximate must be 'none' or 'tanh', found {self.approximate.data!r}")
        return super().infer()

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.nn.functional.gelu(inputs[0], approximate=self.approximate.data)


@irdl_op_definition
class CastOp(UnaryOp):
    """The same numbers in another dtype: rounds to nearest even, truncates floats to integers, tests ``!= 0`` for
    booleans.
    """

    name = "forge.cast"

    def infer(self) -> Sequence[TensorSpec]:
        if not self.results:
            raise VerifyException("a cast takes its dtype from its result type, which must be given")
        return [(types.dtype(self.result), types.shape(self.input))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].to(ev.dtype(self.result))


@irdl_op_definition
class ClampOp(UnaryOp):
    """``min(max(x, lower), upper)``, either bound optional. NaN stays NaN."""

    name = "forge.clamp"

    lower = opt_prop_def(ScalarAttr)
    upper = opt_prop_def(ScalarAttr)

    assembly_format = (
        "$input (`lower` custom<Bare>($lower)^)? (`upper` custom<Bare>($upper)^)? "
        "attr-dict `:` functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        bounds = [bound.value for bound in (self.lower, self.upper) if bound is not None]
        if not bounds:
            raise VerifyException("clamp needs a lower or an upper bound")
        return [(types.result_dtype([self.input], bounds), types.shape(self.input))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        low, high = (None if b is None else b.value for b in (self.lower, self.upper))
        return ev.torch.clamp(inputs[0].to(ev.dtype(self.result)), low, high)
