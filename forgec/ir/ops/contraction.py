"""Ops that multiply and sum: matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, StringAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float, check_index, check_same_dtype
from forgec.ir.ops.binary import AddOp, MulOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.index import IndexOp
from forgec.ir.ops.quantization import (
    SHORT_FLOATS,
    STORED,
    DequantizeOp,
    PackedOp,
    dequantized,
    held_number,
    kept_strides,
)
from forgec.ir.ops.shape import TransposeOp
from forgec.ir.ops.unary import ClampOp
from forgec.runtime.symbolic import Extent, sym_min

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class MatmulOp(ForgeOp):
    """``result[…, m, n] = Σ_k lhs[…, m, k] · rhs[…, k, n]``, leading (batch) dimensions broadcast.

    A rank-1 ``lhs`` is one row and a rank-1 ``rhs`` one column, which the result then lacks (torch.matmul).
    """

    name = "forge.matmul"

    lhs = operand_def(AnyTensorTypeConstr)
    rhs = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    assembly_format = "$lhs `,` $rhs attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        left, right = types.shape(self.lhs), types.shape(self.rhs)
        if not left or not right:
            raise VerifyException("matmul takes operands of rank 1 at least")
        inner = right[0] if len(right) == 1 else right[-2]
        if left[-1] != inner:
            raise VerifyException(f"the summed extents {left[-1]} and {inner} differ")
        batch = types.broadcast(left[:-2], right[:-2])
        rows = left[-2:-1] if len(left) > 1 else ()
        columns = right[-1:] if len(right) > 1 else ()
        return [(check_same_dtype(self, self.lhs, self.rhs), (*batch, *rows, *columns))]

    def flops(self) -> Extent:
        return 2 * types.numel(self.result) * types.shape(self.lhs)[-1]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.matmul(*inputs)


@irdl_op_definition
class LinearOp(KeywordFormatOp, PackedOp):
    """``result[…, n] = Σ_k input[…, k] · weight[n, k] + bias[n]``: input [..., K], weight [N, K], bias [N], result
    [..., N].

    A weight of another dtype than the input is quantised, or rounded to bfloat16: what is multiplied is
    ``forge.dequantize`` of weight, scales and zeros in the input's dtype, with the properties that it has there
    (``compute``, ``packing``, …). So scales [N, 1] are one for each row, [N, K / g] one for each group of g numbers
    along K, and a packed weight is [N, K / 2].
    With ``scale_result`` the scales ([N, 1] or one number) multiply the result instead, after the sum was rounded to
    the input's dtype: ``result = linear(input, weight) · scales``, in the dtype that both promote to. Such a linear has
    neither zeros nor bias.
    """

    name = "forge.linear"

    input = operand_def(AnyTensorTypeConstr)
    weight = operand_def(AnyTensorTypeConstr)
    bias = opt_operand_def(AnyTensorTypeConstr)
    scales = opt_operand_def(AnyTensorTypeConstr)
    zeros = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    compute = opt_prop_def(StringAttr)
    packing = opt_prop_def(StringAttr)
    high_first = opt_prop_def(UnitAttr)
    run = prop_def(IntAttr, default_value=IntAttr(1))
    zeros_last = opt_prop_def(UnitAttr)
    scale_result = opt_prop_def(UnitAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    @property
    def is_quantized(self) -> bool:
        """True if the weight holds quantised numbers."""
        return types.dtype(self.weight) != types.dtype(self.input)

    def infer(self) -> Sequence[TensorSpec]:
        shape = types.shape(self.input)
        name, weight = self._weight() if self.is_quantized else self._plain_weight()
        if not shape or len(weight) != 2:
            raise VerifyException("linear takes an input of rank 1 at least and a weight of rank 2")
        if shape[-1] != weight[1]:
            raise VerifyException(f"the summed extents {shape[-1]} and {weight[1]} differ")
        if self.bias is not None:
            check_same_dtype(self, self.input, self.bias)
            if types.shape(self.bias) != weight[:1]:
                raise VerifyException(f"the bias must have {weight[0]} elements")
        return [(name, (*shape[:-1], weight[0]))]

    def _plain_weight(self) -> TensorSpec:
        """Dtype and shape of a weight that is not quantised."""
        said = [self.scales, self.zeros, self.compute, self.packing, self.high_first, self.zeros_last]
        said.append(self.scale_result)
        if any(value is not None for value in said) or self.run.data != 1:
            raise VerifyException("scales, zeros and their properties are for quantised weights")
        return types.dtype(self.input), types.shape(self.weight)

    def _weight(self) -> TensorSpec:
        """The dtype of the result and the shape of a quantised weight's numbers."""
        if types.dtype(self.weight) not in (*STORED, *SHORT_FLOATS) or types.dtype(self.input) not in types.FLOATS:
            check_same_dtype(self, self.input, self.weight)
        self.product_dtype(self.weight, self.scales, self.zeros)
        name, shape = types.dtype(self.input), self.unpacked_shape(self.weight)
        if self.scale_result is None:
            return name, shape
        if self.scales is None or self.zeros is not None or self.bias is not None:
            raise VerifyException("a linear whose result is scaled has scales, and neither zeros nor bias")
        if types.rank(self.scales) and types.shape(self.scales)[-1] != 1:
            raise VerifyException("scales of the result are one for each row of the weight")
        return types.result_dtype([types.tensor(name, shape), self.scales]), shape

    def flops(self) -> Extent:
        result = types.numel(self.result)
        products = 2 * result * types.shape(self.input)[-1] + (0 if self.bias is None else result)
        if self.scale_result is not None:
            return products + result
        parameters = sum(value is not None for value in (self.scales, self.zeros))
        return products + parameters * types.shape(self.result)[-1] * types.shape(self.input)[-1]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        value, weight, bias, scales, zeros = self.unpack(inputs)
        if not self.is_quantized:
            return ev.torch.nn.functional.linear(value, weight, bias)
        if self.scale_result is None:
            weight = dequantized(self, ev, weight, scales, zeros, value.dtype)
            return ev.torch.nn.functional.linear(value, weight, bias)
        weight = dequantized(self, ev, weight, None, None, value.dtype)
        return ev.torch.nn.functional.linear(value, weight) * (scales.flatten() if scales.dim() else scales)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """``add(matmul(input, transpose(weight)), bias)``; of a quantised weight, the linear of its dequantisation,
        which is laid out as the weight is.
        """
        emit = Emitter(builder, self)
        if not self.is_quantized:
            result = emit(MatmulOp, self.input, emit(TransposeOp, self.weight, permutation=IntsAttr([1, 0])))
            return [result if self.bias is None else emit(AddOp, result, self.bias)]
        strides = kept_strides(self.weight) if self.packing is None else None
        kind = types.tensor(types.dtype(self.input), self.unpacked_shape(self.weight), strides)
        properties = {n: p for n, p in self.properties.items() if n in WEIGHT_PROPERTIES}
        parameters = [self.scales, self.zeros] if self.scale_result is None else []
        weight = emit.insert(DequantizeOp.make([self.weight, *parameters], properties, [kind]))
        result = emit(LinearOp, self.input, weight, self.bias)
        if self.scale_result is None:
            return [result]
        assert self.scales is not None, "the verifier wants them"
        if (number := held_number(self.scales)) is not None:
            return [emit.binary(MulOp, result, number)]
        scales = self.scales
        return [emit(MulOp, result, emit.reshape(scales, [types.numel(scales)]) if types.rank(scales) else scales)]


