"""Ops that combine the elements along dimensions: reductions, running sums and softmax.

Dimensions are always explicit and counted from the front; a full reduction lists all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, UnitAttr
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_dim, check_float
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class ReductionOp(ForgeOp):
    """``result[o] = reduce over r of input[o, r]``: ``dims`` are removed, or kept with extent 1 where ``keepdim``
    stands.
    """

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    dims = prop_def(IntsAttr)
    keepdim = opt_prop_def(UnitAttr)

    assembly_format = (
        "$input `over` custom<Bare>($dims) (`keepdim` $keepdim^)? attr-dict `:` functional-type(operands, results)"
    )

    def reduced_shape(self) -> tuple[Extent, ...]:
        """The input's shape without the reduced dimensions (with extent 1 in their place if ``keepdim``)."""
        shape, dims = types.shape(self.input), self.dims.data
        for dim in dims:
            check_dim(dim, len(shape))
        if len(set(dims)) != len(dims):
            raise VerifyException(f"dimensions {list(dims)} repeat")
        if shape and not dims:
            raise VerifyException("a reduction names the dimensions that it reduces")
        keep = self.keepdim is not None
        return tuple(1 if d in dims else n for d, n in enumerate(shape) if keep or d not in dims)

    def infer(self) -> Sequence[TensorSpec]:
        return [(types.dtype(self.input), self.reduced_shape())]

    def flops(self) -> Extent:
        return types.numel(self.input)


class _FloatReductionOp(ReductionOp):
    """A reduction of floating-point numbers."""

    COMPLEX_TOO: ClassVar[bool] = False

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input, complex_too=self.COMPLEX_TOO)
        return super().infer()


class _IntegerSumOp(ReductionOp):
    """A reduction whose result is int64 for integers and booleans, unless the result type is of a float or int32."""

    def infer(self) -> Sequence[TensorSpec]:
        return [(_accumulated(self, types.dtype(self.input)), self.reduced_shape())]


def _accumulated(op: ForgeOp, name: str) -> str:
    if name in types.FLOATS or name in types.COMPLEX:
        return name
    found = types.dtype(op.results[0]) if op.results else "i64"
    return found if found in (*types.FLOATS, "i32") else "i64"


@irdl_op_definition
class SumOp(_IntegerSumOp):
    """the sum over ``dims``. Integers and booleans sum to int64, or to the float or int32 that the result type
    names.
    """

    name = "forge.sum"

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].sum(self.dims.data, keepdim=self.keepdim is not None, dtype=ev.dtype(self.result))


@irdl_op_definition
class ProdOp(_IntegerSumOp):
    """the product over ``dims``. Integers and booleans multiply to int64, or to the float or int32 that the result
    type names.
    """

    name = "forge.prod"

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        result = inputs[0].to(ev.dtype(self.result))
        for dim in sorted(self.dims.data, reverse=True):
            result = result.prod(dim, keepdim=self.keepdim is not None)
        return result


@irdl_op_definition
class MeanOp(_FloatReductionOp):
    """the arithmetic mean over ``dims``; NaN where there is nothing to average."""

    name = "forge.mean"
    COMPLEX_TOO: ClassVar = True

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].mean(self.dims.data, keepdim=self.keepdim is not None)


@irdl_op_definition
class AmaxOp(ReductionOp):
    """the greatest element over ``dims``; NaN if any is."""

    name = "forge.amax"

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].amax(self.dims.data, keepdim=self.keepdim is not None)


@irdl_op_definition
class AminOp(ReductionOp):
    """the least element over ``dims``; NaN if any is."""

    name = "forge.amin"

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].amin(self.dims.data, keepdim=self.keepdim is not None)


class _LogicalReductionOp(ReductionOp):
    """A reduction of truth values (``x != 0``) to a boolean."""

    TORCH: ClassVar[str]

    def infer(self) -> Sequence[TensorSpec]:
        return [("i1", self.reduced_shape())]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        result = inputs[0].to(ev.torch.bool)
        for dim in sorted(self.dims.data, reverse=True):
            result = ev.function(self.TORCH)(result, dim, keepdim=self.keepdim is not None)
        return result


@irdl_op_definition
class AnyOp(_LogicalReductionOp):
    """true if any element over ``dims`` is not 0."""

    name = "forge.any"
    TORCH: ClassVar = "any"


@irdl_op_definition
class AllOp(_LogicalReductionOp):
    """true if every element over ``dims`` is not 0."""

    name = "forge.all"
    TORCH: ClassVar = "all"


class _DeviationOp(_FloatReductionOp):
    """How far elements lie from their mean."""

    TORCH: ClassVar[str]

    correction = prop_def(ScalarAttr)

    assembly_format = (
        "$input `over` custom<Bare>($dims) `correction` custom<Bare>($correction) (`keepdim` $keepdim^)? "
        "attr-dict `:` functional-type(operands, results)"
    )

    def flops(self) -> Extent:
        return 4 * types.numel(self.input)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        keep = self.keepdim is not None
        return ev.function(self.TORCH)(inputs[0], self.dims.data, correction=self.correction.value, keepdim=keep)


