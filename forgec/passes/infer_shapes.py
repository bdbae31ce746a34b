"""Result types from operand types."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.locations import location_of
from forgec.ir.ops.base import ForgeOp
from forgec.passes.rewriting import blocks, functions, sign


@dataclass(frozen=True)
class InferShapes(ModulePass):
    """Make every result type what the op infers from its operands, from the function's arguments down.

    Before::

        %0 = forge.add %x, %y : (tensor<4x1xf32>, tensor<3xf32>) -> tensor<?x?xf32, #forge.tensor<[s0, s1]>>

    After::

        %0 = forge.add %x, %y : (tensor<4x1xf32>, tensor<3xf32>) -> tensor<4x3xf32>

    Types that already agree keep their strides. Ops whose result type is their own say (reshape, broadcast, aten)
    keep it. Raises FORGE-I002 where operands do not fit together.

    Order: by hand, with ``forgec opt``, after types of arguments were changed in a file.
    """

    name = "infer-shapes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in block.ops:
                if isinstance(current, ForgeOp):
                    _infer(current)
        for function in functions(op):
            sign(function)


def _infer(op: ForgeOp) -> None:
    try:
        expected = op.infer()
    except VerifyException as reason:
        raise error("FORGE-I002", f"{op.name}: {reason}", location=location_of(op)) from None
    for result, (dtype, shape) in zip(op.results, expected, strict=True):
        if (types.dtype(result), types.shape(result)) != (dtype, tuple(shape)):
            result._type = types.tensor(dtype, shape)