WEIGHT_PROPERTIES = ("compute", "packing", "high_first", "run", "zeros_last")
"""Properties of a linear that say how its weight is quantised."""


@irdl_op_definition
class GroupedMatmulOp(ForgeOp):
    """``result[s, n] = Σ_k input[s, k] · weight[g(s), k, n]`` for rows that stand in groups: input [S, K], weight
    [G, K, N], result [S, N].

    ends [G] (i32 or i64) ascends and says where each group ends: ``g(s)`` is the first g with ``s < ends[g]``, so a
    group may be empty. Rows after the last end have no meaning.
    """

    name = "forge.grouped_matmul"

    input = operand_def(AnyTensorTypeConstr)
    weight = operand_def(AnyTensorTypeConstr)
    ends = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)

    assembly_format = "$input `,` $weight `ends` $ends attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        check_index(self, self.ends)
        shape, weight = types.shape(self.input), types.shape(self.weight)
        if len(shape) != 2 or len(weight) != 3:
            raise VerifyException("grouped_matmul takes an input of rank 2 and a weight of rank 3")
        if shape[1] != weight[1]:
            raise VerifyException(f"the summed extents {shape[1]} and {weight[1]} differ")
        if types.shape(self.ends) != weight[:1]:
            raise VerifyException(f"ends must have {weight[0]} elements, one for each group")
        return [(check_same_dtype(self, self.input, self.weight), (shape[0], weight[2]))]

    def flops(self) -> Extent:
        return 2 * types.numel(self.result) * types.shape(self.input)[1]

    def bytes_read(self, index: int) -> Extent:
        """Of the weights those of as many groups as there can be rows; all else once."""
        whole, groups = super().bytes_read(index), types.shape(self.weight)[0]
        if self.operands[index] is not self.weight or groups == 0:
            return whole
        return whole // groups * sym_min(types.shape(self.input)[0], groups)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        rows, weight, ends = inputs
        result, start = ev.torch.zeros(rows.shape[0], weight.shape[2], dtype=rows.dtype), 0
        for group, end in enumerate(ends.tolist()):
            result[start:end] = rows[start:end] @ weight[group]
            start = max(start, end)
        return result

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """A weight for each row, and a product of one row with each: copies of weights, for what no kernel takes."""
        emit = Emitter(builder, self)
        count, groups = types.shape(self.input)[0], types.shape(self.weight)[0]
        ends = emit.cast(self.ends, "i64")
        search = AtenOp.of(
            "aten::searchsorted.Tensor", [ends, emit.iota(count)], [("right", True)], [types.tensor("i64", [count])]
        )
        group = emit.insert(search)
        if isinstance(groups, int):
            group = emit(ClampOp, group, upper=ScalarAttr.of(groups - 1))  # rows after the last end
        weight = emit(IndexOp, self.weight, group, dims=IntsAttr([0]))
        rows = emit.reshape(self.input, (count, 1, types.shape(self.input)[1]))
        return [emit.reshape(emit(MatmulOp, rows, weight), types.shape(self.result))]