@irdl_op_definition
class VarOp(_DeviationOp):
    """the variance over ``dims``: ``sum((x - mean(x))²) / max(n - correction, 0)`` for n elements."""

    name = "forge.var"
    TORCH: ClassVar = "var"


@irdl_op_definition
class StdOp(_DeviationOp):
    """the standard deviation over ``dims``: the square root of the variance."""

    name = "forge.std"
    TORCH: ClassVar = "std"


@irdl_op_definition
class VectorNormOp(_FloatReductionOp):
    """``(sum |x| ** ord) ** (1 / ord)`` over ``dims``; for inf and -inf the greatest and least ``|x|``, for 0 how many
    x are not 0.
    """

    name = "forge.vector_norm"

    ord = prop_def(ScalarAttr)

    assembly_format = (
        "$input `over` custom<Bare>($dims) `ord` custom<Bare>($ord) (`keepdim` $keepdim^)? "
        "attr-dict `:` functional-type(operands, results)"
    )

    def flops(self) -> Extent:
        return 2 * types.numel(self.input)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        keep = self.keepdim is not None
        return ev.torch.linalg.vector_norm(inputs[0], self.ord.value, self.dims.data, keepdim=keep)


@irdl_op_definition
class LogsumexpOp(_FloatReductionOp):
    """``m + log(sum(exp(x - m)))`` over ``dims``, with ``m = max(x)``."""

    name = "forge.logsumexp"

    def flops(self) -> Extent:
        return 4 * types.numel(self.input)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].logsumexp(self.dims.data, keepdim=self.keepdim is not None)


class _ArgOp(ForgeOp):
    """The place of an extreme element along ``dim``."""

    TORCH: ClassVar[str]

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)
    keepdim = opt_prop_def(UnitAttr)

    assembly_format = (
        "$input `dim` custom<Bare>($dim) (`keepdim` $keepdim^)? attr-dict `:` functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        shape = types.shape(self.input)
        dim = check_dim(self.dim.data, len(shape))
        middle = (1,) if self.keepdim is not None and shape else ()
        return [("i64", shape[:dim] + middle + shape[dim + 1 :])]

    def flops(self) -> Extent:
        return types.numel(self.input)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.function(self.TORCH)(inputs[0], self.dim.data, keepdim=self.keepdim is not None)


@irdl_op_definition
class ArgmaxOp(_ArgOp):
    """the index along ``dim`` of the greatest element (of the first NaN, if there is one); ties may go either way."""

    name = "forge.argmax"
    TORCH: ClassVar = "argmax"


@irdl_op_definition
class ArgminOp(_ArgOp):
    """the index along ``dim`` of the least element (of the first NaN, if there is one); ties may go either way."""

    name = "forge.argmin"
    TORCH: ClassVar = "argmin"


class _AlongOp(ForgeOp):
    """An op along one dimension that keeps the shape."""

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)

    assembly_format = "$input `dim` custom<Bare>($dim) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        check_dim(self.dim.data, types.rank(self.input))
        return [(types.dtype(self.input), types.shape(self.input))]


class _ScanOp(_AlongOp):
    """A running reduction."""

    TORCH: ClassVar[str]

    def infer(self) -> Sequence[TensorSpec]:
        ((name, shape),) = super().infer()
        return [(_accumulated(self, name), shape)]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.function(self.TORCH)(inputs[0], self.dim.data, dtype=ev.dtype(self.result))


@irdl_op_definition
class CumsumOp(_ScanOp):
    """``result[i] = input[0] + … + input[i]`` along ``dim``. Integers and booleans sum to int64, or to what the result
    type names.
    """

    name = "forge.cumsum"
    TORCH: ClassVar = "cumsum"


@irdl_op_definition
class CumprodOp(_ScanOp):
    """``result[i] = input[0] · … · input[i]`` along ``dim``. Integers and booleans multiply to int64, or to what the
    result type names.
    """

    name = "forge.cumprod"
    TORCH: ClassVar = "cumprod"


class _SoftmaxOp(_AlongOp):
    TORCH: ClassVar[str]

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        return super().infer()

    def flops(self) -> Extent:
        return 5 * types.numel(self.input)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.function(self.TORCH)(inputs[0], self.dim.data)


@irdl_op_definition
class SoftmaxOp(_SoftmaxOp):
    """``exp(x - m) / sum(exp(x - m))`` along ``dim``, with ``m = max(x)``; NaN where every element is -inf."""

    name = "forge.softmax"
    TORCH: ClassVar = "softmax"


@irdl_op_definition
class LogSoftmaxOp(_SoftmaxOp):
    """``x - m - log(sum(exp(x - m)))`` along ``dim``, with ``m = max(x)``."""

    name = "forge.log_softmax"
    TORCH: ClassVar = "log_softmax"
