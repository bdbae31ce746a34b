"""Convolution of images whose channels are last: a window of such an image is a few long rows of memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_float, check_same_dtype
from forgec.ir.ops.contraction import ConvolutionOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.format import KeywordFormatOp
from forgec.ir.ops.shape import TransposeOp
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class WindowedLinearOp(KeywordFormatOp, ForgeOp):
    """A linear layer on each window of an image, which is a convolution without padding:

    ``result[b, g · O + o, y] = bias[g · O + o] + Σ_{k, c} weight[g, o, (k, c)] · input[b, g, y · strides + k ·
    dilation, c]``, where ``(k, c)`` counts through the places of a kernel of extents ``kernel``, and for each through
    the channels; input [B, G, *X, C], weight [G, O, prod(kernel) · C], bias [G · O], result [B, G · O, *Y] where ``Y =
    (X - dilation · (K - 1) - 1) // strides + 1``.
    """

    name = "forge.windowed_linear"

    input = operand_def(AnyTensorTypeConstr)
    weight = operand_def(AnyTensorTypeConstr)
    bias = opt_operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    kernel = prop_def(IntsAttr)
    strides = prop_def(IntsAttr)
    dilation = prop_def(IntsAttr)

    def infer(self) -> Sequence[TensorSpec]:
        check_float(self, self.input)
        shape, weight, kernel = types.shape(self.input), types.shape(self.weight), self.kernel.data
        if not kernel or len(shape) != len(kernel) + 3 or len(weight) != 3:
            raise VerifyException("windowed_linear takes an input [B, G, *X, C] and a weight of rank 3")
        if len(self.strides.data) != len(kernel) or len(self.dilation.data) != len(kernel):
            raise VerifyException("kernel, strides and dilation need one value for each spatial dimension")
        if min(*kernel, *self.strides.data, *self.dilation.data) < 1:
            raise VerifyException("kernel, strides and dilation must be positive")
        if weight[0] != shape[1] or weight[2] != prod(kernel) * shape[-1]:
            raise VerifyException(f"a weight {list(weight)} does not fit the windows of an input {list(shape)}")
        made = weight[0] * weight[1]
        if self.bias is not None and types.shape(self.bias) != (made,):
            raise VerifyException(f"the bias must have {made} elements")
        return [(check_same_dtype(self, *self.operands), (shape[0], made, *self.extents()))]

    def extents(self) -> list[Extent]:
        """The spatial extents of the result; raises VerifyException where nothing is left of them."""
        steps = zip(types.shape(self.input)[2:-1], self.kernel.data, self.strides.data, self.dilation.data, strict=True)
        found = [(x - d * (k - 1) - 1) // s + 1 for x, k, s, d in steps]
        if any(isinstance(extent, int) and extent < 0 for extent in found):
            raise VerifyException("the kernel is larger than the input")
        return found

    def flops(self) -> Extent:
        products = 2 * types.numel(self.result) * types.shape(self.weight)[2]
        return products + (0 if self.bias is None else types.numel(self.result))

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        image, weight, *bias = inputs
        count = len(self.kernel.data)
        groups, made, _ = weight.shape
        channels = image.shape[-1]
        image = image.movedim(-1, 2).flatten(1, 2)
        weight = weight.reshape(groups * made, *self.kernel.data, channels).movedim(-1, 1)
        function = ev.function(f"nn.functional.conv{count}d")
        return function(image, weight, *(bias or [None]), list(self.strides.data), 0, list(self.dilation.data), groups)

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """A convolution of the image with its channels before its places."""
        emit = Emitter(builder, self)
        batch, groups, *places, channels = types.shape(self.input)
        made, count = types.shape(self.weight)[1], len(places)
        first = IntsAttr([0, 1, count + 2, *range(2, count + 2)])
        image = emit.reshape(emit(TransposeOp, self.input, permutation=first), (batch, groups * channels, *places))
        weight = emit.reshape(self.weight, (groups * made, *self.kernel.data, channels))
        weight = emit(TransposeOp, weight, permutation=IntsAttr([0, count + 1, *range(1, count + 1)]))
        properties = {
            "strides": self.strides,
            "padding": IntsAttr([0] * count),
            "dilation": self.dilation,
            "groups": IntAttr(groups) if isinstance(groups, int) else IntAttr(1),
        }
        return [emit(ConvolutionOp, image, weight, *([] if self.bias is None else [self.bias]), **properties)]