class ConvolvingOp(KeywordFormatOp, ForgeOp):
    """A kernel that moves over the image; if ``TRANSPOSED``, the weight's first extent counts what it takes."""

    TORCH: ClassVar[str]
    TRANSPOSED: ClassVar[bool]

    input = operand_def(AnyTensorTypeConstr)
    weight = operand_def(AnyTensorTypeConstr)
    bias = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    strides = prop_def(IntsAttr)
    padding = prop_def(IntsAttr)
    dilation = prop_def(IntsAttr)
    groups = prop_def(IntAttr)

    @property
    def arguments(self) -> list[Any]:
        """What torch's function takes after input, weight and bias."""
        return [list(self.strides.data), list(self.padding.data), list(self.dilation.data), self.groups.data]

    def extents(self) -> list[Extent]:
        """The spatial extents of the result; raises VerifyException where nothing is left of them."""
        raise NotImplementedError

    def infer(self) -> Sequence[TensorSpec]:
        shape, weight = types.shape(self.input), types.shape(self.weight)
        spatial, groups = len(shape) - 2, self.groups.data
        if not 1 <= spatial <= 3 or len(weight) != len(shape):
            raise VerifyException("convolution takes an input and a weight of one rank from 3 to 5")
        steps = {name: value.data for name, value in self.properties.items() if isinstance(value, IntsAttr)}
        if any(len(values) != spatial for values in steps.values()):
            raise VerifyException(f"{', '.join(steps)} need {spatial} values each")
        if min(*self.strides.data, *self.dilation.data) < 1 or groups < 1:
            raise VerifyException("strides, dilation and groups must be positive")
        if min(n for name, values in steps.items() if "padding" in name for n in values) < 0:
            raise VerifyException("padding must not be negative")
        taken, made = weight[1] * groups, weight[0]
        if self.TRANSPOSED:
            taken, made = made, taken
        if shape[1] != taken:
            raise VerifyException(f"{shape[1]} input channels do not fit a weight of {taken} in {groups} groups")
        if isinstance(weight[0], int) and weight[0] % groups:
            raise VerifyException(f"{weight[0]} channels do not divide into {groups} groups")
        if self.bias is not None and types.shape(self.bias) != (made,):
            raise VerifyException(f"the bias must have {made} elements")
        return [(check_same_dtype(self, *self.operands), (shape[0], made, *self.extents()))]

    def flops(self) -> Extent:
        kernels = types.numel(self.input if self.TRANSPOSED else self.result)
        products = 2 * kernels * prod(types.shape(self.weight)[1:], start=1)
        return products + (0 if self.bias is None else types.numel(self.result))

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        bias = inputs[2] if self.bias is not None else None
        name = f"nn.functional.{self.TORCH}{types.rank(self.input) - 2}d"
        return ev.function(name)(inputs[0], inputs[1], bias, *self.arguments)


@irdl_op_definition
class ConvolutionOp(ConvolvingOp):
    """Cross-correlation over 1 to 3 spatial dimensions, with zero padding:

    ``result[b, o, x] = bias[o] + Σ_{c, k} weight[o, c, k] · input[b, g(o) · C/groups + c, x · strides + k · dilation -
    padding]`` with group ``g(o) = o // (O / groups)``; input [B, C, *X], weight [O, C/groups, *K], bias [O], result [B,
    O, *Y] where ``Y = (X + 2 · padding - dilation · (K - 1) - 1) // strides + 1``.
    """

    name = "forge.convolution"
    TORCH: ClassVar = "conv"
    TRANSPOSED: ClassVar = False

    def extents(self) -> list[Extent]:
        pairs = zip(types.shape(self.input)[2:], types.shape(self.weight)[2:], strict=True)
        steps = zip(pairs, self.strides.data, self.padding.data, self.dilation.data, strict=True)
        found = [(x + 2 * p - d * (k - 1) - 1) // s + 1 for (x, k), s, p, d in steps]
        if any(isinstance(extent, int) and extent < 0 for extent in found):
            raise VerifyException("the kernel is larger than the padded input")
        return found


@irdl_op_definition
class ConvTransposeOp(ConvolvingOp):
    """Transposed convolution over 1 to 3 spatial dimensions: each input element adds the kernel, times itself, to the
    result.

    ``result[b, o, y] = bias[o] + Σ weight[c, o mod O/groups, k] · input[b, c, x]`` over all c of o's group, and all x
    and k with ``y = x · strides + k · dilation - padding``; input [B, C, *X], weight [C, O/groups, *K], bias [O],
    result [B, O, *Y] where ``Y = (X - 1) · strides - 2 · padding + dilation · (K - 1) + output_padding + 1``.
    """

    name = "forge.conv_transpose"
    TORCH: ClassVar = "conv_transpose"
    TRANSPOSED: ClassVar = True

    # all of them again: properties print in the order of their definition
    strides = prop_def(IntsAttr)
    padding = prop_def(IntsAttr)
    output_padding = prop_def(IntsAttr)
    dilation = prop_def(IntsAttr)
    groups = prop_def(IntAttr)

    @property
    def arguments(self) -> list[Any]:
        strides, padding, dilation, groups = super().arguments
        return [strides, padding, list(self.output_padding.data), groups, dilation]

    def extents(self) -> list[Extent]:
        pairs = zip(types.shape(self.input)[2:], types.shape(self.weight)[2:], strict=True)
        steps = (self.strides.data, self.padding.data, self.output_padding.data, self.dilation.data)
        found = [(x - 1) * s - 2 * p + d * (k - 1) + o + 1 for (x, k), s, p, o, d in zip(pairs, *steps, strict=True)]
        if any(isinstance(extent, int) and extent < 1 for extent in found):
            raise VerifyException("the padding takes away the whole result")
        return found
